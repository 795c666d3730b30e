"""Runs as SQL: each table of a run is a view in a DuckDB of this process, wherever the run is.

DuckDB would load extensions from the internet for files in buckets; here it reads them through the project's
own requests, with their retries and the storage options of this process.
"""

import glob
import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa
from fsspec import AbstractFileSystem

from jobs.results.datasets import MADE_BY, empty_table
from jobs.results.files import fragment, own_sizes, unreadable_as_damaged
from jobs.results.plain import plain_of
from schemas.exceptions import DamagedFileError, ImageError, RaylabelError, SpecError, StorageError
from schemas.ledger import Shard
from schemas.spec import FetchSpec
from workers.fetch.ranges import RangeFile
from workers.ledger.damage import MISSING, TABLE, damaged
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.printable import short_line
from workers.process.leftovers import temporary_folder

MEMORY_MB = 512
"""Memory that DuckDB takes for what it computes, at most; what does not fit goes to a temporary folder."""

ROWS_AT_ONCE = 4096
"""Rows that are Python objects at once."""

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

_CUT = re.compile(r"\b(?:TIMESTAMP_NS|TIME_NS|INTERVAL)\b")
"""The types of DuckDB whose values Python has only a part of."""

_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:  .*\n)+")

_NO_ADVICE = re.compile(r"\n+Please try installing and loading the \w+ extension(?:.*\n?)*?(?=\n*LINE |\Z)")
_NO_EXTENSIONS = ": no extension is downloaded. A query reads the run's tables, and files of this machine"

_RESERVED = ("main", "temp", "system", "memory", "information_schema", "pg_catalog")
"""What DuckDB calls schemas and databases of its own."""

_USERS = (
    *(duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException),
    *(duckdb.OutOfRangeException, duckdb.NotImplementedException, duckdb.SyntaxException),
)
"""What is wrong with a query, not with a file."""


