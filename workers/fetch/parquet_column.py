"""Reads images that are values of a Parquet column, from the beginning of a row group to its end."""

import os
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
from workers.fetch.fetch import failure_of, wrong_size
from workers.fetch.local import open_local
from workers.fetch.ranges import RangeFile
from workers.printable import message_of, short_line
from workers.storage.uris import clean_uri, is_local

BATCH_ROWS = 16
"""Values decoded from a row group at once; they are in memory with those that wait for the decoder."""

BATCHES_KEPT = 2
"""Batches kept in memory, for threads that read rows slightly out of order."""

BUFFER = 8 * 2**20
"""Bytes of a column that are read at once. One page of a row group is in memory, never the whole group."""


class ColumnReader:
    """Reads one column of a Parquet file by row.

    Rows should be read in ascending order. A Parquet file has no index of rows, so a row before the last one,
    or in another row group, is read from the beginning of its row group.

    Args:
        file: path or URL of the file.
        column: its name; of binary values, or of structs with a binary field `bytes`.
        spec: attempts and timeouts of a request.

    Raises:
        ImageError: stage "fetch": the file cannot be read, is not Parquet, or its column holds no images.
    """

    def __init__(self, file: str, column: str, spec: FetchSpec) -> None:
        self._name = clean_uri(file)
        try:
            # pre_buffer would read a whole row group of the column
            self._file = pq.ParquetFile(_open(file, spec), buffer_size=BUFFER, pre_buffer=False)
            kind = self._file.schema_arrow.field(column).type
        except KeyError:
            why = f"{self._name} has no column {column!r}"
            raise ImageError(Stage.FETCH, ErrorCode.NOT_FOUND, why) from None
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(message_of(error)) from None
        if not _holds_bytes(kind):
            raise self._without_images(column, kind)
        self._leaf = f"{column}.bytes" if pa.types.is_struct(kind) else column
        meta = self._file.metadata
        self._starts = [0, *accumulate(meta.row_group(n).num_rows for n in range(meta.num_row_groups))]
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._next = 0  # the first row of the next batch
        self._group = -1
        self._kept: deque[tuple[int, pa.Array]] = deque(maxlen=BATCHES_KEPT)
        self._damage: dict[int, tuple[int, str]] = {}  # by row group: its first unreadable row, and why

    def __call__(self, row: int) -> bytes | None:
        """The value of a row; None if it is null.

        Raises:
            ImageError: there is no such row, it cannot be read, or it is damaged; then all later rows of its
                row group fail too, without being tried.
        """
        if not 0 <= row < self._starts[-1]:
            why = f"{self._name} has {self._starts[-1]:,} rows, so there is no row {row:,}"
            raise ImageError(Stage.FETCH, ErrorCode.NOT_FOUND, why)
        group = bisect_right(self._starts, row) - 1
        damaged_from, damage = self._damage.get(group, (row + 1, ""))
        if row >= damaged_from:
            raise self._unreadable(damage)
        for first, values in self._kept:
            if first <= row < first + len(values):
                return _bytes(values[row - first])
        if group != self._group or row < self._next:
            self._begin(group)
        try:
            return self._forward(row)
        except ImageError:  # a request failed; the batches cannot be resumed after it
            self._group = -1
            raise
        except (pa.ArrowException, OSError) as error:
            self._group = -1
            self._damage[group] = (self._next, message_of(error))
            raise self._unreadable(message_of(error)) from None

    def _begin(self, group: int) -> None:
        """Starts reading a row group from its first row."""
        self._kept.clear()
        self._group, self._next = group, self._starts[group]
        self._batches = self._file.iter_batches(
            BATCH_ROWS, row_groups=[group], columns=[self._leaf], use_threads=False
        )

    def _forward(self, row: int) -> bytes | None:
        """Reads batches up to the one with a row; returns the row's value."""
        while True:
            if (batch := next(self._batches, None)) is None:
                raise pa.ArrowInvalid("a row group has fewer rows than the file says")
            values = batch.column(0)
            self._kept.append((self._next, values))
            self._next += len(values)
            if row < self._next:
                return _bytes(values[row - self._next + len(values)])

    def _without_images(self, column: str, kind: pa.DataType) -> ImageError:
        message = (
            f"{self._name}: the column {column!r} is of the type {short_line(str(kind))}; allowed: "
            "binary, or a struct with a binary field 'bytes'"
        )
        return ImageError(Stage.FETCH, ErrorCode.UNSUPPORTED, message)

    def _unreadable(self, why: str) -> ImageError:
        message = f"{self._name} cannot be read as Parquet: {why}"
        return ImageError(Stage.FETCH, ErrorCode.UNSUPPORTED, message)


def _open(file: str, spec: FetchSpec) -> Any:
    """The file as pyarrow reads it.

    Raises:
        ImageError: stage "fetch": it cannot be opened.
    """
    if not is_local(file):
        return RangeFile(file, spec)
    try:
        open_local(file).close()
        return pa.OSFile(os.fsencode(file))
    except (OSError, ValueError) as error:
        raise failure_of(error, file) from None


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether the values of a type are bytes, or structs with a field `bytes` of them."""
    if pa.types.is_struct(kind):
        field = kind.get_field_index("bytes")
        return field >= 0 and _is_binary(kind.field(field).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _bytes(value: Any) -> bytes | None:
    """The bytes of a binary value, or of the field `bytes` of a struct; None if null."""
    python = value.as_py()
    data: bytes | None = python["bytes"] if isinstance(python, dict) else python
    return data


_readers: dict[tuple[str, str], ColumnReader] = {}
_read_lock = threading.Lock()


def read_value(location: ParquetCell, spec: FetchSpec) -> bytes:
    """Reads the bytes of an image in a Parquet file. The file that was read last stays open in this process.

    Raises:
        ImageError: stage "list" if the row has no image, otherwise "fetch".
    """
    file_and_column = (location.file, location.column)
    with _read_lock:
        # Cleared first, so that two open files are never in memory at once
        reader = _readers.pop(file_and_column, None)
        _readers.clear()
        _readers[file_and_column] = reader = reader or ColumnReader(*file_and_column, spec)
        data = reader(location.row)
    name = f"{clean_uri(location.file)}, column {location.column!r}, row {location.row:,}"
    if data is None:
        raise ImageError(Stage.LIST, ErrorCode.NOT_FOUND, f"{name} has no image")
    if not 0 < len(data) <= spec.max_bytes:
        raise wrong_size(name, len(data), spec, 1)
    return data
