"""Images that are values of a Parquet column, read from the beginning of a row group to its end."""

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.locations import ParquetCell
from schemas.spec import FetchSpec
from workers.fetch.fetch import code_of, wrong_size
from workers.fetch.ranges import RangeFile
from workers.storage.uris import clean_uri

BATCH_ROWS = 16
"""Values taken out of a row group at once: they are in memory beside those that wait to be decoded."""

BATCHES_HELD = 2
"""For readers that ask for rows a little out of their order."""

BUFFER = 8 * 2**20
"""Bytes of a column that are read at once. A row group is never in memory as a whole; a page of it is."""


class ColumnReader:
    """One column of a Parquet file, by rows.

    Rows should be asked for in ascending order. One that lies before the last, or in another row group, is
    read from the beginning of its row group on: nothing in a Parquet file leads to a row.

    Raises:
        ImageError: stage "fetch": the file cannot be read, or is none.
    """

    def __init__(self, file: str, column: str, spec: FetchSpec) -> None:
        self._what = clean_uri(file)
        try:
            # without pre_buffer, which would read all of a row group's column
            self._file = pq.ParquetFile(_opened(file, spec), buffer_size=BUFFER, pre_buffer=False)
            kind = self._file.schema_arrow.field(column).type
        except KeyError:
            why = f"{self._what} has no column {column!r}"
            raise ImageError(Stage.FETCH, ErrorCode.NOT_FOUND, why) from None
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise ImageError(Stage.FETCH, code_of(error), f"{self._what}: {error}") from None
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(_said(error)) from None
        self._leaf = f"{column}.bytes" if pa.types.is_struct(kind) else column
        meta = self._file.metadata
        self._starts = [0, *accumulate(meta.row_group(n).num_rows for n in range(meta.num_row_groups))]
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._next = 0  # the first row of the next batch
        self._group = -1
        self._held: deque[tuple[int, pa.Array]] = deque(maxlen=BATCHES_HELD)
        self._damage: dict[int, tuple[int, str]] = {}  # by row group: from which row on, and what it is

    def __call__(self, row: int) -> bytes | None:
        """The value of a row; None where it is null.

        Raises:
            ImageError: there is no such row, it cannot be read, or is damaged; rows that follow in its row
                group are then not tried.
        """
        if not 0 <= row < self._starts[-1]:
            why = f"{self._what} has {self._starts[-1]:,} rows, and none at {row:,}"
            raise ImageError(Stage.FETCH, ErrorCode.NOT_FOUND, why)
        group = bisect_right(self._starts, row) - 1
        damaged_from, damage = self._damage.get(group, (row + 1, ""))
        if row >= damaged_from:
            raise self._unreadable(damage)
        for first, values in self._held:
            if first <= row < first + len(values):
                return _bytes(values[row - first])
        if group != self._group or row < self._next:
            self._begin(group)
        try:
            return self._forward(row)
        except ImageError:  # of a request; what was begun cannot be gone on with
            self._group = -1
            raise
        except (pa.ArrowException, OSError) as error:
            self._group = -1
            self._damage[group] = (self._next, _said(error))
            raise self._unreadable(_said(error)) from None

    def _begin(self, group: int) -> None:
        self._held.clear()
        self._group, self._next = group, self._starts[group]
        self._batches = self._file.iter_batches(
            BATCH_ROWS, row_groups=[group], columns=[self._leaf], use_threads=False
        )

    def _forward(self, row: int) -> bytes | None:
        """Reads on until a row has come."""
        while True:
            values = next(self._batches).column(0)
            self._held.append((self._next, values))
            self._next += len(values)
            if row < self._next:
                return _bytes(values[row - self._next + len(values)])

    def _unreadable(self, why: str) -> ImageError:
        message = f"{self._what} cannot be read as Parquet: {why}"
        return ImageError(Stage.FETCH, ErrorCode.UNSUPPORTED, message)


def _opened(file: str, spec: FetchSpec) -> Any:
    return RangeFile(file, spec) if "://" in file else pa.OSFile(file)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())


def _bytes(value: Any) -> bytes | None:
    """Of a binary value, or of the field `bytes` of a struct."""
    found = value.as_py()
    data: bytes | None = found["bytes"] if isinstance(found, dict) else found
    return data


_readers: dict[tuple[str, str], ColumnReader] = {}
_reading = threading.Lock()


def read_value(location: ParquetCell, spec: FetchSpec) -> bytes:
    """The bytes of an image in a Parquet file. The file that was read last stays open in this process.

    Raises:
        ImageError: stage "list" where there is no image in the row, otherwise "fetch".
    """
    place = (location.file, location.column)
    with _reading:
        reader = _readers.pop(place, None)
        _readers.clear()
        _readers[place] = reader = reader or ColumnReader(*place, spec)
        data = reader(location.row)
    what = f"{clean_uri(location.file)}, column {location.column!r}, row {location.row:,}"
    if data is None:
        raise ImageError(Stage.LIST, ErrorCode.NOT_FOUND, f"{what} has no image")
    if not 0 < len(data) <= spec.max_bytes:
        raise wrong_size(what, len(data), spec, 1)
    return data
