"""`raylabel sql`: the result of a query over runs, as a table for a person, or for a program."""

import csv
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from jobs.results.duck import Result
from jobs.results.plain import dump_json
from jobs.results.sql import Database
from jobs.results.status import unfinished
from jobs.results.text import shorten
from jobs.results.writing import whole_file
from schemas.ledger import RunRecord
from schemas.words import counted
from workers.printable import one_line, printable
from workers.process.streams import print_error

Form = Literal["table", "csv", "json"]

ENDINGS = (".parquet", ".csv")
"""Of the files that a result can be written into."""

MAX_ROWS = 40
"""Rows of a table for a person; --csv, --json and -o have all."""

WIDEST = 10_000
"""Cells of a table that no terminal shows."""

_NARROWEST, _GAP = 10, 3
"""Cells of a column that says anything, and between two columns."""

_NUMBERS = ("TINYINT", "SMALLINT", "INT", "BIGINT", "HUGEINT", "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL")
"""How DuckDB's types of numbers begin."""


def run_sql(runs: Mapping[str, str], query: str, form: Form = "table", file: Path | None = None) -> None:
    """Answers a query over runs.

    Args:
        runs: run directories by name; see `Database`.
        query: one SELECT.
        form: of what is printed; a table has the first `MAX_ROWS` rows, and the columns that fit.
        file: to write the result into instead, in the format of its ending; replaced where it exists, see
            `whole_file`.

    Raises:
        SpecError: the query cannot be answered, or the file's ending is none of `ENDINGS`.
        StorageError: a run is not there, or the file cannot be written.
        DamagedFileError: a file of a run is damaged.
    """
    with Database(runs) as database:
        for run in database.runs.values():
            if note := unfinished(run):
                print_error(f"note: {note}")
        if file:
            records = (run.record for run in database.runs.values())
            save_result(file, records, partial(database.save, query), partial(database.readable, query))
            print_error(f"written: {file}")
            return
        result = database.readable(query)
        if form == "table":
            _print_table(result, _console())
        else:
            (write_csv if form == "csv" else _write_json)(result, sys.stdout)


def save_result(
    file: Path, read: Iterable[RunRecord], as_parquet: Callable[[Path], None], rows: Callable[[], Result]
) -> None:
    """Writes a result into a file, whole or not at all.

    Args:
        file: see `whole_file`; it has one of `ENDINGS`.
        read: records of the runs that it is made of.
        as_parquet: writes it as a Parquet file.
        rows: it, for CSV.

    Raises:
        RaylabelError: see `whole_file`.
    """
    with whole_file(file, ENDINGS, read) as temporary:
        if file.suffix.lower() == ".parquet":
            as_parquet(temporary)
        else:
            with temporary.open("x", encoding="utf-8", newline="") as csv_file:
                write_csv(rows(), csv_file)


def _console() -> Console:
    """Where a table is printed: a pipe or a file takes it whole, a terminal what fits."""
    is_measured = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if is_measured else WIDEST)


def write_csv(result: Result, file: IO[str]) -> None:
    """Rows as CSV with a line of names; what is nested as JSON, null as an empty field."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(result.names)
    for row in result.plain_rows():
        writer.writerow([_csv_value(value) for value in row])


def _csv_value(value: object) -> object:
    return dump_json(value) if isinstance(value, dict | list | bool) else value


def _write_json(result: Result, file: IO[str]) -> None:
    """Rows as a JSON array, an object a line."""
    before = "["
    for row in result.plain_rows():
        file.write(f"{before}\n{dump_json(dict(zip(result.names, row, strict=True)))}")
        before = ","
    file.write("[]\n" if before == "[" else "\n]\n")


def _print_table(result: Result, console: Console) -> None:
    """The first rows as a table that fits the terminal, and what is left out of it."""
    rows = list(islice(result.plain_rows(), MAX_ROWS + 1))
    more = len(rows) > MAX_ROWS
    cells = [[_cell(value) for value in row] for row in rows[:MAX_ROWS]]
    shown = min(len(result.names), max(1, (console.width + _GAP) // (_NARROWEST + _GAP)))
    table = Table(box=box.SIMPLE_HEAD)
    table.show_edge = table.pad_edge = False
    widths = _widths(result.names[:shown], cells, console.width)
    for name, type_, width in zip(result.names, result.types, widths, strict=False):
        side: JustifyMethod = "right" if type_.startswith(_NUMBERS) and "[" not in type_ else "left"
        table.add_column(Text(shorten(name, width)), justify=side, no_wrap=True, width=width)
    for row in cells:
        table.add_row(*(Text(shorten(cell, width)) for cell, width in zip(row, widths, strict=False)))
    console.print(table)
    notes = [f"the first {counted(MAX_ROWS, 'row')}; --csv, --json or -o FILE give all"] if more else []
    if hidden := result.names[shown:]:
        notes.append(f"not shown, as they do not fit: {', '.join(hidden)}")
    if not rows:
        notes.append("no rows")
    for note in notes:
        console.print(printable(f"({note})"), markup=False, soft_wrap=True)


def _cell(value: object) -> str:
    """A plain value in a cell of a table, in one line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            is_plain = not value or 1e-3 <= abs(value) < 1e9
            return f"{value:.4f}".rstrip("0").rstrip(".") if is_plain else f"{value:.4g}"
        case str() | int():
            return one_line(str(value))
        case _:
            return one_line(dump_json(value))


def _widths(names: list[str], rows: list[list[str]], room: int) -> list[int]:
    """The width of each column: its own, or where that is too much a fair share of the room."""
    widths = [max(map(cell_len, [name, *(row[i] for row in rows)])) for i, name in enumerate(names)]
    room -= _GAP * (len(names) - 1)
    while sum(widths) > room and max(widths) > 1:
        widest = max(widths)
        below = max((width for width in widths if width < widest), default=1)
        many = widths.count(widest)
        cut = max(widest - below, 1)
        over = -(-(sum(widths) - room) // many)
        widths = [width - min(cut, over) if width == widest else width for width in widths]
    return [max(width, 1) for width in widths]
