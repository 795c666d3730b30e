"""The Parquet files of a run's tables: their keys, their rows in batches, and what is wrong with one."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from schemas.ledger import shard_number, table_key
from schemas.spec import FetchSpec
from schemas.tables import TABLES
from workers.fetch.ranges import RangeFile
from workers.ledger.damage import TABLE, damaged
from workers.printable import short_line
from workers.storage.store import Store
from workers.storage.uris import is_local


def scan(output: str, table: str, columns: list[str], batch_rows: int = 65_536) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a run's table in batches, in file order, which is manifest order.

    Args:
        output: the run directory; a path or any fsspec URL.
        table: its name; an absent or empty folder yields no batches.
        columns: to read.
        batch_rows: maximum rows in a batch.

    Raises:
        DamagedFileError: a file is no such table.
    """
    store, schema = Store(output), TABLES[table].schema
    # One file at a time: a scan of the whole dataset reads ahead of a slow consumer without limit
    # (pyarrow 26, 30 million rows: 527 MB instead of 9 MB).
    for key in own_keys(store, table):
        with unreadable_as_damaged(store, key):
            yield from fragment(store, key).to_batches(schema=schema, columns=columns, batch_size=batch_rows)


def own_keys(store: Store, table: str) -> list[str]:
    """The keys of a table's published files, in manifest order.

    A file of somebody else's beside them would not have the columns, or would be counted.
    """
    return list(own_sizes(store, table))


def own_sizes(store: Store, table: str) -> dict[str, int]:
    """The keys of a table's published files, in manifest order, and the bytes of each; see `own_keys`."""
    sizes = store.sizes(table)
    return {key: sizes[key] for key in sorted(sizes) if key == _own_key(table, key)}


@contextmanager
def unreadable_as_damaged(store: Store, key: str) -> Iterator[None]:
    """Makes a DamagedFileError of what reading a table's file raises."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        wrong = short_line(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise damaged(TABLE, store, key, f"it is no table that can be read ({wrong})") from None


def fragment(store: Store, key: str) -> ds.ParquetFileFragment:
    """A Parquet file to scan, local or read by ranges."""
    if is_local(store.url):
        return ds.ParquetFileFormat().make_fragment(store.path(key), LocalFileSystem())
    return ds.ParquetFileFormat().make_fragment(RangeFile(f"{store.url}/{key}", FetchSpec()))


def _own_key(table: str, key: str) -> str | None:
    """The key of a shard's table that has the number in a key."""
    shard = shard_number(key.rpartition("/")[2].removesuffix(".parquet"))
    return None if shard is None else table_key(table, shard)
