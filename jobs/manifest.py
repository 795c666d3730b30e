"""Finding a manifest: which files it is made of, which columns they have. Reads metadata only."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.listing import ListedFile, Listing, list_files
from schemas.exceptions import ManifestError, RaylabelError, StorageError
from schemas.ledger import MANIFEST, SourceFile
from schemas.locations import IMAGE_ENDINGS, Location, ParquetValue, TarMember
from schemas.spec import FetchSpec, ManifestFormat, ManifestSpec
from workers.locations import locate
from workers.manifest import (
    Manifest,
    ManifestFile,
    Source,
    convert,
    converted_url,
    keep,
    kept,
    record_key,
    rows_of,
    write_parquet,
)
from workers.storage import Store, clean_uri, file_system, full_url, opened, parent_url
from workers.tars import compressed, rows_of_tar

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

MapTasks = Callable[[Callable[..., Any], list[tuple[Any, ...]]], list[Any]]
"""Runs one function over many argument lists, somewhere, and gives the results in order."""


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


def assert_images(spec: ManifestSpec, source: Source) -> None:
    """Refuses a source that cannot say where its images are, by its metadata or its first row.

    Raises:
        ManifestError: with what it has.
    """
    match source.form:
        case "tar":
            next(rows_of_tar(source.uri, FetchSpec()), None)
        case "images" | "text":
            image_column(spec, source, _strings(["uri"]))
        case "parquet":
            image_column(spec, source, _parquet_schema(source.uri)[0])
        case _:
            image_column(spec, source, _strings(next(rows_of(source.uri, source.form), {})))


def image_column(spec: ManifestSpec, source: Source, columns: pa.Schema) -> str | None:
    """The column that holds the images of a source themselves; None where a column names them.

    Raises:
        ManifestError: there is neither, with the columns that there are.
    """
    fitting: list[str] = [f.name for f in columns if _holds_bytes(f.type)]
    if spec.image_column != "auto":
        if spec.image_column in fitting:
            return spec.image_column
        raise ManifestError(
            f"manifest.image_column is {spec.image_column!r}; the columns of {source.file.uri} that can hold "
            f"images (binary, or structs with binary `bytes`) are: {', '.join(fitting) or 'none'}"
        )
    if spec.uri_column in columns.names:
        return None
    if len(fitting) == 1:
        return fitting[0]
    raise ManifestError(
        f"{source.file.uri} has no column {spec.uri_column!r} to find the images by; "
        f"it has: {', '.join(columns.names) or 'none'}. Set manifest.uri_column to one of them"
        + (
            f", or manifest.image_column to one that holds the images: {', '.join(fitting)}"
            if fitting
            else ""
        )
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether images can be in a column: binary values, or structs as Hugging Face's datasets have them."""
    return _is_binary(kind) or _has_bytes(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _has_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    place = kind.get_field_index("bytes")
    return place >= 0 and _is_binary(kind.field(place).type)


def first_location(spec: ManifestSpec, source: Source) -> Location | None:
    """Where the first image of a source is; None where it has none."""
    match source.form:
        case "tar":
            row = next(rows_of_tar(source.uri, FetchSpec()), {})
            found = "start" in row
            return TarMember(source.uri, row["name"], (row["start"], row["size"])) if found else None
        case "images":
            uri = next(iter(source.listing or ()), {}).get("uri")
        case "parquet" if column := image_column(spec, source, _parquet_schema(source.uri)[0]):
            return ParquetValue(source.uri, column, 0)
        case "parquet":
            with opened(source.uri) as file:
                batches = pq.ParquetFile(file).iter_batches(1, columns=[spec.uri_column])
                uri = next((batch[0][0].as_py() for batch in batches if len(batch)), None)
        case _:
            uri = next(rows_of(source.uri, source.form), {}).get(spec.uri_column)
    return locate(uri, source.base) if uri else None


def open_manifest(spec: ManifestSpec, sources: list[Source], store: Store, map_tasks: MapTasks) -> Manifest:
    """A manifest whose rows can be read by position.

    What is not Parquet is made into Parquet in the run directory, once; the tasks that do it run where
    `map_tasks` runs them, and each keeps a record of what it did.

    Raises:
        ManifestError: it has no rows, or not the columns the spec names, or a file is malformed.
    """
    files = _kept(store, sources)
    todo = [
        n
        for n, source in enumerate(sources)
        if n not in files and source.form in ("text", "csv", "jsonl", "tar")
    ]
    made = map_tasks(convert, [(store.url, n, sources[n]) for n in todo])
    files |= dict(zip(todo, made, strict=True))
    for number, source in enumerate(sources):
        if source.listing and number not in files:
            listed = write_parquet(source.listing, converted_url(store, number), "", _strings(["uri"]))
            files[number] = keep(store, number, source, listed)

    parquet = [n for n, source in enumerate(sources) if source.form == "parquet"]
    with ThreadPoolExecutor(16) as pool:
        footers = dict(
            zip(parquet, pool.map(_parquet_schema, [sources[n].uri for n in parquet]), strict=True)
        )
    schemas = []
    for number, source in enumerate(sources):
        if number in footers:
            schema, groups = footers[number]
            files[number] = [ManifestFile(source.uri, groups, _column_names(schema), source.base)]
        elif source.form == "tar":
            continue  # what its headers are made into has columns of its own
        else:
            schema = _strings(c for file in files[number] for c in file.columns)
        schemas.append((source, schema))
    return _manifest(spec, [file for number in range(len(sources)) for file in files[number]], schemas)


def _manifest(
    spec: ManifestSpec, files: list[ManifestFile], schemas: list[tuple[Source, pa.Schema]]
) -> Manifest:
    if not sum(file.rows for file in files):
        raise ManifestError(f"the manifest {', '.join(map(clean_uri, spec.uris))} has no rows")
    images = _one_image_column(spec, schemas)
    without = {f.name for _, schema in schemas for f in schema if images and _has_bytes(f.type)} | {images}
    try:
        merged = pa.unify_schemas(
            [_plain(s, without) for _, s in schemas] or [pa.schema([])], promote_options="permissive"
        )
    except pa.ArrowException as error:
        raise ManifestError(f"the manifest's files do not fit together: {error}") from None
    image_id = spec.image_id_column or ("image_id" if "image_id" in merged.names else None)
    if image_id and image_id not in merged.names:
        raise ManifestError(
            f"manifest.image_id_column is {image_id!r}; the manifest has: {', '.join(merged.names) or 'none'}"
        )
    if images is None and spec.uri_column in merged.names:
        kind = merged.field(spec.uri_column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ManifestError(f"column {spec.uri_column!r} of the manifest is {kind}, allowed: string")
    taken = (image_id, None if images else spec.uri_column)
    carried = pa.schema([f for f in merged if f.name not in taken])
    return Manifest(files, spec.uri_column, image_id, carried, images)


def _one_image_column(spec: ManifestSpec, schemas: list[tuple[Source, pa.Schema]]) -> str | None:
    """The image column of a manifest, whose files must agree on it; see `image_column`."""
    found = {image_column(spec, source, schema): source for source, schema in schemas if len(schema)}
    if len(found) > 1:
        said = (
            f"{f'images in column {name!r}' if name else 'names of images'} in {source.file.uri}"
            for name, source in found.items()
        )
        raise ManifestError(f"the manifest's files do not fit together: {', '.join(said)}. Label them apart")
    return next(iter(found), None)


def _strings(names: Iterable[str]) -> pa.Schema:
    return pa.schema([pa.field(name, pa.string()) for name in dict.fromkeys(names)])


def _column_names(schema: pa.Schema) -> tuple[str, ...]:
    """The names of a file's columns, and the paths of what its structs have as the path of an image."""
    paths = [f"{f.name}.path" for f in schema if _has_bytes(f.type) and f.type.get_field_index("path") >= 0]
    return (*schema.names, *paths)


def _plain(schema: pa.Schema, without: set[str | None]) -> pa.Schema:
    """The same columns, nullable, dictionaries as their values: files of one manifest may differ in these.

    Args:
        schema: of a file.
        without: columns that are left out, as they hold images.
    """
    fields = [f for f in schema if f.name not in without]
    kinds = [f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in fields]
    return pa.schema([pa.field(f.name, kind) for f, kind in zip(fields, kinds, strict=True)])


def _parquet_schema(uri: str) -> tuple[pa.Schema, tuple[int, ...]]:
    """A Parquet file's columns and the rows of each of its row groups, from its footer."""
    try:
        with opened(uri) as file:
            footer = pq.ParquetFile(file)
            meta = footer.metadata
            return footer.schema_arrow, tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(f"cannot read {clean_uri(uri)} as Parquet: {error}") from None


def _kept(store: Store, sources: list[Source]) -> dict[int, list[ManifestFile]]:
    """What earlier attempts made of the very same sources, by their numbers."""
    there = set(store.list(MANIFEST))
    numbers = [n for n, source in enumerate(sources) if record_key(n) in there and source.form != "parquet"]
    records = store.read_all(record_key(n) for n in numbers)
    found = {}
    for number, record in zip(numbers, records, strict=True):
        if record and (files := kept(record, sources[number])) is not None:
            found[number] = files
    return found
