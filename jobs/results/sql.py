"""Runs as SQL: each table of a run is a view in a DuckDB of this process, wherever the run is.

DuckDB would load extensions from the internet for files in buckets; here it reads them through the project's
own requests, with their retries and the storage options of this process.
"""

import glob
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from fsspec import AbstractFileSystem

from jobs.results.datasets import MADE_BY, empty_table
from jobs.results.duck import ABOUT_QUERIES, MEMORY_MB, Duck, first_line, in_quotes, quoted
from jobs.results.files import fragment, own_sizes, unreadable_as_damaged
from schemas.exceptions import DamagedFileError, ImageError, RaylabelError, SpecError, StorageError
from schemas.ledger import Shard
from schemas.spec import FetchSpec
from schemas.tables import ADDED
from schemas.tasks import OBJECT_EMBEDDINGS
from workers.fetch.ranges import RangeFile
from workers.ledger.damage import MISSING, TABLE, damaged
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.printable import short_line

OBJECTS = """
    *,
    x1 / width::DOUBLE AS x1_norm, y1 / height::DOUBLE AS y1_norm,
    x2 / width::DOUBLE AS x2_norm, y2 / height::DOUBLE AS y2_norm,
    (x1 + x2) / (2 * width::DOUBLE) AS cx_norm, (y1 + y2) / (2 * height::DOUBLE) AS cy_norm,
    (x2 - x1) * (y2 - y1) / (width::DOUBLE * height) AS area
"""
"""The columns of `objects`: those of boxes, corners and centre from 0 to 1, and the share of the image."""

CLASS_COUNT = """
    CREATE MACRO class_count(counts, name) AS CASE WHEN counts IS NOT NULL THEN coalesce(counts[name], 0) END
"""
"""How often a class is in an image by its `class_counts`: 0 where it is not; null where no detector ran."""

_PROTOCOL = "raylabel"

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
"""The parts of a parsed query that only read."""

_RESERVED = ("main", "temp", "system", "memory", "information_schema", "pg_catalog")
"""What DuckDB calls schemas and databases of its own."""


class Database(Duck):
    """Runs as views for SQL; for a `with` block.

    The views are the tables that the run has, and `objects`, over the files that are published when it is
    opened: rows ascend by `manifest_index`. An embedding is a DuckDB array, FLOAT[width]. There is a function
    as well, see `CLASS_COUNT`.

    Args:
        runs: run directories by name, a path or any fsspec URL each: a run called "a" has its labels in
            `a.labels`, one called "" in `labels`.
        memory_mb: see `MEMORY_MB`.

    Attributes:
        outputs: the run directories by name, as they were given.
        runs: the runs by name.

    Raises:
        StorageError: there is no such run, or its files cannot be listed.
        DamagedFileError: run.json, or the first file of a table, cannot be read.
        SpecError: a name is not one that SQL can have.
    """

    def __init__(self, runs: Mapping[str, str], memory_mb: int = MEMORY_MB) -> None:
        self.outputs = dict(runs)
        self.runs: dict[str, RunDirectory] = {name: find_run(output) for name, output in runs.items()}
        self._files = _RunFiles()
        super().__init__(memory_mb=memory_mb)
        try:
            self._connection.register_filesystem(self._files)
            self.execute(CLASS_COUNT)
            for name, run in self.runs.items():
                self._add_views(name, run)
        except BaseException:
            self.close()
            raise

    def _text_of(self, query: str) -> str:
        """A query as a part of a statement, without the semicolon that may end it."""
        text: bytes = self._statement(query).query.encode()
        starts = (start for start, _ in duckdb.tokenize(text.decode()) if text[start : start + 1] == b";")
        return text[: next(starts, len(text))].decode()

    def _statement(self, query: str) -> duckdb.Statement:
        """The statement that a query is, which only reads."""
        try:
            query.encode()
        except UnicodeEncodeError as error:
            raise SpecError(f"this is no text in Unicode: {error}") from None
        with self._clear_errors():
            statements = self._connection.extract_statements(query)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            what = f"{len(statements)} statements" if len(statements) != 1 else "a statement without rows"
            raise SpecError(
                f"found {what}; a query only reads. Allowed: one SELECT, as SELECT count(*) FROM labels"
            )
        self._assert_reads(query)
        return statements[0]

    def _assert_reads(self, query: str) -> None:
        """Refuses a SELECT with a statement in it that writes, such as `WITH x AS (COPY …) FROM x`."""
        with self._clear_errors():
            ((tree,),) = self._connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
        nodes = set(re.findall(r'"type":"(\w+_NODE)"', tree))
        if not nodes or nodes - _READING:
            what = ", ".join(sorted(node.partition("_")[0] for node in nodes - _READING)) or "a statement"
            raise SpecError(f"found {what} in the query; a query only reads")

    def _add_views(self, name: str, run: RunDirectory) -> None:
        """Makes the views of a run."""
        schema = f"{quoted(name)}." if name else ""
        if name:
            self._make_schema(name)
        published = {Path(key).stem for key in run.list(Shard)}  # their files are in place before they are
        for table in run.tables.names:
            sizes = own_sizes(run.store, table)
            if missing := published - {Path(key).stem for key in sizes}:
                raise damaged(TABLE, run.store, f"{table}/{min(missing)}.parquet", MISSING)
            if not sizes:
                self._connection.register("nothing", empty_table(run, table))
                self.execute(f"CREATE TABLE {schema}{table} AS SELECT {_columns(run, table)} FROM nothing")
                self._connection.unregister("nothing")
                continue
            files = ", ".join(in_quotes(self._files.add(run, key, size)) for key, size in sizes.items())
            # a folder called year=2024 is no column
            source = f"read_parquet([{files}], hive_partitioning = false)"
            view = f"VIEW {schema}{table} AS SELECT {_columns(run, table)}"
            self.execute(f"CREATE {view} FROM {source}")
            if lacking := self._lacking(f"{schema}{table}", table):
                self.execute(f"CREATE OR REPLACE {view}, {lacking} FROM {source}")
        self.execute(f"CREATE VIEW {schema}objects AS SELECT {OBJECTS} FROM {schema}boxes")

    def _lacking(self, view: str, table: str) -> str:
        """The columns that the files of a table lack, as they are of an earlier version: all null."""
        added = {name for tables in ADDED.values() for name in tables.get(table, ())}
        there = {row["column_name"] for row in self.rows(f"DESCRIBE {view}")} if added else set()
        return ", ".join(f"NULL::INTEGER AS {name}" for name in sorted(added - there))

    def _make_schema(self, name: str) -> None:
        try:
            if name.casefold() in _RESERVED:
                raise SpecError(f"a run cannot be called {name!r}, as DuckDB has that; choose another name")
            self._connection.execute(f"CREATE SCHEMA {quoted(name)}")
        except duckdb.Error as error:
            raise SpecError(
                f"a run cannot be called {name!r}: {first_line(error)}; choose another name"
            ) from None

    def _error(self, error: duckdb.Error) -> RaylabelError:
        if failure := self._files.take_failure():
            return StorageError(f"a table could not be read: {failure}")
        if not isinstance(error, ABOUT_QUERIES) and (damage := self._damage(error)):
            return damage
        if isinstance(error, duckdb.CatalogException) and "does not exist" in str(error):
            return SpecError(f"{first_line(error)}{self._advice(first_line(error))}")
        return super()._error(error)

    def _damage(self, error: duckdb.Error) -> DamagedFileError | None:
        """The damage to a file that an error is about."""
        for name, (run, key) in self._files.known.items():
            if name in str(error):
                wrong = short_line(first_line(error))
                return damaged(TABLE, run.store, key, f"it is no table that can be read ({wrong})")
        if type(error) is not duckdb.Error:
            return None
        # what is inside a file is at fault, but which file is not said
        for run, key in self._files.known.values():
            try:
                with unreadable_as_damaged(run.store, key):
                    for _ in fragment(run.store, key).to_batches():
                        pass
            except DamagedFileError as damage:
                return damage
        return None

    def _advice(self, error: str) -> str:
        """What there is and how there is more, where a query names something that there is not."""
        views = [
            f"{name}.{view}" if name else view
            for name, run in self.runs.items()
            for view in (*run.tables.names, "objects")
        ]
        made_by = [
            f"; {name} is made by {keys} in the job spec" for name, keys in MADE_BY.items() if name in error
        ]
        return f" The views are {', '.join(views)}{''.join(made_by)}"


