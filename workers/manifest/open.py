"""Finding a manifest: which files it is made of, which columns they have. Reads metadata only."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.exceptions import ManifestError
from schemas.ledger import MANIFEST
from schemas.locations import Location, ParquetCell, TarMember
from schemas.spec import FetchSpec, ManifestSpec
from workers.fetch.locate import locate
from workers.manifest.convert import convert, converted_url, keep, kept, record_key, write_parquet
from workers.manifest.formats import rows_of, rows_of_tar
from workers.manifest.manifest import Manifest, ManifestFile
from workers.manifest.sources import Source
from workers.storage.filesystem import open_file
from workers.storage.store import Store
from workers.storage.uris import clean_uri

MapTasks = Callable[[Callable[..., Any], list[tuple[Any, ...]]], list[Any]]
"""Runs one function over many argument lists, somewhere, and gives the results in order."""


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
            return ParquetCell(source.uri, column, 0)
        case "parquet":
            with open_file(source.uri) as file:
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
        with open_file(uri) as file:
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
