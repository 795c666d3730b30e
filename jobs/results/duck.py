"""DuckDB in this process: bounded memory, no downloads, errors in raylabel's words."""

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from jobs.results.plain import plain_of
from schemas.exceptions import RaylabelError, SpecError, StorageError
from workers.process.leftovers import temporary_folder

MEMORY_MB = 512
"""Memory that DuckDB takes for what it computes, at most; what does not fit goes to a temporary folder."""

MOST_ROWS = 2**63 - 1
"""Rows that SQL can be asked for."""

ROWS_AT_ONCE = 4096
"""Rows that are Python objects at once."""

_CUT = re.compile(r"\b(?:TIMESTAMP_NS|TIME_NS|INTERVAL)\b")
"""The types of DuckDB whose values Python has only a part of."""

_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:  .*\n)+")

_UNWRITTEN = re.compile(r"Could not write .*: (.+)")
"""What DuckDB says of a full disk, or a file that has become too large."""

_NO_ADVICE = re.compile(r"\n+Please try installing and loading the \w+ extension(?:.*\n?)*?(?=\n*LINE |\Z)")

_LINE = re.compile(r"(?<=\nLINE )(\d+):")
"""Where DuckDB names a line of the query, which it shows behind that."""

_PLACE = re.compile(r"^(LINE \d+: .*)\n( *)(\^+)$", re.MULTILINE)
"""A line of the query, and the mark below it."""

_NO_EXTENSIONS = ": no extension is downloaded. A query reads the run's tables, and files of this machine"


ClearErrors = Callable[[], AbstractContextManager[None]]
"""What makes errors of raylabel's of those of DuckDB, for the length of a block."""


ABOUT_QUERIES = (
    *(duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException),
    *(duckdb.OutOfRangeException, duckdb.NotImplementedException, duckdb.SyntaxException),
    *(duckdb.InterruptException, duckdb.OutOfMemoryException),
)
"""What is wrong with a query, or too much, and not with a file."""


