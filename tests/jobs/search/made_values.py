"""Images with places, in a DuckDB, as an index has them: for tests of values without a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.results.duck import Duck
from jobs.search.column_values import ColumnValues
from jobs.search.vocabulary import Column, Term, Vocabulary

PLACES = ("Zurich", "Zurich", "Zurich", "New York", "New York", "zermatt", 'the "Hub"', "", None)
"""One of each image; a failed one has Zug."""

PLACE = Column("place", "VARCHAR", is_own=True)
VOCABULARY = Vocabulary(
    [
        Term(0, "label", "", "tiger", 3),
        Term(1, "label", "", "cat", 3),
        Term(2, "label", "", "tiger cat", 2),
        Term(3, "class", "", "dining table top", 1),
        Term(4, "class", "", "york", 1),
        Term(5, "class", "", "table", 1),
        Term(6, "class", "", "owner", 1),
    ],
    [
        PLACE,
        Column("by hand", "VARCHAR", is_own=True),
        Column("owner", "VARCHAR", is_own=True),
        Column("width", "INTEGER"),
        Column("error", "VARCHAR"),
        Column("label", "VARCHAR"),
    ],
)


@contextmanager
def made_values() -> Iterator[ColumnValues]:
    """The values of the images."""
    with Duck() as duck:
        duck.execute(
            "CREATE TABLE images AS SELECT unnest(?::VARCHAR[]) AS place, NULL::VARCHAR AS error, "
            "'x y' AS \"by hand\", 'me' AS owner, 5 AS width, 'cat' AS label",
            [list(PLACES)],
        )
        duck.execute("INSERT INTO images VALUES ('Zug', 'NOT_FOUND', 'z', 'z', NULL, NULL)")
        yield ColumnValues(duck.session)
