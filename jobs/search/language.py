"""The language of `raylabel search`: its text as a tree of tests. The grammar is in grammar.lark."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from lark import Lark, Token, Tree
from lark.exceptions import LarkError, UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from schemas.exceptions import QueryError, SpecError
from workers.printable import one_line

LONGEST = 10_000
"""Characters of a query."""

MOST_TESTS = 200
"""Tests of a query."""

DEEPEST = 100
"""Tests of a query that are in each other."""

ATTRIBUTES = ("score", "area", "count")
"""What a class has in an image: its best score, its largest share of the image, its number of objects."""

Operator: TypeAlias = Literal[">=", "<=", "!=", ">", "<", "=", "~"]

_AROUND = 40
"""Characters of a query that are shown on each side of a fault."""

_QUOTED_CHARACTER = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Name:
    """What a test is about.

    Attributes:
        text: the name, without quotes.
        kind: what is before a colon: label, class, tagger, tagger.NAME, error, or a column; None: nothing.
        attribute: out of `ATTRIBUTES`, after quotes; of a bare word the name has it at its end.
        is_quoted: whether it has quotes, which take each character as it is.
        start: where in the query it begins.
        end: and where it ends.
    """

    text: str
    kind: str | None
    attribute: str | None
    is_quoted: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Test:
    """A name, and what it is compared with.

    Attributes:
        name: see `Name`.
        operator: None: it is not compared.
        value: as it was written, without quotes; "" without an operator.
        end: where in the query the test ends.
        is_quoted: whether the value has quotes, which take each character as it is.
    """

    __test__ = False

    name: Name
    operator: Operator | None
    value: str
    end: int
    is_quoted: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    """What is not so."""

    inner: "Node"


@dataclass(frozen=True, slots=True)
class All:
    """What is all so; without parts: everything."""

    parts: tuple["Node", ...] = ()


@dataclass(frozen=True, slots=True)
class Any:
    """Of which one is so."""

    parts: tuple["Node", ...]


Node: TypeAlias = Test | Not | All | Any


def query_error(query: str, start: int, end: int, problem: str) -> QueryError:
    """An error with the place in a query.

    Args:
        query: as it was given.
        start: where what is wrong begins.
        end: and where it ends.
        problem: what is wrong, and what there is.
    """
    first, last = max(start - _AROUND, 0), min(max(end, start + 1) + _AROUND, len(query))
    before, after = "…" if first else "", "…" if last < len(query) else ""
    line = f"{before}{one_line(query[first:last])}{after}"
    marks = " " * (len(before) + start - first) + "^" * max(min(end, last) - start, 1)
    return QueryError(f"{problem}\n  {line}\n  {marks}", start, end)


def parse(query: str) -> Node:
    """The tree of a query; an empty one asks for every labelled image.

    Raises:
        QueryError: it is none of the language.
    """
    if len(query) > LONGEST:
        raise SpecError(f"a query has at most {LONGEST:,} characters; found {len(query):,}")
    try:
        tree = _parser().parse(query)
    except UnexpectedInput as error:
        _refuse(query, error)
    except LarkError as error:  # pragma: no cover - there is no other kind
        raise SpecError(f"the query {query!r} cannot be read: {error}") from None
    _assert_depth(tree)
    node = _node(tree)
    if (tests := sum(1 for _ in each_test(node))) > MOST_TESTS:
        raise SpecError(f"a query has at most {MOST_TESTS} tests; found {tests:,}")
    return node


def quoted(text: str) -> str:
    """A name or a value as it is written in a query, with quotes where it needs them."""
    if re.fullmatch(r"[^\s()\"<>=!~:.*\\-][^\s()\"<>=!~:.*\\]*", text) and text not in ("AND", "OR", "NOT"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def each_test(node: Node, *, is_asked: bool = True) -> Iterator[tuple[Test, bool]]:
    """Yields the tests of a tree, and of each whether it is asked for: below no NOT, or below two."""
    match node:
        case Test():
            yield node, is_asked
        case Not(inner):
            yield from each_test(inner, is_asked=not is_asked)
        case All(parts) | Any(parts):
            for part in parts:
                yield from each_test(part, is_asked=is_asked)


def each_part(node: Node) -> Iterator[Node]:
    """Yields a tree and all that is in it."""
    yield node
    match node:
        case Not(inner):
            yield from each_part(inner)
        case All(parts) | Any(parts):
            for part in parts:
                yield from each_part(part)


@cache
def _parser() -> Lark:
    grammar = (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=False)


def _node(tree: Tree[Token] | Token) -> Node:
    assert isinstance(tree, Tree)
    parts = [part for part in tree.children if isinstance(part, Tree)]
    match tree.data:
        case "start":
            return All()
        case "either":
            return Any(tuple(map(_node, parts)))
        case "both":
            return All(tuple(map(_node, parts)))
        case "without":
            return Not(_node(parts[0]))
        case _:
            return _test(tree)


def _test(tree: Tree[Token]) -> Test:
    name = _name(tree.children[0])
    if len(tree.children) == 1:
        return Test(name, None, "", name.end)
    operator, value = tree.children[1:]
    assert isinstance(value, Tree)
    (token,) = value.children
    assert isinstance(token, Token)
    text, is_quoted = _unquoted(token)
    return Test(name, str(operator), text, _end(token), is_quoted)  # type: ignore[arg-type]


def _name(tree: Tree[Token] | Token) -> Name:
    assert isinstance(tree, Tree)
    tokens = {token.type: token for token in tree.children if isinstance(token, Token)}
    kind, attribute = tokens.get("KIND"), tokens.get("ATTRIBUTE")
    (main,) = (tokens[name] for name in ("WORD", "QUOTED", "IN_KIND") if name in tokens)
    text, is_quoted = _unquoted(main)
    start = (kind or main).start_pos or 0
    return Name(
        text,
        kind.removesuffix(":") if kind else None,
        attribute.removeprefix(".").lower() if attribute else None,
        is_quoted,
        start,
        _end(attribute or main),
    )


def _unquoted(token: Token) -> tuple[str, bool]:
    """The text of a token, and whether it has quotes."""
    if token.type != "QUOTED":
        return str(token), False
    return _QUOTED_CHARACTER.sub(r"\1", token[1:-1]), True


def _end(token: Token) -> int:
    return (token.start_pos or 0) + len(token)


def _assert_depth(tree: Tree[Token]) -> None:
    """Refuses what is nested so deep that no person wrote it."""
    level, depth = [tree], 0
    while level := [child for parent in level for child in parent.children if isinstance(child, Tree)]:
        depth += 1
    if depth > DEEPEST:
        raise SpecError(f"the query is nested {depth:,} levels deep; allowed are {DEEPEST}")


def _refuse(query: str, error: UnexpectedInput) -> NoReturn:
    """Says what is wrong at the place where it was found."""
    end = len(query)
    if isinstance(error, UnexpectedEOF) or (
        isinstance(error, UnexpectedToken) and error.token.type == "$END"
    ):
        before = query.rstrip()
        problem = "the query ends where a word or a value has to follow"
        if before.count("(") > before.count(")"):
            problem = "a bracket is not closed, or the query ends too early"
        raise query_error(query, max(len(before) - 1, 0), max(len(before), 1), problem)
    start = error.pos_in_stream or 0
    if isinstance(error, UnexpectedToken):
        end = _end(error.token)
    elif isinstance(error, UnexpectedCharacters):
        end = start + 1
    found = query[start:end]
    if found.startswith('"') and isinstance(error, UnexpectedCharacters):
        raise query_error(query, start, len(query), 'the quote is not closed; a quote within quotes is \\"')
    if found == ")":
        raise query_error(query, start, end, "a bracket is closed that was not opened, or has nothing in it")
    if found[:1] in {">", "<", "=", "!", "~"}:
        raise query_error(
            query, start, end, f"before {found!r} there is no name to compare; such as person>=2, score<0.5"
        )
    if found in ("AND", "OR"):
        raise query_error(
            query, start, end, f'{found} stands between two tests; the word itself is "{found}"'
        )
    raise query_error(
        query, start, end, f"{found!r} cannot stand here; a name with such characters needs quotes"
    )
