from collections.abc import Iterator

import pytest

from jobs.search.column_values import ColumnValues
from jobs.search.vocabulary import Column, Term, Vocabulary
from jobs.serve.suggest import suggestions
from tests.jobs.search.made_values import VOCABULARY as PLACES
from tests.jobs.search.made_values import made_values

TERMS = (
    Term(0, "class", "", "person", 30),
    Term(1, "class", "", "parking meter", 3),
    Term(2, "label", "", "persian cat", 5),
    Term(3, "label", "", "espresso", 2),
    Term(4, "tag", "scene", "park", 9),
    Term(5, "tag", "scene", "espresso", 1),
)
VOCABULARY = Vocabulary(TERMS, [Column("photographer", "VARCHAR", is_own=True)], ["scene"])


@pytest.fixture(scope="module")
def values() -> Iterator[ColumnValues]:
    with made_values() as values:
        yield values


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("", []),
        ("per", ["person", '"persian cat"']),
        ("dog per", ["dog person", 'dog "persian cat"']),
        ("dog -per", ["dog -person", 'dog -"persian cat"']),
        ("-per", ["-person", '-"persian cat"']),
        ("(per", ["(person", '("persian cat"']),
        ('x "persian', ['x "persian cat"']),
        ("label:es", ["label:espresso"]),
        ("tagger.scene:es", ["tagger.scene:espresso"]),
        ("photog", ["photographer"]),
        ("error:TIME", ["error:TIMEOUT"]),
        ("person>", []),
        ("person>=2", []),
        ("person ", []),
        ("zzzzzz", []),
    ],
)
def test_the_last_word_is_completed(values: ColumnValues, text: str, queries: list[str]) -> None:
    assert [one.query for one in suggestions(text, VOCABULARY, values)] == queries


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("place=", ["place=Zurich", 'place="New York"', 'place="the \\"Hub\\""', "place=zermatt"]),
        ("tiger -place=z", ["tiger -place=Zurich", "tiger -place=zermatt"]),
        ("(place!=NE", ['(place!="New York"']),
        ("place:z", ["place:Zurich", "place:zermatt"]),
        ("column:place= z", ["column:place= Zurich", "column:place= zermatt"]),
        ('place="new', ['place="New York"']),
        ('PLACE="', ["PLACE=Zurich", 'PLACE="New York"', 'PLACE="the \\"Hub\\""', "PLACE=zermatt"]),
        ('"by hand"=', ['"by hand"="x y"']),
        ("place=q", []),
        ('place="Zurich"', []),
        ("place>=z", []),
        ("place~z", []),
        ("width=", []),
        ("error=", []),
        ("owner=", []),  # a class as well: it would be refused
        ("column:owner=", ["column:owner=me"]),
        ("label:ti", ["label:tiger", 'label:"tiger cat"']),
        ("label=", ["label=cat"]),
        ("nothing=", []),
        ("nothing:", []),
    ],
)
def test_a_value_that_images_have_is_completed(values: ColumnValues, text: str, queries: list[str]) -> None:
    assert [one.query for one in suggestions(text, PLACES, values)] == queries


def test_a_value_says_how_many_have_it(values: ColumnValues) -> None:
    first, *_ = suggestions("place=", PLACES, values)
    assert (first.name, first.kind, first.images) == ("Zurich", "place", 3)


def test_a_suggestion_says_what_it_is(values: ColumnValues) -> None:
    (one,) = suggestions("espr", VOCABULARY, values)
    assert (one.name, one.kind, one.images) == ("espresso", "label, tagger.scene", 2)
    (column,) = suggestions("photogr", VOCABULARY, values)
    assert (column.kind, column.images) == ("column", None)
