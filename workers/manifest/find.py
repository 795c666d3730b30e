"""The sources of a manifest: files and folders, found by their names and told apart by them."""

import itertools
from collections.abc import Iterator
from typing import Any

from schemas.exceptions import ManifestError, RaylabelError, StorageError
from schemas.ledger import SourceFile
from schemas.spec import ManifestFormat, ManifestSpec
from workers.manifest.formats import FORMATS, format_of, manifest_suffixes
from workers.manifest.listing import ListedFile, Order, list_files, listing_of
from workers.manifest.sources import Source
from workers.manifest.suffixes import suffix_of
from workers.storage.filesystem import file_system, full_url
from workers.storage.uris import clean_uri, parent_url


def find_sources(spec: ManifestSpec) -> list[Source]:
    """Returns what a manifest is made of, in order: as named, and by name within a folder or glob.

    A folder (or glob) with an image is listed: its images are the rows. Of one with tar files these are the
    sources, of any other its manifest files. Names that begin with "." or "_" are passed over in folders.

    Raises:
        ManifestError: nothing is there, or its format is unknown.
        StorageError: the store cannot be read.
    """
    sources = []
    for uri in spec.uris:
        try:
            sources += _find(uri, spec)
        except RaylabelError:
            raise
        except Exception as error:  # each store raises its own
            message = str(error).replace(uri, clean_uri(uri)) or type(error).__name__
            raise StorageError(f"cannot look for the manifest {clean_uri(uri)}: {message}") from error
    return sources


def _find(uri: str, spec: ManifestSpec) -> list[Source]:
    fs, path = file_system(uri)
    files, order = list_files(fs, path)
    sources: list[Source] = []
    refusals: list[str] = []
    for file in files:
        name = _format(file, spec)
        if name is None:
            continue
        if FORMATS[name].is_listed:
            return [_listed(uri, name, itertools.chain([file], files), order, spec)]
        source = _source(fs, file, uri, name, spec)
        if refusal := FORMATS[name].refusal(source.uri):
            refusals.append(refusal)
        else:
            sources.append(source)
    sources.sort(key=lambda source: order(source.uri))
    data = [source for source in sources if _is_data_set(source)]
    # alone or in a data set its images would be lost; among other manifest files it may be anything
    if refusals and (data or not sources):
        raise ManifestError(min(refusals))
    if not sources:
        raise ManifestError(
            f"found no manifest at {clean_uri(uri)}. A manifest is a file ending in "
            f"{', '.join(manifest_suffixes())} (or any other, with manifest.format set), a folder or glob of "
            "them, or a folder or glob of images"
        )
    return data or sources


def _format(file: ListedFile, spec: ManifestSpec) -> ManifestFormat | None:
    return format_of(file.name) if spec.format == "auto" else spec.format


def _source(fs: Any, file: ListedFile, found_by: str, name: ManifestFormat, spec: ManifestSpec) -> Source:
    uri = full_url(fs, file.name, found_by)
    record = SourceFile(uri=clean_uri(uri), size=file.size or 0, version=file.version)
    return Source(record, uri, name, spec.base or parent_url(uri))


def _listed(
    uri: str, name: ManifestFormat, files: Iterator[ListedFile], order: Order, spec: ManifestSpec
) -> Source:
    """A folder or glob as one source: those of its files that have the format."""
    listing = listing_of((file for file in files if _format(file, spec) == name), order)
    record = SourceFile(uri=clean_uri(uri), size=listing.count, version=listing.digest)
    return Source(record, uri, name, "", listing)


def _is_data_set(source: Source) -> bool:
    fmt = FORMATS[source.format]
    return fmt.is_data_set and suffix_of(source.uri) in fmt.suffixes
