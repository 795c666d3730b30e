import pytest

from jobs.search.compiler import compile_query, finds_failed
from jobs.search.language import parse
from jobs.search.vocabulary import Column, Term, Vocabulary
from schemas.exceptions import QueryError

VOCABULARY = Vocabulary(
    [
        Term(0, "class", "", 'a "big" dog', 3),
        Term(1, "label", "", "tiger cat", 2),
        Term(2, "tag", "scene", "sea side", 1),
        Term(3, "class", "", "my place", 1),
    ],
    [
        Column("taken at", "TIMESTAMP", is_own=True),
        Column("my place", "VARCHAR", is_own=True),
        Column("is good", "BOOLEAN", is_own=True),
    ],
    ["scene"],
)


@pytest.mark.parametrize(
    ("query", "does"),
    [
        ("", False),
        ("error:*", True),
        ("dog OR -(error:NOT_FOUND x)", True),
        ("error=TIMEOUT", True),
        ("column:error", True),
        ("terror", False),
        ('uri~"error"', False),
        ("label:error", False),
    ],
)
def test_a_query_about_errors_finds_failed_images(query: str, does: bool) -> None:
    assert finds_failed(parse(query)) is does


@pytest.mark.parametrize(
    ("query", "message", "advised"),
    [
        (
            '"tiger cat">=2',
            "'tiger cat' is a label, which has a score and no number of objects: ",
            '"tiger cat".score>0.5',
        ),
        (
            '"my place"=x',
            "'my place' is a column and class at once; write class:\"my place\" or ",
            'column:"my place"',
        ),
        ('"taken at"', "taken at is a column; compare it, as in ", '"taken at">=2024-01-01'),
        ('column:"my place"', "my place is a column; compare it, as in ", 'column:"my place"="…"'),
        ('"is good"=maybe', "is good is true or false: ", '"is good"=true'),
        ('"a \\"big\\" dog".area', "compare it, as in ", '"a \\"big\\" dog".area>0.5'),
        ('class:"a \\"big\\" dog".count', "compare it, as in ", 'class:"a \\"big\\" dog".count>2'),
    ],
)
def test_what_a_message_advises_is_a_query(query: str, message: str, advised: str) -> None:
    with pytest.raises(QueryError) as raised:
        compile_query(query, VOCABULARY)
    assert str(raised.value).partition("\n")[0] == message + advised
    if advised != 'column:"my place"':
        compile_query(advised, VOCABULARY)