class _RunFiles(AbstractFileSystem):  # type: ignore[misc]
    """The files of runs as DuckDB asks for them; those of a local disk it reads itself.

    Attributes:
        known: run and key of each file, by the name that DuckDB knows it by.
    """

    protocol = _PROTOCOL
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, tuple[RunDirectory, str]] = {}
        self._sizes: dict[str, int] = {}
        self._failure: ImageError | None = None

    def add(self, run: RunDirectory, key: str, size: int) -> str:
        """The name of a file, whatever its own name means to a shell."""
        if run.store.is_local:
            self.known[run.store.path(key)] = run, key
            return glob.escape(run.store.path(key))
        path = f"{len(self.known)}.parquet"
        self.known[f"{_PROTOCOL}://{path}"] = run, key
        self._sizes[path] = size
        return f"{_PROTOCOL}://{path}"

    def take_failure(self) -> str | None:
        """Why a file could not be read, once: DuckDB makes a text of the exception, traceback included."""
        failure, self._failure = self._failure, None
        return failure.message if failure else None

    def glob(self, path: str, **_: Any) -> list[str]:
        """The file itself: a name is no pattern."""
        return [path]

    def exists(self, path: str, **_: Any) -> bool:
        """Whether it is a file of a run."""
        return self._strip_protocol(path) in self._sizes

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Its name and its bytes."""
        path = self._strip_protocol(path)
        if path not in self._sizes:
            raise FileNotFoundError(path)
        return {"name": path, "size": self._sizes[path], "type": "file"}

    def modified(self, path: str) -> datetime:  # noqa: ARG002
        """The same for each: a file of a table is never changed in place."""
        return datetime.fromtimestamp(0, UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:  # noqa: ARG002
        if path not in self._sizes:
            raise FileNotFoundError(path)
        run, key = self.known[f"{_PROTOCOL}://{path}"]
        return _Reader(f"{run.store.url}/{key}", self._sizes[path], self)


class _Reader(RangeFile):
    """A file in a store, whose failures are kept: see `_RunFiles.take_failure`."""

    def __init__(self, url: str, size: int, files: _RunFiles) -> None:
        super().__init__(url, FetchSpec(), size)
        self._files = files

    def read(self, size: int | None = -1) -> bytes:
        """See `RangeFile.read`."""
        try:
            return super().read(size)
        except ImageError as error:
            self._files._failure = error
            raise


def _columns(run: RunDirectory, table: str) -> str:
    """What a view has of a table: a vector as an array, whose functions need its width."""
    if table not in ("embeddings", OBJECT_EMBEDDINGS):
        return "*"
    return f"* REPLACE (embedding::FLOAT[{run.tables.embedding_width}] AS embedding)"
