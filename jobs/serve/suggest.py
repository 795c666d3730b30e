"""What may follow in a query that is being typed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.search.column_values import ColumnValues
from jobs.search.language import Test, parse, quoted
from jobs.search.values import is_text
from jobs.search.vocabulary import ERROR, MOST_NAMED, Column, UnknownNameError, Vocabulary
from schemas.errors import ErrorCode
from schemas.exceptions import SpecError

_NAMES = 200
"""Names that are looked at where only those of a kind are wanted."""

_BEFORE = r"(?:(?<=\s)|(?<=\()|(?<=[\s(]-)|^-?)"
"""What is before a test."""

_WORD = re.compile(
    rf'{_BEFORE}(?P<kind>[^\s()"<>=!~:-][^\s()"<>=!~:]*:)?(?P<name>"[^"]*|[^\s()"<>=!~:-][^\s()"<>=!~:]*)?$'
)
"""The word that a text ends with, and what is before its colon."""

_VALUE = re.compile(
    rf'{_BEFORE}(?P<test>(?P<name>(?:column:)?(?:"(?:\\.|[^"\\])*"|[^\s()"<>=!~:-][^\s()"<>=!~:]*))(?:!?=\s*|:))'
    r'(?P<value>"[^"]*|[^\s()"]*)$',
    re.IGNORECASE,
)
"""The value that a text ends with, and what is before it."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A name or a value that a query may go on with.

    Attributes:
        name: as the model or the table has it.
        kind: class, label, tagger.NAME, column or error, several with commas; of a value its column.
        images: that have it; None: they are not counted, as those of a column.
        query: the text that was typed, with the name for its last word.
    """

    name: str
    kind: str
    images: int | None
    query: str


def suggestions(
    text: str, vocabulary: Vocabulary, values: ColumnValues, most: int = MOST_NAMED
) -> list[Suggestion]:
    """Names that the last word of a text may be, or values that its last test may go on with; best first.

    Args:
        text: a query up to where it is typed.
        vocabulary: of the run.
        values: of its columns.
        most: of them.
    """
    if (value := _VALUE.search(text)) and (column := _column_of(value["test"], vocabulary)):
        before, typed = text[: value.start("value")], value["value"].removeprefix('"')
        found = values.beginning(column, typed, most)
        return [Suggestion(one.text, column.name, one.images, f"{before}{quoted(one.text)}") for one in found]
    word = _WORD.search(text)
    if not word or not (word["kind"] or word["name"]):
        return []
    kind, name = word["kind"] or "", (word["name"] or "").removeprefix('"')
    before = text[: word.start("kind") if kind else word.start("name")]
    names = _codes(name) if kind == f"{ERROR}:" else _names(name, kind.removesuffix(":"), vocabulary, most)
    return [
        Suggestion(name, of, images, f"{before}{kind}{quoted(name)}")
        for name, of, images in list(names)[:most]
    ]


def _column_of(test: str, vocabulary: Vocabulary) -> Column | None:
    """The column that holds texts and that a test is about; its value is not typed yet."""
    try:
        node = parse(f"{test}x")
        assert isinstance(node, Test)
        is_of_terms = node.name.kind is None and vocabulary.has_terms(node.name.text)
        column = None if is_of_terms else vocabulary.column_asked(node.name)
    except (SpecError, UnknownNameError):
        return None
    return column if column and is_text(column) and column.name != ERROR else None


def _codes(name: str) -> Iterator[tuple[str, str, int | None]]:
    yield from ((str(code), ERROR, None) for code in ErrorCode if name.upper() in code)


def _names(name: str, kind: str, vocabulary: Vocabulary, most: int) -> Iterator[tuple[str, str, int | None]]:
    """Names with their kind and their images."""
    like = vocabulary.like(name, _NAMES if kind else most)
    kinds: dict[str, dict[str, int]] = {found: {} for found in like}
    for term in vocabulary.terms:
        if term.name in kinds:
            kinds[term.name][f"tagger.{term.tagger}" if term.kind == "tag" else term.kind] = term.images
    for found, every in kinds.items():
        of = {one: n for one, n in every.items() if not kind or kind in (one, one.partition(".")[0])}
        if of:
            yield found, ", ".join(of), max(of.values())
        elif not kind:
            yield found, "column", None
