from collections.abc import Iterator

import pytest

from jobs.search.advice import Advice, advice_on
from jobs.search.column_values import ColumnValues
from jobs.search.compiler import compile_query
from jobs.search.vocabulary import nothing_like
from schemas.exceptions import QueryError
from tests.jobs.search.made_values import VOCABULARY, made_values


@pytest.fixture(scope="module")
def values() -> Iterator[ColumnValues]:
    with made_values() as values:
        yield values


TIGER = '"tiger cat" is a label: put it in quotes'
TABLE = '"dining table top" is a class: put it in quotes'


@pytest.mark.parametrize(
    ("query", "advice"),
    [
        ("tiger cat", [(TIGER, '"tiger cat"')]),
        ("york Tiger Cat york", [('"Tiger Cat" is a label: put it in quotes', 'york "Tiger Cat" york')]),
        ("-tiger cat", [(TIGER, '-"tiger cat"')]),
        ("york OR (tiger  cat)", [('"tiger cat" is a label: put it in quotes', 'york OR ("tiger cat")')]),
        ("label:tiger cat", [(TIGER, 'label:"tiger cat"')]),
        ("class:york cat", []),
        ("tiger AND cat", []),
        ("tiger -cat", []),
        ('"tiger" cat', []),
        ('tiger "cat"', []),
        ("cat tiger", []),
        ("tiger OR cat", []),
        ("place=Zorich", [("no image has place 'Zorich'; did you mean Zurich?", "place=Zurich")]),
        ("tiger place:Zorich", [("no image has place 'Zorich'; did you mean Zurich?", "tiger place=Zurich")]),
        (
            'place="New Yorck"',
            [
                ("no image has place 'New Yorck'; did you mean \"New York\"?", 'place="New York"'),
            ],
        ),
        (
            "place=x",
            [
                (
                    'no image has place \'x\'; there are Zurich, "New York", "the \\"Hub\\"", zermatt',
                    "",
                ),
            ],
        ),
        ("place=Zurich place=zermatt", []),
        ("place=Z* -place=Zorich place!=Zorich place~Zorich width=7 error=X", []),
        ("place=New york", [('place has the value "New york": put it in quotes', 'place="New york"')]),
        (
            "place:new York tiger",
            [('place has the value "new York": put it in quotes', 'place:"new York" tiger')],
        ),
        (
            "place=New cat",
            [
                ("no image has place 'New'; did you mean \"New York\"?", 'place="New York" cat'),
            ],
        ),
    ],
)
def test_who_finds_nothing_is_told_what_may_be_meant(
    values: ColumnValues, query: str, advice: list[tuple[str, str]]
) -> None:
    compile_query(query, VOCABULARY)  # it can be answered
    assert advice_on(query, VOCABULARY, values, finds_nothing=True) == [Advice(*one) for one in advice]


def test_where_something_is_found_only_names_of_several_words_are_told(values: ColumnValues) -> None:
    query = "tiger cat place=Zorich"
    (one,) = advice_on(query, VOCABULARY, values, finds_nothing=False)
    assert one == Advice(TIGER, '"tiger cat" place=Zorich')


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("dining table top", f"no label, class or column 'dining'; {TABLE}"),
        ("cat dining table top tiger", f"no label, class or column 'dining'; {TABLE}"),
        ("by hand", "no label, class or column 'by'; \"by hand\" is a column: put it in quotes"),
        (
            "place=San Jose",
            "no label, class or column 'Jose'; a value of several words needs quotes: place=\"San Jose\"",
        ),
        (
            "place=San Juan Hill tiger",
            "no label, class or column 'Juan'; a value of several words needs "
            'quotes: place="San Juan Hill"',
        ),
        (
            "place:San Jose",
            "no label, class or column 'Jose'; a value of several words needs quotes: place:\"San Jose\"",
        ),
        ("label:dining table", "no label 'dining'; there are "),
        ("tigre cat", "no label, class or column 'tigre'; did you mean tiger?\n"),
        ("colour:red tiger", "before a colon, no kind or column 'colour'; did you mean column?\n"),
    ],
)
def test_a_name_that_nothing_has_may_be_a_part_of_one(query: str, message: str) -> None:
    with pytest.raises(QueryError) as raised:
        compile_query(query, VOCABULARY)
    assert str(raised.value).startswith(message)


def test_names_that_have_line_breaks_are_named_in_one_line() -> None:
    assert nothing_like("no class", "x", ["red\ncar"]) == "no class 'x'; there are \"red car\""
    assert nothing_like("no class", "red", ["red\ncar"]) == "no class 'red'; did you mean \"red car\"?"