class Database:
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
        self._ending = ExitStack()
        folder = self._ending.enter_context(temporary_folder("raylabel-sql-"))
        self._connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "memory_limit": f"{memory_mb}MiB",
                "temp_directory": str(folder),
            }
        )
        self._ending.callback(self._connection.close)
        try:
            # a name in a query is none of a variable in Python
            self._connection.execute("SET GLOBAL python_enable_replacements = false")
            self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
            self._connection.register_filesystem(self._files)
            self._execute(CLASS_COUNT)
            for name, run in self.runs.items():
                self._add_views(name, run)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Database":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is computed, and deletes the temporary folder."""
        self._ending.close()

    def rows(
        self, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Yields the rows of a query's result as they are computed, values by the names of their columns.

        Args:
            query: one SELECT, or what else has a result: FROM, WITH, DESCRIBE, SUMMARIZE.
            parameters: of its placeholders, `?` or `$name`.

        Raises:
            SpecError: the query is none that can be answered.
            DamagedFileError: a file of a run is damaged.
            StorageError: a file cannot be read.
        """
        result = self.result(query, parameters)
        names = result.names
        for values in result:
            yield dict(zip(names, values, strict=True))

    def row(self, query: str, parameters: Sequence[Any] | None = None) -> dict[str, Any]:
        """The only row of a query's result; raises as `rows` does."""
        (row,) = self.rows(query, parameters)
        return row

    def table(self, query: str) -> pa.Table:
        """The result of a query as a whole, as an Arrow table; raises as `rows` does."""
        statement = self._select(query)
        with self._clear_errors():
            table = self._connection.sql(statement).to_arrow_table()
        return table.rename_columns(_once_each(table.column_names))

    def result(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> "Result":
        """The result of a query, which is computed as it is read; raises as `rows` does."""
        statement = self._select(query)
        cursor = self._connection.cursor()
        with self._clear_errors():
            cursor.execute(statement, parameters)
        return Result(cursor, self._clear_errors)

    def keep(self, name: str, query: str) -> None:
        """Keeps the result of a query as a table, in place of one of that name; raises as `rows` does."""
        text = self._text_of(query)
        self._execute(f"CREATE OR REPLACE TABLE {_quoted(name)} AS {text}")

    def readable(self, query: str) -> str:
        """The same query, with texts for what Python would cut: nanoseconds, and intervals with months."""
        text = self._text_of(query)
        cut = {name: type_ for name, type_ in self._types(text).items() if _CUT.search(type_)}
        texts = [
            f"{_quoted(name)}::{_CUT.sub('VARCHAR', type_)} AS {_quoted(name)}" for name, type_ in cut.items()
        ]
        return f"SELECT * REPLACE ({', '.join(texts)}) FROM ({text}\n)" if texts else query

    def save(self, query: str, file: Path) -> None:
        """Writes the result of a query as a Parquet file; raises as `rows` does.

        Args:
            query: see `rows`.
            file: to write; nothing may be there.
        """
        text = self._text_of(query)  # a comment may end it
        # Parquet has no such integers: DuckDB would write the nearest float
        huge = [_quoted(name) for name, type_ in self._types(text).items() if type_ == "HUGEINT"]
        exact = [f"{name}::DECIMAL(38, 0) AS {name}" for name in huge]
        rows = f"SELECT * REPLACE ({', '.join(exact)}) FROM ({text}\n)" if exact else text
        self._execute(f"COPY ({rows}\n) TO {_text(str(file))} (FORMAT parquet, COMPRESSION zstd)")

    def _types(self, text: str) -> dict[str, str]:
        """The types of the columns of a query by their names, as those of a source of rows."""
        with self._clear_errors():
            columns = self._connection.execute(f"DESCRIBE FROM ({text}\n)").fetchall()
        return {name: type_ for name, type_, *_ in columns}

    def _text_of(self, query: str) -> str:
        """A query as a part of a statement, without the semicolon that may end it."""
        text: bytes = self._select(query).query.encode()
        starts = (start for start, _ in duckdb.tokenize(text.decode()) if text[start : start + 1] == b";")
        return text[: next(starts, len(text))].decode()

    def _select(self, query: str) -> duckdb.Statement:
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
        schema = f"{_quoted(name)}." if name else ""
        if name:
            self._make_schema(name)
        published = {Path(key).stem for key in run.list(Shard)}  # their files are in place before they are
        for table in run.tables.names:
            sizes = own_sizes(run.store, table)
            if missing := published - {Path(key).stem for key in sizes}:
                raise damaged(TABLE, run.store, f"{table}/{min(missing)}.parquet", MISSING)
            if not sizes:
                self._connection.register("nothing", empty_table(run, table))
                self._execute(f"CREATE TABLE {schema}{table} AS SELECT {_columns(run, table)} FROM nothing")
                self._connection.unregister("nothing")
                continue
            files = ", ".join(_text(self._files.add(run, key, size)) for key, size in sizes.items())
            # a folder called year=2024 is no column
            source = f"read_parquet([{files}], hive_partitioning = false)"
            self._execute(f"CREATE VIEW {schema}{table} AS SELECT {_columns(run, table)} FROM {source}")
        self._execute(f"CREATE VIEW {schema}objects AS SELECT {OBJECTS} FROM {schema}boxes")

    def _make_schema(self, name: str) -> None:
        try:
            if name.casefold() in _RESERVED:
                raise SpecError(f"a run cannot be called {name!r}, as DuckDB has that; choose another name")
            self._connection.execute(f"CREATE SCHEMA {_quoted(name)}")
        except duckdb.Error as error:
            raise SpecError(
                f"a run cannot be called {name!r}: {_first_line(error)}; choose another name"
            ) from None

    def _execute(self, query: str) -> None:
        with self._clear_errors():
            self._connection.execute(query)

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Makes an error of raylabel's of what DuckDB raises."""
        try:
            yield
        except duckdb.Error as error:
            raise self._error(error) from None

    def _error(self, error: duckdb.Error) -> RaylabelError:
        if failure := self._files.take_failure():
            return StorageError(f"a table could not be read: {failure}")
        if isinstance(error, duckdb.InterruptException):
            return SpecError("the query was interrupted")
        if isinstance(error, duckdb.OutOfMemoryException):
            return SpecError(
                f"the query needs more memory or disk than there is ({_first_line(error)}). Ask for less: "
                "fewer columns, a LIMIT, or one class at a time"
            )
        if not isinstance(error, _USERS) and (damage := self._damage(error)):
            return damage
        if isinstance(error, duckdb.CatalogException) and "does not exist" in str(error):
            return SpecError(f"{_first_line(error)}{self._advice(_first_line(error))}")
        # of a name that is no file of a run DuckDB tells with Python's traceback
        return SpecError(_NO_ADVICE.sub(_NO_EXTENSIONS, _TRACEBACK.sub("", _message(error))))

    def _damage(self, error: duckdb.Error) -> DamagedFileError | None:
        """The damage to a file that an error is about."""
        for name, (run, key) in self._files.known.items():
            if name in str(error):
                wrong = short_line(_first_line(error))
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


class Result:
    """The rows of a query as tuples of Python values, computed while they are read.

    Attributes:
        names: of the columns, each once: a second "uri" is "uri_1".
        types: of the columns, as DuckDB writes them: VARCHAR, FLOAT, STRUCT(...).
    """

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, clear_errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._cursor, self._clear_errors = cursor, clear_errors
        self.names = _once_each([column[0] for column in cursor.description or ()])
        self.types = [str(column[1]) for column in cursor.description or ()]
        self._plain = [plain_of(column[1]) for column in cursor.description or ()]

    def plain_rows(self) -> Iterator[list[Any]]:
        """Yields the rows with their values as JSON has them: see `jobs.results.plain`.

        Raises:
            SpecError: a value is nested too deep.
        """
        try:
            for row in self:
                yield [convert(value) for convert, value in zip(self._plain, row, strict=True)]
        except RecursionError:
            raise SpecError("the result has a value that is nested too deep to be shown") from None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while True:
            with self._clear_errors():
                try:
                    rows = self._cursor.fetchmany(ROWS_AT_ONCE)
                except (OverflowError, ValueError) as error:
                    raise SpecError(f"the result has a value that is none in Python: {error}") from None
            if not rows:
                return
            yield from rows


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
    if table != "embeddings":
        return "*"
    return f"* REPLACE (embedding::FLOAT[{run.tables.embedding_width}] AS embedding)"


def _once_each(names: list[str]) -> list[str]:
    """Names with a number behind those that were there before."""
    unique: list[str] = []
    for name in names:
        number, free = 0, name
        while free in unique:
            number += 1
            free = f"{name}_{number}"
        unique.append(free)
    return unique


def _quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: duckdb.Error) -> str:
    return _message(error).partition("\n")[0]


def _message(error: duckdb.Error) -> str:
    """What DuckDB says; of some errors it tells as JSON."""
    try:
        return str(json.loads(str(error))["exception_message"])
    except (ValueError, LookupError, TypeError):
        return str(error)
