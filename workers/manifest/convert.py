"""Sources that are not Parquet, converted to it once a run, with a record of each in the run directory."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from schemas.ledger import MANIFEST, SourceFile
from workers.batched import chunks
from workers.manifest.columns import strings
from workers.manifest.files import ManifestFile
from workers.manifest.formats import FORMATS
from workers.manifest.formats.base import Row, RowFormat
from workers.manifest.sources import Source
from workers.storage.filesystem import file_system, open_file
from workers.storage.store import Store

CHUNK_ROWS = 1_000_000
"""Rows of one Parquet file that another format is converted to."""

ROW_GROUP_ROWS = 16_384

FOOTERS_AT_ONCE = 16
"""Files that were converted before whose footers are read at once."""


class _ConvertedFile(BaseModel):
    uri: str
    row_groups: tuple[int, ...]
    columns: tuple[str, ...]


class _Conversion(BaseModel):
    """The record of a source that was converted."""

    source: SourceFile
    format: str
    files: list[_ConvertedFile]


def convert(output: str, number: int, source: Source) -> list[ManifestFile]:
    """Converts a source to Parquet in a run directory, and records that it did.

    The record comes last: where it is, the files are whole.

    Args:
        output: the run directory.
        number: of the source in the manifest.
        source: of any format but Parquet.

    Raises:
        ManifestError: it is not what its format says.
    """
    store = Store(output)
    files = to_parquet(source, f"{store.url}/{MANIFEST}/{number:05d}")
    # without the URI to read it and the origin of its images: there may be credentials in these
    converted = [{"uri": f.uri, "row_groups": f.row_groups, "columns": f.columns} for f in files]
    record = {"source": source.file.model_dump(), "format": source.format, "files": converted}
    store.write(_record_key(number), json.dumps(record).encode())
    return files


def read_records(store: Store, sources: list[Source]) -> dict[int, list[ManifestFile]]:
    """Returns what earlier attempts converted the very same sources to, by their numbers.

    Those of which a record or a file is damaged are left out: they are converted again.
    """
    recorded = set(store.list(MANIFEST))
    numbers = [n for n, source in enumerate(sources) if is_converted(source) and _record_key(n) in recorded]
    records = store.read_all(_record_key(n) for n in numbers)
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        read = pool.map(lambda one: _read_record(one[0], sources[one[1]]), zip(records, numbers, strict=True))
        return {number: files for number, files in zip(numbers, read, strict=True) if files is not None}


def is_converted(source: Source) -> bool:
    """Whether a source is converted; otherwise it is read as it is."""
    return isinstance(FORMATS[source.format], RowFormat)


def to_parquet(source: Source, into: str) -> list[ManifestFile]:
    """Converts a source to Parquet files, in its order.

    Args:
        source: of any format but Parquet.
        into: where to write: a path or URL that file names are appended to.

    Raises:
        ManifestError: it is not what its format says.
    """
    fmt = FORMATS[source.format]
    assert isinstance(fmt, RowFormat)
    files = write_parquet(fmt.rows(source), into, fmt.origin(source), fmt.schema_of(source))
    return [replace(file, format=source.format, partitions=source.partitions) for file in files]


def write_parquet(
    rows: Iterable[Row], into: str, origin: str, schema: pa.Schema | None = None
) -> list[ManifestFile]:
    """Writes manifest rows as Parquet files of up to `CHUNK_ROWS` rows.

    Args:
        rows: their values.
        into: where to write: a path or URL that file names are appended to.
        origin: what their images are found from; see `ManifestFile`.
        schema: of the files; None: each has the columns of its own rows, all of them strings.
    """
    files: list[ManifestFile] = []
    remaining = iter(rows)
    # columns that are not known need all rows of a file in memory; those that are, only a row group
    while first := list(islice(remaining, ROW_GROUP_ROWS if schema else CHUNK_ROWS)):
        columns = schema or strings(key for row in first for key in row)
        rest = islice(remaining, CHUNK_ROWS - len(first))
        groups = chain(chunks(first, ROW_GROUP_ROWS), chunks(rest, ROW_GROUP_ROWS))
        uri = f"{into}-{len(files):05d}.parquet"
        sizes = _write_file(uri, groups, columns)
        files.append(ManifestFile(uri, sizes, tuple(columns.names), origin))
    return files


def _write_file(uri: str, groups: Iterable[list[Row]], columns: pa.Schema) -> tuple[int, ...]:
    """Writes one file; returns the rows of each of its row groups."""
    sizes = []
    fs, path = file_system(uri)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(path, "wb") as file, pq.ParquetWriter(file, columns, compression="zstd") as writer:
        for rows in groups:
            writer.write_table(pa.Table.from_pylist(rows, columns), ROW_GROUP_ROWS)
            sizes.append(len(rows))
    return tuple(sizes)


def _record_key(number: int) -> str:
    return f"{MANIFEST}/{number:05d}.json"


def _read_record(record: bytes | None, source: Source) -> list[ManifestFile] | None:
    """What a record says a source was converted to; None: it is of another one, or a file is damaged."""
    try:
        kept = _Conversion.model_validate_json(record or b"")
    except ValidationError:
        return None
    if (kept.source, kept.format) != (source.file, source.format):
        return None
    origin = FORMATS[source.format].origin(source)
    files = [
        ManifestFile(f.uri, f.row_groups, f.columns, origin, source.format, source.partitions)
        for f in kept.files
    ]
    return files if all(map(_is_whole, files)) else None


def _is_whole(file: ManifestFile) -> bool:
    """Whether a file is there with the rows and columns that were recorded; its footer was written last."""
    try:
        with open_file(file.uri) as opened:
            footer = pq.ParquetFile(opened)
            meta, names = footer.metadata, footer.schema_arrow.names
    except (OSError, pa.ArrowException):
        return False
    groups = tuple(meta.row_group(n).num_rows for n in range(meta.num_row_groups))
    return (groups, tuple(names)) == (file.row_groups, file.columns)
