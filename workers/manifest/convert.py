"""Sources that are not Parquet, converted to it in the run directory, with a record of each.

No file is ever replaced: another conversion of the same source, or of a changed one, writes files of other
names. So what an attempt has opened stays what it is, whatever others write next to it.
"""

import contextlib
import hashlib
import io
import json
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from schemas.exceptions import StorageError
from schemas.ledger import SourceFile
from workers.manifest.columns import strings
from workers.manifest.files import ManifestFile
from workers.manifest.formats import FORMATS
from workers.manifest.formats.base import Row, RowFormat
from workers.manifest.sources import Source
from workers.storage.filesystem import file_system, open_file
from workers.storage.store import READERS, Store

FILE_ROWS, FILE_BYTES = 1_000_000, 2**27
"""Rows of one Parquet file that another format is converted to, and bytes of its values; some more fit in.

Columns that are not known beforehand need all rows of a file in memory.
"""

GROUP_ROWS, GROUP_BYTES = 16_384, 2**24
"""Rows of a row group, and characters of its values: what is in memory as Python's objects."""

VALUE_BYTES = 50
"""What a value takes in memory beside its characters."""


class _ConvertedFile(BaseModel):
    name: str
    sha256: str
    row_groups: tuple[int, ...]
    columns: tuple[str, ...]


class _Conversion(BaseModel):
    """The record of a source that was converted.

    It has neither the URI to read it nor the origin of its images: there may be credentials in these.
    """

    source: SourceFile
    files: list[_ConvertedFile]


def convert(folder: Store, source: Source) -> list[ManifestFile]:
    """Converts a source to Parquet, and records that it did.

    The record comes last: the files that it names are whole. Of two that convert the same source at once,
    the first one's record counts for both.

    Args:
        folder: where to, in a run directory.
        source: of any format but Parquet.

    Raises:
        ManifestError: it is not what its format says; nothing of it is left.
    """
    name = _name(source)
    made = _Conversion(source=source.file, files=_convert(folder, source, name))
    record = made.model_dump_json().encode()
    if not folder.create(f"{name}.json", record):
        if kept := kept_conversions(folder, [source]):
            folder.delete([file.name for file in made.files])
            return kept[0]
        folder.write(f"{name}.json", record)
    return _manifest_files(folder, source, made.files)


def kept_conversions(folder: Store, sources: list[Source]) -> dict[int, list[ManifestFile]]:
    """Returns what earlier attempts converted the very same sources to, by their numbers.

    Those of which a record or a file is damaged are left out: they are converted again.
    """
    recorded = set(folder.list(""))
    names = {n: f"{_name(source)}.json" for n, source in enumerate(sources) if is_converted(source)}
    numbers = [n for n, name in names.items() if name in recorded]
    records = folder.read_all(names[n] for n in numbers)
    parsed = {n: _parse(sources[n], record or b"") for n, record in zip(numbers, records, strict=True)}
    kept = {n: files for n, files in parsed.items() if files is not None}
    damaged = _damaged(folder, [file for files in kept.values() for file in files])
    return {
        n: _manifest_files(folder, sources[n], files)
        for n, files in kept.items()
        if damaged.isdisjoint(file.name for file in files)
    }


def is_converted(source: Source) -> bool:
    """Whether a source is converted; otherwise it is read as it is."""
    return isinstance(FORMATS[source.format], RowFormat)


def write_parquet(
    rows: Iterable[Row], into: str, origin: str, schema: pa.Schema | None = None
) -> list[ManifestFile]:
    """Writes manifest rows as Parquet files of about `FILE_ROWS` rows, under names that no file has.

    Args:
        rows: their values.
        into: where to write: a path or URL that the rest of each name is appended to.
        origin: what their images are found from; see `ManifestFile`.
        schema: of the files; None: each has the columns of its own rows, all of them strings.
    """
    return _written(_tables(rows, schema), into, origin, schema)


def write_table(table: pa.Table, into: str, origin: str) -> list[ManifestFile]:
    """Writes manifest rows that are a table already; see `write_parquet`."""
    groups = (table.slice(start, GROUP_ROWS) for start in range(0, len(table), GROUP_ROWS))
    return _written(groups, into, origin, table.schema)


def _written(
    tables: Iterator[pa.Table], into: str, origin: str, schema: pa.Schema | None
) -> list[ManifestFile]:
    folder, _, prefix = into.rpartition("/")
    files = _write_files(tables, folder, _new_name(prefix), schema)
    return [ManifestFile(f"{folder}/{f.name}", f.row_groups, f.columns, origin) for f in files]


