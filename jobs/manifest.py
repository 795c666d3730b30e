"""Finding a manifest: which files it is made of, which columns they have. Reads metadata only."""

import gzip
import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.exceptions import ManifestError
from schemas.ledger import MANIFEST, SourceFile
from schemas.spec import ManifestFormat, ManifestSpec
from workers.manifest import Manifest, ManifestFile, Row, rows_of, to_parquet, write_parquet
from workers.storage import Store, clean_uri, file_system, full_url, parent_url

FORMATS: dict[str, ManifestFormat] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
IMAGES = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "gif", "webp", "bmp", "dib", "tif", "tiff"),
        *("avif", "jp2", "ppm", "pgm", "pbm"),
    )
)
"""What is taken for an image when a folder is listed. A manifest may name anything."""

MapTasks = Callable[[Callable[..., Any], list[tuple[Any, ...]]], list[Any]]
"""Runs one function over many argument lists, somewhere, and gives the results in order."""


@dataclass(frozen=True)
class Source:
    """One file of a manifest, or one listed folder.

    Attributes:
        file: its name and version, as the run pins them.
        uri: where to read it, credentials included.
        form: what it is.
        base: the folder that relative image paths in it are meant from.
        listing: the images of a listed folder.
    """

    file: SourceFile
    uri: str
    form: ManifestFormat
    base: str
    listing: "Listing | None" = field(default=None, compare=False)


class Listing:
    """The images that a folder held when it was listed: on disk, as there may be millions.

    Args:
        entries: of the images, as fsspec gives them.
        fs: the file system they are on.

    Attributes:
        count: how many there are.
        digest: the sha256 over all names, sizes and versions.
    """

    def __init__(self, entries: Iterator[dict[str, Any]], fs: Any) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with this object
        self.count, digest = 0, hashlib.sha256()
        with gzip.open(self._file, "wt", compresslevel=1) as lines:
            for self.count, entry in enumerate(entries, 1):
                named = f"{entry['name']}\0{entry['size']}\0{_version(entry)}\n"
                digest.update(named.encode(errors="surrogateescape"))
                lines.write(json.dumps(full_url(fs, entry["name"])) + "\n")
        self.digest = digest.hexdigest()

    def rows(self) -> Iterator[Row]:
        """A manifest row for each image."""
        self._file.seek(0)
        with gzip.open(self._file, "rt") as lines:
            for line in lines:
                yield {"uri": json.loads(line)}

    def __del__(self) -> None:
        self._file.close()


def find_sources(spec: ManifestSpec) -> list[Source]:
    """The files that a manifest is made of, in order: as named, and by name within a folder or glob.

    A folder (or glob) that holds images is listed as they are; one that holds none is taken for a folder of
    manifest files. Names that begin with "." or "_" are passed over in folders.

    Raises:
        ManifestError: nothing is there, or it cannot be told what it is.
    """
    return [source for uri in spec.uris for source in _find(uri, spec)]


def _find(uri: str, spec: ManifestSpec) -> list[Source]:
    fs, path = file_system(uri)
    entries = _entries(fs, path)
    found = []
    for entry in entries:
        suffix = _suffix(entry["name"])
        if spec.format == "images" or (spec.format == "auto" and suffix in IMAGES):
            listing = Listing(_images(itertools.chain([entry], entries), spec), fs)
            file = SourceFile(uri=clean_uri(uri), size=listing.count, version=listing.digest)
            return [Source(file, uri, "images", "", listing)]
        form = FORMATS.get(suffix) if spec.format == "auto" else spec.format
        if form is not None:
            full = full_url(fs, entry["name"])
            file = SourceFile(uri=clean_uri(full), size=entry["size"] or 0, version=_version(entry))
            found.append(Source(file, full, form, spec.base or parent_url(full)))
    if not found:
        raise ManifestError(
            f"found no manifest at {clean_uri(uri)}. A manifest is a file ending in "
            f"{', '.join(FORMATS)} (or any other, with manifest.format set), a folder or glob of them, "
            "or a folder or glob of images"
        )
    return found


def _entries(fs: Any, path: str) -> Iterator[dict[str, Any]]:
    """The files that a path, a folder or a glob names, by name; a folder's one level at a time."""
    if any(c in path for c in "*?[") and not fs.exists(path):
        yield from (e for _, e in sorted(fs.glob(path, detail=True).items()) if e["type"] == "file")
    elif fs.isdir(path):
        for entry in sorted(fs.ls(path, detail=True), key=lambda e: str(e["name"])):
            name = PurePosixPath(entry["name"]).name
            if name.startswith((".", "_")) or entry["name"].rstrip("/") == path:
                continue
            if entry["type"] == "directory":
                yield from _entries(fs, entry["name"].rstrip("/"))
            else:
                yield entry
    elif fs.exists(path):
        yield fs.info(path)


def _images(entries: Iterator[dict[str, Any]], spec: ManifestSpec) -> Iterator[dict[str, Any]]:
    return (e for e in entries if spec.format == "images" or _suffix(e["name"]) in IMAGES)


def _suffix(name: str) -> str:
    """A name's ending, lower-case, that of a compression apart; "" where it has none."""
    file = clean_uri(name).lower().rpartition("/")[2]
    if file.endswith(COMPRESSIONS):
        file = file.rpartition(".")[0]
    stem, _, ending = file.rpartition(".")
    return f".{ending}" if stem and ending else ""


def _version(entry: dict[str, Any]) -> str:
    """What changes when a file does: its ETag, or the time it was last changed."""
    for key in ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated"):
        if entry.get(key) is not None:
            return str(entry[key]).strip('"')
    return ""


