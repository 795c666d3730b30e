"""Manifests next to the data: other formats made into Parquet, and the rows of a unit read back."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TextIO, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.exceptions import ManifestError
from schemas.tables import KEYS, carried_names
from workers.storage import clean_uri, file_system, resolve_uri

CHUNK_ROWS = 1_000_000
"""Rows of one Parquet file that another format is made into."""

ROW_GROUP_ROWS = 16_384

Row = dict[str, str | None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One Parquet file of a manifest.

    Attributes:
        uri: where it is.
        row_groups: rows of each of its row groups.
        columns: its column names.
        base: the folder that its relative image paths are meant from.
    """

    uri: str
    row_groups: tuple[int, ...]
    columns: tuple[str, ...]
    base: str

    @property
    def rows(self) -> int:
        """Rows in the file."""
        return sum(self.row_groups)


@dataclass
class Manifest:
    """The rows of a job, in the order of its files: a row's position is its `manifest_index`.

    Attributes:
        files: Parquet files, in order.
        uri_column: the column with each image's path or URL.
        image_id_column: the column with an id of the user's own, or None.
        carried: the other columns, with their types; they go into the labels table.
    """

    files: list[ManifestFile]
    uri_column: str
    image_id_column: str | None
    carried: pa.Schema
    _kept: tuple[tuple[str, int], pa.Table] | None = field(default=None, repr=False)

    @property
    def rows(self) -> int:
        """Rows of the whole manifest."""
        return sum(file.rows for file in self.files)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def read(self, rows: Sequence[int]) -> pa.Table:
        """The rows at some positions, ascending, which should lie near each other.

        Returns:
            manifest_index, image_id, uri (without credentials and query), location (where to read the
            image; null where the manifest's URI is null or empty), and the carried columns under their
            names in the labels table.
        """
        span = range(rows[0], rows[-1] + 1) if len(rows) else range(0)
        pieces = list(self._pieces(span))
        found = pa.concat_tables(pieces) if pieces else self._arranged(None, [], "")
        found = found.add_column(0, KEYS[0], pa.array(span, pa.int64()))
        return found if len(rows) == len(span) else found.take([row - span.start for row in rows])

    def _pieces(self, rows: range) -> Iterator[pa.Table]:
        start = 0
        for file in self.files:
            for group, size in enumerate(file.row_groups):
                first, last = max(rows.start, start), min(rows.stop, start + size)
                if first < last:
                    table = self._row_group(file, group).slice(first - start, last - first)
                    yield self._arranged(table, list(file.columns), file.base)
                start += size

    def _row_group(self, file: ManifestFile, group: int) -> pa.Table:
        """One row group; the last one read is kept, because units of one actor lie near each other."""
        if self._kept is None or self._kept[0] != (file.uri, group):
            fs, path = file_system(file.uri)
            wanted = [c for c in (self.uri_column, self.image_id_column, *self.carried.names) if c]
            with fs.open(path, "rb") as opened:
                table = pq.ParquetFile(opened).read_row_group(
                    group, columns=[c for c in wanted if c in file.columns]
                )
            self._kept = ((file.uri, group), table)
        return self._kept[1]

    def _arranged(self, table: pa.Table | None, columns: list[str], base: str) -> pa.Table:
        """A slice of a file under the names and types that the job works with."""
        rows = 0 if table is None else table.num_rows

        def column(name: str | None, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
            if table is None or name is None or name not in columns:
                return pa.nulls(rows, kind)
            return table[name].cast(kind)

        uris = column(self.uri_column, pa.string()).to_pylist()
        arrays = {
            "image_id": column(self.image_id_column, pa.string()),
            "uri": pa.array([clean_uri(uri or "") for uri in uris], pa.string()),
            "location": pa.array([resolve_uri(uri, base) if uri else None for uri in uris], pa.string()),
        }
        names = carried_names(self.carried)
        arrays |= {names[f.name]: column(f.name, f.type) for f in self.carried}
        return pa.table(arrays)


def to_parquet(uri: str, form: str, into: str, base: str) -> list[ManifestFile]:
    """Makes a CSV, JSON Lines or text manifest into Parquet files, in order, each value as it is written.

    CSV has a header. Text has one URI a line. Empty lines are no rows. JSON Lines values that are not
    strings are kept as their JSON text. Compressed files (.gz, .zst, ...) are read by their ending.

    Args:
        uri: the manifest file.
        form: "csv", "jsonl" or "text".
        into: where to write: a path or URL that file names are appended to.
        base: the folder that its relative image paths are meant from.

    Raises:
        ManifestError: with the line where the file is not what its format says.
    """
    return write_parquet(rows_of(uri, form), into, base)


def write_parquet(rows: Iterable[Row], into: str, base: str) -> list[ManifestFile]:
    """Writes manifest rows as Parquet files of string columns; each file has the columns of its own rows."""
    made = []
    for number, chunk in enumerate(chunks(rows, CHUNK_ROWS)):
        columns = tuple(dict.fromkeys(key for row in chunk for key in row))
        table = pa.table({c: pa.array([row.get(c) for row in chunk], pa.string()) for c in columns})
        target = f"{into}-{number:05d}.parquet"
        fs, path = file_system(target)
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with fs.open(path, "wb") as file:
            pq.write_table(table, file, row_group_size=ROW_GROUP_ROWS, compression="zstd")
        groups = tuple(len(part) for part in chunks(range(len(chunk)), ROW_GROUP_ROWS))
        made.append(ManifestFile(target, groups, columns, base))
    return made


def rows_of(uri: str, form: str) -> Iterator[Row]:
    """The rows of a CSV, JSON Lines or text manifest, in order.

    Raises:
        ManifestError: with the line where the file is not what its format says.
    """
    try:
        with fsspec.open(uri, "rt", compression="infer", encoding="utf-8-sig", newline="") as file:
            yield from _READERS[form](file, clean_uri(uri))
    except UnicodeDecodeError as error:
        raise ManifestError(f"{clean_uri(uri)} is not UTF-8 text: {error}") from None


def _text(file: TextIO, _: str) -> Iterator[Row]:
    for line in file:
        if uri := line.strip():
            yield {"uri": uri}


def _jsonl(file: TextIO, uri: str) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ManifestError(f"{uri}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ManifestError(
                f"{uri}, line {number}: found {line.strip()[:80]!r}, allowed: an object {{…}}"
            )
        yield {key: _as_written(value) for key, value in row.items()}


def _as_written(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _csv(file: TextIO, uri: str) -> Iterator[Row]:
    reader = csv.reader(file, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        if len(set(header)) != len(header):
            raise ManifestError(f"{uri} names a column twice: {', '.join(header)}")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise ManifestError(
                    f"{uri}, line {reader.line_num}: found {len(values)} values, but the header has "
                    f"{len(header)} columns ({', '.join(header)})"
                )
            yield dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ManifestError(f"{uri}, line {reader.line_num} is not CSV: {error}") from None


_READERS: dict[str, Callable[[TextIO, str], Iterator[Row]]] = {"text": _text, "jsonl": _jsonl, "csv": _csv}


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter (itertools.batched comes with Python 3.12)."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
