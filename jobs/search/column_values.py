"""The values that texts of images have in an index: the most frequent ones, and those that begin so."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from jobs.results.duck import Session, quoted
from jobs.search.compiler import LABELLED
from jobs.search.values import condition
from jobs.search.vocabulary import Column

MOST_DISTINCT = 10_000
"""Different values of a column that are all kept; of one with more those that begin so are looked for."""

MOST_ROWS, MOST_FOUND = 500_000, 1000
"""Images that are looked at for values that begin so, and values that are enough, where there are more."""

LONGEST = 200
"""Characters of a value that somebody may want to be given."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a column, and the labelled images that have it; None: they were not counted."""

    text: str
    images: int | None


class ColumnValues:
    """The values of columns that hold texts; read when they are first asked for, and kept.

    Args:
        session: opens a connection to the index.
    """

    def __init__(self, session: Callable[[], AbstractContextManager[Session]]) -> None:
        self._session = session
        self._kept: dict[str, tuple[Value, ...] | None] = {}

    def all(self, column: Column) -> tuple[Value, ...] | None:
        """All values of a column, the most frequent first; None: there are too many."""
        if column.name not in self._kept:
            self._kept[column.name] = self._read(column)
        return self._kept[column.name]

    def beginning(self, column: Column, text: str, most: int) -> list[Value]:
        """Values that begin with a text in whatever case, the most frequent first where they are counted."""
        values, folded = self.all(column), text.casefold()
        if values is None:
            return self._look_for(column, text)[:most]
        return [value for value in values if value.text.casefold().startswith(folded)][:most]

    def likely(self, column: Column, text: str) -> list[str]:
        """Values that a mistyped one may be meant to be."""
        values = self.all(column)
        return [value.text for value in (self._look_for(column, text[:2]) if values is None else values)]

    def has(self, column: Column, text: str) -> bool:
        """Whether a labelled image has a value."""
        is_so = condition(column, "=", text, is_quoted=True)
        query = f"SELECT count(*) FROM (FROM images i WHERE {LABELLED} AND {is_so.text} LIMIT 1)"
        with self._session() as session:
            return bool(session.value(query, is_so.parameters))

    def _read(self, column: Column) -> tuple[Value, ...] | None:
        name = quoted(column.name)
        images = f"images i WHERE {LABELLED} AND length({name}) BETWEEN 1 AND {LONGEST}"
        with self._session() as session:
            if session.value(f"SELECT approx_count_distinct({name}) FROM {images}") > MOST_DISTINCT:
                return None
            found = session.result(
                f"SELECT {name}, count(*) AS number FROM {images} GROUP BY 1 ORDER BY number DESC, 1 "
                f"LIMIT {2 * MOST_DISTINCT}"  # as they were counted roughly
            )
            return tuple(Value(str(text), images) for text, images in found)

    def _look_for(self, column: Column, text: str) -> list[Value]:
        """Values that begin with a text: not all, and of so many rows, which bounds the time."""
        name = quoted(column.name)
        looked_at = f"(SELECT {name} AS text FROM images i WHERE {LABELLED} LIMIT {MOST_ROWS})"
        fits = f"length(text) BETWEEN 1 AND {LONGEST} AND starts_with(lower(text), lower(?))"
        with self._session() as session:
            found = session.result(
                f"SELECT DISTINCT text FROM (SELECT text FROM {looked_at} WHERE {fits} LIMIT {MOST_FOUND}) "
                "ORDER BY text",
                [text],
            )
            return [Value(str(row[0]), None) for row in found]
