"""Rows of a Parquet file by position, in the memory of a few batches, whatever its row groups."""

import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.spec import FetchSpec
from workers.fetch.ranges import open_ahead, open_exactly
from workers.manifest.read_errors import read_errors
from workers.storage.uris import is_local

BATCH_ROWS = 1024
"""Rows that are decoded at once."""

KEPT_ROWS = 8192
"""Rows that stay in memory: those of a unit, of the one that is read ahead, and what lies between them."""

BUFFER = 2**20
"""Bytes of a column that are read at once. Of a column's dictionary and pages, one page is in memory."""


def open_parquet(
    uri: str, *, exactly: bool = False, checked: bool = False, int96_unit: str = "us"
) -> pq.ParquetFile:
    """Opens a Parquet file, to be read in small steps.

    Args:
        uri: of the file.
        exactly: whether to skip the bytes between the columns wanted, which may be images; ranges of a store
            are merged otherwise.
        checked: whether to compare the checksums of its pages; it was written here.
        int96_unit: of timestamps that are stored as INT96: nanoseconds of 64 bits end in the year 2262.

    Raises:
        ManifestError: it cannot be read, or is no Parquet file.
    """
    with read_errors(uri, _as_parquet(checked)):
        file: Any = pa.OSFile(os.fsencode(uri)) if is_local(uri) else _open_remote(uri, exactly=exactly)
        return pq.ParquetFile(
            file,
            buffer_size=BUFFER,
            pre_buffer=False,
            coerce_int96_timestamp_unit=int96_unit,
            page_checksum_verification=checked,
        )


def _as_parquet(checked: bool) -> str:
    remade = " (it was converted here, and the same command converts it again)"
    return f" as Parquet{remade if checked else ''}"


def _open_remote(uri: str, *, exactly: bool) -> Any:
    return (open_exactly if exactly else open_ahead)(uri, FetchSpec())


class RowReader:
    """Reads some columns of a Parquet file by row.

    Rows should be read in ascending order: a row before those that are kept, or in another row group, is read
    from the beginning of its row group, as nothing in a Parquet file leads to a single row.

    Args:
        uri: of the file.
        columns: their names, those within a struct by their paths.
        exactly: see `open_parquet`.
        checked: see `open_parquet`.

    Attributes:
        uri: of the file.
    """

    def __init__(self, uri: str, columns: list[str], *, exactly: bool, checked: bool = False) -> None:
        self.uri = uri
        self._columns = columns
        self._how = _as_parquet(checked)
        self._file = open_parquet(uri, exactly=exactly, checked=checked)
        self._kept: list[tuple[int, int, pa.Table]] = []  # row group, first row in it, rows
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._group, self._next = -1, 0  # where the next batch begins

    def read(self, group: int, start: int, stop: int) -> pa.Table:
        """Returns rows of a row group, by their positions in it.

        Raises:
            ManifestError: the file cannot be read.
        """
        pieces = []
        row = start
        while row < stop:
            first, table = self._batch(group, row, stop - start)
            pieces.append(table.slice(row - first, stop - row))
            row = first + len(table)
        return pa.concat_tables(pieces)

    def _batch(self, group: int, row: int, wanted: int) -> tuple[int, pa.Table]:
        """The batch with a row, and its first row."""
        for kept, first, table in self._kept:
            if kept == group and first <= row < first + len(table):
                return first, table
        with read_errors(self.uri, self._how):
            try:
                return self._forward(group, row, wanted)
            except Exception:
                self._group = -1  # the batches cannot be resumed
                raise

    def _forward(self, group: int, row: int, wanted: int) -> tuple[int, pa.Table]:
        """Reads batches up to the one with a row, and keeps that."""
        if group != self._group or row < self._next:
            self._group, self._next = group, 0
            self._batches = self._file.iter_batches(
                BATCH_ROWS, row_groups=[group], columns=self._columns, use_threads=False
            )
        while True:
            batch = next(self._batches, None)
            if batch is None:
                raise ValueError(f"row group {group} ends before its row {row:,}")
            first, self._next = self._next, self._next + len(batch)
            if row < self._next:
                self._keep(group, first, pa.table(batch), wanted)
                return first, self._kept[-1][2]

    def _keep(self, group: int, first: int, table: pa.Table, wanted: int) -> None:
        self._kept.append((group, first, table))
        while len(self._kept) > 1 and sum(len(table) for *_, table in self._kept) > max(
            KEPT_ROWS, 2 * wanted
        ):
            del self._kept[0]
