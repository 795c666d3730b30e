"""Writes tables as Parquet files: the same bytes for the same rows."""

import functools
import hashlib

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.ledger import StagedFile
from schemas.tables import TABLES
from workers.storage.store import Store


def write_file(store: Store, stem: str, rows: pa.Table, table: str, *, staged: bool = False) -> StagedFile:
    """Writes rows of a table as one Parquet file.

    Args:
        store: the store to write to.
        stem: the key without its ending.
        rows: the rows, with the table's schema.
        table: its name.
        staged: put the table and the content's hash into the name, so that no staged file replaces another.

    Returns:
        Its key, number of rows, bytes and sha256.
    """
    data = parquet_bytes(rows, table)
    digest = hashlib.sha256(data).hexdigest()
    key = f"{stem}.{table}-{digest[:12]}.parquet" if staged else f"{stem}.parquet"
    store.write(key, data)
    return StagedFile(key=key, rows=rows.num_rows, size=len(data), sha256=digest)


def count_codes(errors: pa.Table) -> dict[str, int]:
    """The number of failed images by error code, sorted by code."""
    counts = errors["code"].value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda e: str(e["values"]))}


def parquet_bytes(table: pa.Table, name: str) -> bytes:
    """A table as a Parquet file: the same bytes for the same rows.

    Args:
        table: the rows.
        name: its name; decides which columns have a dictionary, and the size of row groups.
    """
    sink, kind = pa.BufferOutputStream(), TABLES[name]
    repeated = [column for column in _leaves(table.schema) if column not in kind.hardly_repeated]
    # only encodings of Parquet's first version: Spark 3 and the services built on it read no others
    pq.write_table(
        table,
        sink,
        row_group_size=kind.row_group_rows,
        compression="zstd",
        use_dictionary=repeated,
        store_schema=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


@functools.cache
def _leaves(schema: pa.Schema) -> list[str]:
    """The dotted paths of a schema's leaf columns, as Parquet names them."""
    empty = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), empty)
    parquet = pq.ParquetFile(pa.BufferReader(empty.getvalue())).schema
    return [parquet.column(i).path for i in range(len(parquet))]
