from collections.abc import Iterator

import pytest

from jobs.search import column_values
from jobs.search.column_values import ColumnValues, Value
from tests.jobs.search.made_values import PLACE, made_values


@pytest.fixture
def values() -> Iterator[ColumnValues]:
    with made_values() as values:
        yield values


def test_all_values_are_there_the_most_frequent_first(values: ColumnValues) -> None:
    assert values.all(PLACE) == (
        *(Value("Zurich", 3), Value("New York", 2), Value('the "Hub"', 1), Value("zermatt", 1)),
    )


@pytest.mark.parametrize(
    ("text", "found"), [("z", ["Zurich", "zermatt"]), ("NEW Y", ["New York"]), ("urich", []), ("x", [])]
)
def test_values_that_begin_so_are_found_in_whatever_case(
    values: ColumnValues, text: str, found: list[str]
) -> None:
    assert [value.text for value in values.beginning(PLACE, text, 8)] == found
    assert [value.text for value in values.beginning(PLACE, text, 1)] == found[:1]


def test_of_a_column_with_too_many_values_those_that_begin_so_are_looked_for_in_so_many_rows(
    values: ColumnValues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_values, "MOST_DISTINCT", 2)
    assert values.all(PLACE) is None
    assert values.beginning(PLACE, "z", 8) == [Value("Zurich", None), Value("zermatt", None)]
    assert values.beginning(PLACE, "", 2) == [Value("New York", None), Value("Zurich", None)]
    assert values.likely(PLACE, "Zorich") == []
    assert values.likely(PLACE, "Zurihc") == ["Zurich"]
    monkeypatch.setattr(column_values, "MOST_ROWS", 3)
    assert values.beginning(PLACE, "", 8) == [Value("Zurich", None)]


@pytest.mark.parametrize(
    ("text", "has"), [("zurich", True), ("Zu*", False), ("Zug", False), ("New York", True), ("New", False)]
)
def test_it_is_known_whether_a_labelled_image_has_a_value(values: ColumnValues, text: str, has: bool) -> None:
    assert values.has(PLACE, text) is has