class Duck:
    """A new DuckDB for a `with` block.

    What does not fit into the memory it may take goes to a temporary folder.

    Args:
        memory_mb: see `MEMORY_MB`.
    """

    def __init__(self, memory_mb: int = MEMORY_MB) -> None:
        self._ending = ExitStack()
        folder = self._ending.enter_context(temporary_folder("raylabel-sql-"))
        try:
            with self._clear_errors():
                self._connection = duckdb.connect(
                    config={
                        "autoinstall_known_extensions": False,
                        "autoload_known_extensions": False,
                        "memory_limit": f"{memory_mb}MiB",
                        "temp_directory": str(folder),
                    },
                )
            self._ending.callback(self._connection.close)
            # a name in a query is none of a variable in Python
            self.execute("SET GLOBAL python_enable_replacements = false")
            self.execute("SET GLOBAL TimeZone = 'UTC'")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
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
        statement = self._statement(query)
        with self._clear_errors():
            table = self._connection.sql(statement).to_arrow_table()
        return table.rename_columns(_once_each(table.column_names))

    def result(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> "Result":
        """The result of a query, which is computed as it is read; raises as `rows` does."""
        return self._result(self._statement(query), parameters, self._clear_errors)

    def _result(self, statement: Any, parameters: Any, clear_errors: ClearErrors) -> "Result":
        """The result of a statement, whose errors are made clear."""
        cursor = self._connection.cursor()
        with clear_errors():
            cursor.execute(statement, parameters)
        return Result(cursor, clear_errors)

    @contextmanager
    def session(self) -> Iterator["Session"]:
        """A connection of its own for the length of a block; several may be used at once."""
        with self._clear_errors():
            cursor = self._connection.cursor()
        try:
            yield Session(cursor, self._clear_errors)
        finally:
            cursor.close()

    def keep(self, name: str, query: str) -> None:
        """Keeps the result of a query as a table, in place of one of that name; raises as `rows` does."""
        text = self._text_of(query)
        self.execute(f"CREATE OR REPLACE TABLE {quoted(name)} AS {text}")

    def readable(self, query: str) -> "Result":
        """The result of a query, with texts for what Python would cut: nanoseconds, intervals with months.

        Raises as `rows` does.
        """
        text = self._text_of(query)
        cut = {name: type_ for name, type_ in self._types(text).items() if _CUT.search(type_)}
        texts = [
            f"{quoted(name)}::{_CUT.sub('VARCHAR', type_)} AS {quoted(name)}" for name, type_ in cut.items()
        ]
        if not texts:
            return self.result(query)
        return self._result(f"SELECT * REPLACE ({', '.join(texts)}) FROM (\n{text}\n)", None, self._within)

    def save(self, query: str, file: Path) -> None:
        """Writes the result of a query as a Parquet file; raises as `rows` does.

        Args:
            query: see `rows`.
            file: to write; nothing may be there.
        """
        text = self._text_of(query)
        # Parquet has no such integers: DuckDB would write the nearest float
        huge = [quoted(name) for name, type_ in self._types(text).items() if type_ == "HUGEINT"]
        exact = [f"{name}::DECIMAL(38, 0) AS {name}" for name in huge]
        rows = f"\n{text}\n"  # a comment may end it
        if exact:
            rows = f"SELECT * REPLACE ({', '.join(exact)}) FROM ({rows})"
        with self._within():
            self._connection.execute(
                f"COPY ({rows}) TO {in_quotes(str(file))} (FORMAT parquet, COMPRESSION zstd)"
            )

    def _types(self, text: str) -> dict[str, str]:
        """The types of the columns of a query by their names, as those of a source of rows."""
        with self._within():
            columns = self._connection.execute(f"DESCRIBE FROM (\n{text}\n)").fetchall()
        return {name: type_ for name, type_, *_ in columns}

    def execute(self, statement: str, parameters: Sequence[Any] | None = None) -> None:
        """Does what a statement of ours says; raises as `rows` does."""
        with self._clear_errors():
            self._connection.execute(statement, parameters)

    def _statement(self, query: str) -> str | duckdb.Statement:
        """What is executed of a query."""
        return query

    def _text_of(self, query: str) -> str:
        """A query as a part of a statement."""
        return query

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Makes an error of raylabel's of what DuckDB raises."""
        try:
            yield
        except duckdb.Error as error:
            raise self._error(error) from None

    @contextmanager
    def _within(self) -> Iterator[None]:
        """The same for a query that begins on the second line of a statement: its lines count from 1."""
        try:
            with self._clear_errors():
                yield
        except SpecError as error:
            raise SpecError(_LINE.sub(_one_less, str(error))) from None

    def _error(self, error: duckdb.Error) -> RaylabelError:
        """An error of DuckDB's as one of raylabel's."""
        if isinstance(error, duckdb.InterruptException):
            return SpecError("the query was interrupted")
        if isinstance(error, duckdb.OutOfMemoryException):
            return SpecError(
                f"the query needs more memory or disk than there is ({first_line(error)}). Ask for less: "
                "fewer columns, a LIMIT, or one class at a time"
            )
        if unwritten := _UNWRITTEN.search(_message(error)):
            return StorageError(f"a file could not be written: {unwritten[1]}")
        # of a name that is no file of a run DuckDB tells with Python's traceback
        return SpecError(_NO_ADVICE.sub(_NO_EXTENSIONS, _TRACEBACK.sub("", _message(error))))


class Session:
    """A connection to a DuckDB: its temporary tables are its own.

    A result has to be read before the next statement.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, clear_errors: ClearErrors) -> None:
        self._cursor, self._clear_errors = cursor, clear_errors

    def execute(self, statement: str, parameters: Sequence[Any] | None = None) -> None:
        """Does what a statement of ours says; raises as `Duck.rows` does."""
        with self._clear_errors():
            self._cursor.execute(statement, parameters)

    def result(self, query: str, parameters: Sequence[Any] | None = None) -> "Result":
        """The result of a query, which is computed as it is read; raises as `Duck.rows` does."""
        self.execute(query, parameters)
        return Result(self._cursor, self._clear_errors)

    def value(self, query: str, parameters: Sequence[Any] | None = None) -> Any:
        """The only value of a query's result; raises as `Duck.rows` does."""
        ((value,),) = self.result(query, parameters)
        return value


class Result:
    """The rows of a query as tuples of Python values, computed while they are read.

    Attributes:
        names: of the columns, each once: a second "uri" is "uri_1".
        types: of the columns, as DuckDB writes them: VARCHAR, FLOAT, STRUCT(...).
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, clear_errors: ClearErrors) -> None:
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


def _one_less(line: re.Match[str]) -> str:
    """The number of the line before, as wide: below the line is a mark."""
    return f"{int(line[1]) - 1}:".ljust(len(line[0]))


def free_name(name: str, taken: Iterable[str]) -> str:
    """A name that none of others is, in whatever case (SQL ignores it): with a number behind, if need be."""
    folded = {other.casefold() for other in taken}
    names = (f"{name}_{number}" for number in count(1))
    return name if name.casefold() not in folded else next(it for it in names if it.casefold() not in folded)


def _once_each(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that were there before."""
    unique: list[str] = []
    for name in names:
        unique.append(free_name(name, unique))
    return unique


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def in_quotes(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def first_line(error: duckdb.Error) -> str:
    """What DuckDB says, without the place in the query."""
    return _message(error).partition("\n")[0]


def _message(error: duckdb.Error) -> str:
    """What DuckDB says, without tabs; of some errors it tells as JSON."""
    text = str(error)
    with suppress(ValueError, LookupError, TypeError):
        text = str(json.loads(text)["exception_message"])
    return _PLACE.sub(_without_tabs, text).replace("\t", " ")


def _without_tabs(place: re.Match[str]) -> str:
    """A line of a query and the mark below it: to DuckDB a tab is no place wide."""
    line, before, mark = place.groups()
    places = [number for number, letter in enumerate(line) if letter != "\t"]
    column = places[len(before)] if "\t" in line and len(before) < len(places) else len(before)
    return f"{line}\n{' ' * column}{mark}"
