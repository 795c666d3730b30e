"""The sources of a manifest: files and folders, found by their names and told apart by them."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from schemas.exceptions import ManifestError, RaylabelError, StorageError
from schemas.ledger import SourceFile
from schemas.spec import ManifestFormat, ManifestSpec
from workers.manifest.contents import digest_of
from workers.manifest.formats import FORMATS, format_of, manifest_suffixes, s3_inventory
from workers.manifest.formats.base import Row, RowFormat
from workers.manifest.formats.parquet import rows_of_parquet
from workers.manifest.listing import ListedFile, Order, list_files, listing_of, root_of
from workers.manifest.metadata import FILE_NAME, METADATA_NAMES, ImageMetadata, MetadataFile
from workers.manifest.partitions import partitions_of
from workers.manifest.passed_over import PassedOver
from workers.manifest.sources import Source
from workers.manifest.suffixes import suffix_of
from workers.manifest.table_formats import assert_no_table_format
from workers.printable import message_of
from workers.storage.filesystem import file_system, full_url
from workers.storage.uris import absolute_uri, clean_uri, parent_url


def find_sources(spec: ManifestSpec) -> list[Source]:
    """Returns what a manifest is made of, in order: as named, and by name within a folder or glob.

    A folder (or glob) with an image is listed: its images are the rows. Of one with tar files these are the
    sources, of any other its manifest files. Names that begin with "." or "_" are passed over in folders.

    Raises:
        ManifestError: nothing is there, or its format is unknown.
        StorageError: the store cannot be read.
    """
    sources = []
    for uri in map(absolute_uri, spec.uris):
        try:
            sources += _find(uri, spec)
        except RaylabelError:
            raise
        except Exception as error:  # each store raises its own
            message = message_of(error, uri, clean_uri(uri)) or type(error).__name__
            raise StorageError(f"cannot look for the manifest {clean_uri(uri)}: {message}") from error
    return sources


class _Found(NamedTuple):
    file: ListedFile
    format: ManifestFormat
    uri: str


def _find(uri: str, spec: ManifestSpec) -> list[Source]:
    fs, path = file_system(uri)
    passed = PassedOver()
    files, order = list_files(fs, path, passed)
    found: list[_Found] = []
    for file in files:
        name = _format(file, spec)
        if name is None:
            passed.add_file(file.name)
        elif FORMATS[name].is_listed:
            all_files = itertools.chain((earlier.file for earlier in found), [file], files)
            images = _OfFormat(all_files, name, spec, passed, root_of(fs, path))
            return [_listed(fs, uri, images, order)]
        else:
            found.append(_Found(file, name, full_url(fs, file.name, uri)))
    chosen = _chosen(found, passed)
    if not chosen:
        raise ManifestError(_nothing_found(uri, passed))
    root = root_of(fs, path)
    assert_no_table_format(fs, path, root, [each.file.name for each in chosen if each.format == "parquet"])
    chosen.sort(key=lambda each: order(each.uri))
    first, *others = [_source(fs, each, root, spec) for each in chosen]
    return [replace(first, passed_over=passed), *others]


def _chosen(found: list[_Found], passed: PassedOver) -> list[_Found]:
    """The sources among manifest files of all formats: where there is a data set, nothing else.

    Raises:
        ManifestError: one that would be lost cannot be read, or several list the same objects.
    """
    refusals = {each.uri: why for each in found if (why := FORMATS[each.format].refusal(each.uri))}
    sources = [each for each in found if each.uri not in refusals]
    s3_inventory.assert_one_each(sorted(each.uri for each in sources))
    data = [each for each in sources if _is_data_set(each)]
    # alone or in a data set its images would be lost; among other manifest files it may be anything
    if refusals and (data or not sources):
        raise ManifestError(min(refusals.values()))
    chosen = data or sources
    kept = {each.uri for each in chosen}
    for each in found:
        if each.uri not in kept:
            passed.add_file(each.file.name)
    return chosen


def _nothing_found(uri: str, passed: PassedOver) -> str:
    there = f" (there are: {passed})" if passed else ""
    return (
        f"found no manifest at {clean_uri(uri)}{there}. A manifest is a file ending in "
        f"{', '.join(manifest_suffixes())} (or any other, with manifest.format set), a folder or glob of "
        "them, or a folder or glob of images"
    )


def _format(file: ListedFile, spec: ManifestSpec) -> ManifestFormat | None:
    return format_of(file.name) if spec.format == "auto" else spec.format


def _source(fs: Any, found: _Found, root: str, spec: ManifestSpec) -> Source:
    file, name, uri = found
    version = file.version
    if isinstance(fs, LocalFileSystem):
        version = digest_of(file.name, sampled=FORMATS[name].is_sampled)
    return Source(
        file=SourceFile(
            uri=clean_uri(uri),
            size=file.size or 0,
            version=version,
            format=name,
            partitions=dict(partitions_of(file.name, root)),
        ),
        uri=uri,
        format=name,
        base=absolute_uri(spec.base) if spec.base else parent_url(uri),
    )


@dataclass
class _OfFormat:
    """Those of some files that have a format; counts the others, and keeps metadata of images.

    Attributes:
        root: the folder that was named.
        metadata: the metadata files that were passed by.
        partitions: the columns that folders below the root say, in the order in which they came.
    """

    files: Iterable[ListedFile]
    format: ManifestFormat
    spec: ManifestSpec
    passed: PassedOver
    root: str
    metadata: list[ListedFile] = field(default_factory=list)
    partitions: dict[str, None] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ListedFile]:
        for file in self.files:
            if _format(file, self.spec) == self.format:
                if "=" in file.name:
                    self.partitions |= dict.fromkeys(key for key, _ in partitions_of(file.name, self.root))
                yield file
            elif file.name.rpartition("/")[2] in METADATA_NAMES:
                self.metadata.append(file)
            else:
                self.passed.add_file(file.name)


def _listed(fs: Any, uri: str, files: _OfFormat, order: Order) -> Source:
    """A folder or glob as one source, the images in it, with the metadata beside them."""
    listing = listing_of(files, order)
    metadata = _metadata(fs, uri, files)
    version = listing.digest
    if metadata:
        count, example = metadata.naming_none(file.name for file in listing)
        if count:
            files.passed.add_rows(count, example)
        records = [each.file.model_dump() for each in metadata.files]
        version = hashlib.sha256(json.dumps([version, records]).encode()).hexdigest()
    folder = clean_uri(uri).rstrip("/") or "/"
    record = SourceFile(uri=folder, size=listing.count, version=version, format=files.format)
    return Source(
        file=record,
        uri=uri,
        format=files.format,
        base="",
        listing=listing,
        metadata=metadata,
        passed_over=files.passed,
        folder_columns=tuple(files.partitions),
    )


def _metadata(fs: Any, uri: str, files: _OfFormat) -> ImageMetadata | None:
    """The metadata files that name images; others are passed over."""
    metadata = []
    for file in files.metadata:
        name = format_of(file.name)
        assert name
        source = _source(fs, _Found(file, name, full_url(fs, file.name, uri)), "", files.spec)
        if _names_files(source):
            metadata.append(MetadataFile(file.name, source.file, partial(_rows, source)))
        else:
            files.passed.add_file(file.name)
    return ImageMetadata(metadata) if metadata else None


def _rows(source: Source) -> Iterator[Row]:
    fmt = FORMATS[source.format]
    return fmt.rows(source) if isinstance(fmt, RowFormat) else rows_of_parquet(source.uri)


def _names_files(source: Source) -> bool:
    """Whether a metadata file names images, in any of its rows: those of JSON Lines may differ.

    Raises:
        ManifestError: it cannot be read, so what it says of the images would be lost.
    """
    try:
        return FILE_NAME in FORMATS[source.format].columns(source).names or any(
            FILE_NAME in row for row in _rows(source)
        )
    except ManifestError as error:
        raise ManifestError(
            f"{error} (it is read as metadata of the images beside it; if it is none, give it another name)"
        ) from None


def _is_data_set(found: _Found) -> bool:
    fmt = FORMATS[found.format]
    return fmt.is_data_set and suffix_of(found.uri) in fmt.suffixes