def first_columns(source: Source) -> list[str]:
    """The columns of a source, from its metadata or its first row."""
    match source.form:
        case "images" | "text":
            return ["uri"]
        case "parquet":
            return list(_parquet_schema(source.uri)[0].names)
        case _:
            return list(next(rows_of(source.uri, source.form), {}))


def open_manifest(spec: ManifestSpec, sources: list[Source], store: Store, map_tasks: MapTasks) -> Manifest:
    """A manifest whose rows can be read by position.

    What is not Parquet is made into Parquet in the run directory, once; the tasks that do it run where
    `map_tasks` runs them.

    Raises:
        ManifestError: it has no rows, or not the columns the spec names, or a file is malformed.
    """
    files = {n: found for n, source in enumerate(sources) if (found := _kept(store, n, source)) is not None}
    todo = [
        n for n, source in enumerate(sources) if n not in files and source.form in ("text", "csv", "jsonl")
    ]
    made = map_tasks(to_parquet, [_conversion(store, n, sources[n]) for n in todo])
    for number, converted in zip(todo, made, strict=True):
        files[number] = _keep(store, number, sources[number], converted)
    for number, source in enumerate(sources):
        if source.listing and number not in files:
            listed = write_parquet(source.listing.rows(), _into(store, number), base="")
            files[number] = _keep(store, number, source, listed)

    parquet = [n for n, source in enumerate(sources) if source.form == "parquet"]
    with ThreadPoolExecutor(16) as pool:
        footers = dict(
            zip(parquet, pool.map(_parquet_schema, [sources[n].uri for n in parquet]), strict=True)
        )
    schemas = []
    for number, source in enumerate(sources):
        if number in footers:
            schema, groups = footers[number]
            files[number] = [ManifestFile(source.uri, groups, tuple(schema.names), source.base)]
        else:
            names = dict.fromkeys(c for file in files[number] for c in file.columns)
            schema = pa.schema([pa.field(name, pa.string()) for name in names])
        schemas.append((source, schema))
    return _manifest(spec, [file for number in range(len(sources)) for file in files[number]], schemas)


def assert_uri_column(spec: ManifestSpec, source: Source, columns: list[str]) -> None:
    """Refuses a file without the column that the images are found by.

    Raises:
        ManifestError: with the columns that it has.
    """
    if spec.uri_column not in columns:
        raise ManifestError(
            f"{source.file.uri} has no column {spec.uri_column!r} to find the images by; "
            f"it has: {', '.join(columns) or 'none'}. Set manifest.uri_column to one of them"
        )


def _manifest(
    spec: ManifestSpec, files: list[ManifestFile], schemas: list[tuple[Source, pa.Schema]]
) -> Manifest:
    if not sum(file.rows for file in files):
        raise ManifestError(f"the manifest {', '.join(map(clean_uri, spec.uris))} has no rows")
    for source, schema in schemas:
        if len(schema):
            assert_uri_column(spec, source, schema.names)
    try:
        merged = pa.unify_schemas([_plain(s) for _, s in schemas], promote_options="permissive")
    except pa.ArrowException as error:
        raise ManifestError(f"the manifest's files do not fit together: {error}") from None
    image_id = spec.image_id_column or ("image_id" if "image_id" in merged.names else None)
    if image_id and image_id not in merged.names:
        raise ManifestError(
            f"manifest.image_id_column is {image_id!r}; the manifest has: {', '.join(merged.names)}"
        )
    kind = merged.field(spec.uri_column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ManifestError(f"column {spec.uri_column!r} of the manifest is {kind}, allowed: string")
    carried = pa.schema([f for f in merged if f.name not in (spec.uri_column, image_id)])
    return Manifest(files, spec.uri_column, image_id, carried)


def _plain(schema: pa.Schema) -> pa.Schema:
    """The same columns, nullable, dictionaries as their values: files of one manifest may differ in these."""
    kinds = [f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in schema]
    return pa.schema([pa.field(f.name, kind) for f, kind in zip(schema, kinds, strict=True)])


def _parquet_schema(uri: str) -> tuple[pa.Schema, tuple[int, ...]]:
    """A Parquet file's columns and the rows of each of its row groups, from its footer."""
    fs, path = file_system(uri)
    try:
        with fs.open(path, "rb") as file:
            footer = pq.ParquetFile(file)
            meta = footer.metadata
            return footer.schema_arrow, tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(f"cannot read {clean_uri(uri)} as Parquet: {error}") from None


def _into(store: Store, number: int) -> str:
    return f"{store.url}/{MANIFEST}/{number:05d}"


def _conversion(store: Store, number: int, source: Source) -> tuple[str, str, str, str]:
    return source.uri, source.form, _into(store, number), source.base


def _kept(store: Store, number: int, source: Source) -> list[ManifestFile] | None:
    """What an earlier attempt made of the very same source."""
    try:
        found = json.loads(store.read(f"{MANIFEST}/{number:05d}.json"))
    except FileNotFoundError:
        return None
    if found["source"] != source.file.model_dump():
        return None
    return [
        ManifestFile(f["uri"], tuple(f["row_groups"]), tuple(f["columns"]), f["base"]) for f in found["files"]
    ]


def _keep(store: Store, number: int, source: Source, files: list[ManifestFile]) -> list[ManifestFile]:
    record = {"source": source.file.model_dump(), "files": [asdict(file) for file in files]}
    store.write(f"{MANIFEST}/{number:05d}.json", json.dumps(record).encode())
    return files