def _name(source: Source) -> str:
    """What a conversion's record is called: by all that decides its rows."""
    decides = [source.file.model_dump(mode="json"), version("raylabel")]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:32]


def _new_name(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(8)}"


def _convert(folder: Store, source: Source, name: str) -> list[_ConvertedFile]:
    """Writes the files of a source; where that fails, none is left."""
    fmt = FORMATS[source.format]
    assert isinstance(fmt, RowFormat)
    prefix = _new_name(name)
    try:
        schema = fmt.schema_of(source)
        return list(_write_files(_tables(fmt.rows(source), schema), folder.url, prefix, schema))
    except BaseException:
        with contextlib.suppress(StorageError):
            folder.delete([key for key in folder.list("") if key.startswith(prefix)])
        raise


def _write_files(
    tables: Iterator[pa.Table], folder: str, prefix: str, schema: pa.Schema | None
) -> Iterator[_ConvertedFile]:
    for number, first in enumerate(tables):
        of_file = _of_one_file(first, tables)
        columns = schema
        if columns is None:
            held = list(of_file)
            columns = strings(name for table in held for name in table.column_names)
            of_file = (_with_columns(table, columns) for table in held)
        yield _write_file(folder, f"{prefix}-{number:05d}.parquet", of_file, columns)


def _tables(rows: Iterable[Row], schema: pa.Schema | None) -> Iterator[pa.Table]:
    """Rows as tables of a row group each; without a schema they have the columns of their rows."""
    for some in _groups(rows):
        yield pa.Table.from_pylist(some, schema or strings(key for row in some for key in row))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows of one row group each."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(
            VALUE_BYTES + len(value) if isinstance(value, str) else VALUE_BYTES for value in row.values()
        )
        if len(group) == GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _of_one_file(first: pa.Table, further: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """A table and those after it that belong to the same file."""
    rows = size = 0
    for table in chain([first], further):
        yield table
        rows, size = rows + len(table), size + table.nbytes
        if rows >= FILE_ROWS or size >= FILE_BYTES:
            return


def _with_columns(table: pa.Table, columns: pa.Schema) -> pa.Table:
    """A table of strings with all of some columns; those that it lacks are null."""
    missing = pa.nulls(len(table), pa.string())
    arrays = [table[name] if name in table.column_names else missing for name in columns.names]
    return pa.table(arrays, columns)


def _write_file(folder: str, name: str, groups: Iterable[pa.Table], columns: pa.Schema) -> _ConvertedFile:
    """Writes one file, each table a row group."""
    sizes = []
    fs, path = file_system(f"{folder}/{name}")
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(path, "wb") as file:
        sink = _Hashing(file)
        with pq.ParquetWriter(sink, columns, compression="zstd", write_page_checksum=True) as writer:
            for table in groups:
                writer.write_table(table, len(table))
                sizes.append(len(table))
    return _ConvertedFile(
        name=name,
        sha256=sink.sha256.hexdigest(),
        row_groups=tuple(sizes),
        columns=tuple(columns.names),
    )


class _Hashing(io.RawIOBase):
    """Passes bytes on to a file, and hashes them."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self._file.write(data)
        return len(data)


def _parse(source: Source, record: bytes) -> list[_ConvertedFile] | None:
    """The files that a record says a source was converted to; None: it is damaged."""
    try:
        kept = _Conversion.model_validate_json(record)
    except ValidationError:
        return None
    return kept.files if kept.source == source.file else None


def _damaged(folder: Store, files: list[_ConvertedFile]) -> set[str]:
    """The names of the files that are gone, or have not the very bytes that were written."""

    def is_whole(file: _ConvertedFile) -> bool:
        try:
            with open_file(f"{folder.url}/{file.name}") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
        except OSError:
            return False

    with ThreadPoolExecutor(READERS) as pool:
        return {file.name for file, whole in zip(files, pool.map(is_whole, files), strict=True) if not whole}


def _manifest_files(folder: Store, source: Source, files: list[_ConvertedFile]) -> list[ManifestFile]:
    origin = FORMATS[source.format].origin(source)
    return [
        ManifestFile(
            f"{folder.url}/{file.name}",
            file.row_groups,
            file.columns,
            origin,
            source.format,
            source.partitions,
        )
        for file in files
    ]
