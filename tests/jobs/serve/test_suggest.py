import pytest

from jobs.search.vocabulary import Column, Term, Vocabulary
from jobs.serve.suggest import suggestions

TERMS = (
    Term(0, "class", "", "person", 30),
    Term(1, "class", "", "parking meter", 3),
    Term(2, "label", "", "persian cat", 5),
    Term(3, "label", "", "espresso", 2),
    Term(4, "tag", "scene", "park", 9),
    Term(5, "tag", "scene", "espresso", 1),
)
VOCABULARY = Vocabulary(TERMS, [Column("photographer", "VARCHAR", is_own=True)], ["scene"])


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
def test_the_last_word_is_completed(text: str, queries: list[str]) -> None:
    assert [one.query for one in suggestions(text, VOCABULARY)] == queries


def test_a_suggestion_says_what_it_is() -> None:
    (one,) = suggestions("espr", VOCABULARY)
    assert (one.name, one.kind, one.images) == ("espresso", "label, tagger.scene", 2)
    (column,) = suggestions("photogr", VOCABULARY)
    assert (column.kind, column.images) == ("column", None)
