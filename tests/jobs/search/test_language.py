import pytest

from jobs.search.language import All, Name, Not, Test, each_test, parse, quoted
from jobs.search.language import Any as Either
from schemas.exceptions import QueryError, SpecError


def word(text: str) -> Test:
    """A test of a word alone, without its place."""
    return Test(Name(text, None, None, False, 0, 0), None, "", 0)


def without_places(node: object) -> object:
    match node:
        case Test(name, operator, value, _, is_quoted):
            bare = Name(name.text, name.kind, name.attribute, name.is_quoted, 0, 0)
            return Test(bare, operator, value, 0, is_quoted)
        case Not(inner):
            return Not(without_places(inner))  # type: ignore[arg-type]
        case All(parts):
            return All(tuple(map(without_places, parts)))  # type: ignore[arg-type]
        case Either(parts):
            return Either(tuple(map(without_places, parts)))  # type: ignore[arg-type]
    raise AssertionError(node)


a, b, c = word("a"), word("b"), word("c")


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ("", All()),
        ("  \n", All()),
        ("a b", All((a, b))),
        ("a AND b", All((a, b))),
        ("a OR b c", Either((a, All((b, c))))),
        ("(a OR b) c", All((Either((a, b)), c))),
        ("-a", Not(a)),
        ("NOT a b", All((Not(a), b))),
        ("--a", Not(Not(a))),
        ("-(a OR -b)", Not(Either((a, Not(b))))),
        ("t-shirt women's", All((word("t-shirt"), word("women's")))),
        ("or and not", All((word("or"), word("and"), word("not")))),
        ("ORCHID", word("ORCHID")),
        ("été 猫", All((word("été"), word("猫")))),
        ("a\nb", All((a, b))),
    ],
)
def test_words_side_by_side_are_all_so_and_or_binds_least(query: str, tree: object) -> None:
    assert without_places(parse(query)) == tree


@pytest.mark.parametrize(
    ("query", "test"),
    [
        ("a>=2", (None, "a", None, ">=", "2")),
        ("a >= 2", (None, "a", None, ">=", "2")),
        ("a.score>0.6", (None, "a.score", None, ">", "0.6")),
        ('"a b".score>0.6', (None, "a b", "score", ">", "0.6")),
        ('"a.b"', (None, "a.b", None, None, "")),
        (r'"a \"b\" \\"', (None, r'a "b" \\'[:-1], None, None, "")),
        ('label:"a b".score<1', ("label", "a b", "score", "<", "1")),
        ("tagger.scene:beach", ("tagger.scene", "beach", None, None, "")),
        ("label:OR", ("label", "OR", None, None, "")),
        ("taken:2024-01-01T10:00:00", ("taken", "2024-01-01T10:00:00", None, None, "")),
        ("uri~s3://b/2024", (None, "uri", None, "~", "s3://b/2024")),
        ('photographer="Ann B"', (None, "photographer", None, "=", "Ann B")),
        ("a!=-1", (None, "a", None, "!=", "-1")),
        ('"OR"', (None, "OR", None, None, "")),
    ],
)
def test_a_test_is_a_name_and_what_it_is_compared_with(query: str, test: tuple[str | None, ...]) -> None:
    found = parse(query)
    assert isinstance(found, Test)
    name = found.name
    assert (name.kind, name.text, name.attribute, found.operator, found.value) == test
    assert (name.start, found.end) == (0, len(query))


@pytest.mark.parametrize(
    ("query", "message", "marked"),
    [
        ("a AND", "ends where a word or a value has to follow", "D"),
        ("a>=", "ends where a word or a value has to follow", "="),
        ("NOT", "ends where a word or a value has to follow", "T"),
        ("(a", "a bracket is not closed", "a"),
        ("a)", "a bracket is closed that was not opened", ")"),
        ("()", "a bracket is closed that was not opened, or has nothing in it", ")"),
        ('a "b c', "the quote is not closed", '"b c'),
        (">=2 a", "there is no name to compare", ">="),
        ("a b != ", "ends where a word or a value has to follow", "="),
        ("a ! b", "there is no name to compare", "!"),
        ("a OR OR b", 'OR stands between two tests; the word itself is "OR"', "OR"),
        ("AND a", "AND stands between two tests", "AND"),
        (": a", "':' cannot stand here", ":"),
    ],
)
def test_a_query_that_is_none_is_refused_at_its_place(query: str, message: str, marked: str) -> None:
    with pytest.raises(QueryError, match="\n") as raised:
        parse(query)
    assert message in str(raised.value)
    assert query[raised.value.start : raised.value.end].startswith(marked)


@pytest.mark.parametrize(("query", "is_quoted"), [("a=b*", False), ('a="b*"', True), ("a", False)])
def test_it_is_known_whether_a_value_has_quotes(query: str, is_quoted: bool) -> None:
    found = parse(query)
    assert isinstance(found, Test)
    assert found.is_quoted is is_quoted


def test_a_place_in_a_long_query_is_shown_with_what_is_around_it() -> None:
    with pytest.raises(QueryError) as raised:
        parse("word " * 50 + "\t) " + "word " * 50)
    _, line, marks = str(raised.value).split("\n")
    assert len(line) < 90
    assert line[marks.index("^")] == ")"


def test_what_no_person_writes_is_refused() -> None:
    with pytest.raises(SpecError, match="at most 10,000 characters; found 10,001"):
        parse("a" * 10_001)
    with pytest.raises(SpecError, match="301 levels deep; allowed are 100"):
        parse("-" * 300 + "a")
    assert without_places(parse("(" * 3000 + "a" + ")" * 3000)) == a


@pytest.mark.parametrize(
    "text", ["dog", "traffic light", 'a "b" \\', "v1.5", "OR", "-x", "a*", "été", "t-shirt"]
)
def test_a_quoted_name_is_that_name(text: str) -> None:
    found = parse(quoted(text))
    assert isinstance(found, Test)
    assert found.name.text == text


def test_what_is_below_two_nots_is_asked_for() -> None:
    tests = [(test.name.text, is_asked) for test, is_asked in each_test(parse("a -b --c -(d OR -e)"))]
    assert tests == [("a", True), ("b", False), ("c", True), ("d", False), ("e", True)]
