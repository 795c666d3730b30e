"""The files that a manifest is made of: found and told apart by their names."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from schemas.exceptions import ManifestError, RaylabelError, StorageError
from schemas.ledger import SourceFile
from schemas.locations import IMAGE_ENDINGS
from schemas.spec import ManifestFormat, ManifestSpec
from workers.fetch.tar import compressed
from workers.manifest.formats import Row
from workers.manifest.listing import ListedFile, Listing, list_files
from workers.storage.filesystem import file_system, full_url
from workers.storage.uris import clean_uri, parent_url

FORMATS: dict[str, ManifestFormat] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".tar": "tar",
}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
COMPRESSED_TARS = (*(f".tar{ending}" for ending in COMPRESSIONS), ".tgz", ".tbz2", ".txz", ".tzst")


@dataclass(frozen=True)
class Source:
    """One file of a manifest, or one listed folder.

    Attributes:
        file: its name and version, as the run pins them.
        uri: where to read it, credentials included.
        form: what it is.
        base: the folder that relative image paths in it are meant from.
        listing: the rows of a folder that was listed.
    """

    file: SourceFile
    uri: str
    form: ManifestFormat
    base: str
    listing: "Iterable[Row] | None" = field(default=None, compare=False)


def find_sources(spec: ManifestSpec) -> list[Source]:
    """The files that a manifest is made of, in order: as named, and by name within a folder or glob.

    A folder (or glob) that holds images is listed as they are; one that holds tar files is taken for those,
    any other for a folder of manifest files. Names that begin with "." or "_" are passed over in folders.

    Raises:
        ManifestError: nothing is there, or it cannot be told what it is.
        StorageError: it cannot be looked for.
    """
    found = []
    for uri in spec.uris:
        try:
            found += _find(uri, spec)
        except RaylabelError:
            raise
        except Exception as error:  # each store raises its own
            said = str(error).replace(uri, clean_uri(uri)) or type(error).__name__
            raise StorageError(f"cannot look for the manifest {clean_uri(uri)}: {said}") from error
    return found


def _find(uri: str, spec: ManifestSpec) -> list[Source]:
    fs, path = file_system(uri)
    files = list_files(fs, path)
    found: list[Source] = []
    packed: list[str] = []
    for listed in files.found:
        suffix = _suffix(listed.name)
        if spec.format == "images" or (spec.format == "auto" and suffix in IMAGE_ENDINGS):
            images = _images(itertools.chain([listed], files.found), spec)
            listing = Listing(replace(files, found=images), fs, uri)
            file = SourceFile(uri=clean_uri(uri), size=listing.count, version=listing.digest)
            return [Source(file, uri, "images", "", listing)]
        form = FORMATS.get(suffix) if spec.format == "auto" else spec.format
        full = full_url(fs, listed.name, uri)
        file = SourceFile(uri=clean_uri(full), size=listed.size or 0, version=listed.version)
        if spec.format in ("auto", "tar") and file.uri.lower().endswith(COMPRESSED_TARS):
            packed.append(file.uri)
        elif form is not None:
            found.append(Source(file, full, form, spec.base or parent_url(full)))
    found.sort(key=lambda source: files.order(source.uri))
    # beside the tar files of a data set lies what was written of them: statistics, tables without the images
    tars = [source for source in found if source.form == "tar" and _suffix(source.uri) == ".tar"]
    if packed and (tars or not found):
        raise ManifestError(compressed(min(packed), "by its name"))
    if not found:
        raise ManifestError(
            f"found no manifest at {clean_uri(uri)}. A manifest is a file ending in "
            f"{', '.join(FORMATS)} (or any other, with manifest.format set), a folder or glob of them, "
            "or a folder or glob of images"
        )
    return tars or found


def _images(files: Iterator[ListedFile], spec: ManifestSpec) -> Iterator[ListedFile]:
    return (f for f in files if spec.format == "images" or _suffix(f.name) in IMAGE_ENDINGS)


def _suffix(name: str) -> str:
    """A name's ending, lower-case, that of a compression apart; "" where it has none."""
    file = clean_uri(name).lower().rpartition("/")[2]
    if file.endswith(COMPRESSIONS):
        file = file.rpartition(".")[0]
    stem, _, ending = file.rpartition(".")
    return f".{ending}" if stem and ending else ""
