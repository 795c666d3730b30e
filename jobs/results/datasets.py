"""A run's tables as Arrow datasets: for programs that read them with pyarrow, DuckDB, pandas or Polars."""

import re
from dataclasses import replace

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

from jobs.results.files import own_keys, unreadable_as_damaged
from schemas.exceptions import SpecError
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.storage.uris import clean_uri
from workers.tables.parquet import parquet_bytes

MADE_BY = {
    "tags": "`taggers:`, or `score_threshold:` for the classifier",
    "embeddings": "`embedder:`",
    "object_embeddings": "`embedder:` with `on: boxes`",
}
"""What makes a table that not every run has: keys of the job spec."""

_ZONED = re.compile(r"timestamp\[(\w+), tz=(.+)\]")
_DECIMAL = re.compile(r"decimal(128|256)\((\d+), (-?\d+)\)")


def open_table(output: str, table: str) -> ds.Dataset:
    """A table of a run as an Arrow dataset: of the files that are published now, in manifest order.

    Of each file little is read before the dataset is: only the first one's schema.

    Args:
        output: the run directory; a path or any fsspec URL.
        table: the name of its folder, such as "labels".

    Returns:
        A dataset with the table's schema, also where no file is published yet. Columns of the manifest that
        are nested are then of the type null.

    Raises:
        SpecError: the job was not asked for such a table.
        StorageError: there is no run, or a file cannot be listed.
        DamagedFileError: the first file is no such table.
    """
    directory = find_run(output)
    _assert_asked_for(directory, table)
    store, keys = directory.store, own_keys(directory.store, table)
    form = ds.ParquetFileFormat()
    files = LocalFileSystem() if store.is_local else PyFileSystem(FSSpecHandler(store.fs))
    fragments = [form.make_fragment(store.path(key), files) for key in keys]
    if not fragments:
        return ds.FileSystemDataset([], _schema(directory, table), form, files)
    with unreadable_as_damaged(store, keys[0]):
        return ds.FileSystemDataset(fragments, fragments[0].physical_schema, form, files)


def _assert_asked_for(run: RunDirectory, table: str) -> None:
    """Refuses a table that the run does not have and will not have."""
    if table not in run.tables.names:
        keys = MADE_BY.get(table)
        advice = f". Write {keys} in the job spec and label into another output" if keys else ""
        found = ", ".join(run.tables.names)
        raise SpecError(f"the run at {clean_uri(run.store.url)} has no table {table}; found {found}{advice}")


def empty_table(run: RunDirectory, table: str) -> pa.Table:
    """A table without rows, with the columns that its files will have, text as plain strings."""
    schema = pa.schema(
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in _schema(run, table)
    )
    return schema.empty_table()


def _schema(run: RunDirectory, table: str) -> pa.Schema:
    """The schema of a table as its files will have it."""
    columns = run.record.manifest_columns.items()
    tables = replace(run.tables, carried=pa.schema([(name, _type_of(text)) for name, text in columns]))
    # by way of Parquet, which names the inside of lists and maps in its own way
    empty = parquet_bytes(tables.schema(table).empty_table(), table)
    return pq.read_schema(pa.BufferReader(empty))


def _type_of(text: str) -> pa.DataType:
    """The Arrow type that has a text; null where that is a nested one."""
    if zoned := _ZONED.fullmatch(text):
        return pa.timestamp(zoned[1], zoned[2])
    if decimal := _DECIMAL.fullmatch(text):
        make = pa.decimal128 if decimal[1] == "128" else pa.decimal256
        return make(int(decimal[2]), int(decimal[3]))
    try:
        return pa.type_for_alias(text)
    except ValueError:
        return pa.null()
