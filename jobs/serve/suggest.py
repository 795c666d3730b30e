"""What may follow in a query that is being typed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.search.language import quoted
from jobs.search.vocabulary import ERROR, MOST_NAMED, Vocabulary
from schemas.errors import ErrorCode

_NAMES = 200
"""Names that are looked at where only those of a kind are wanted."""

_WORD = re.compile(
    r'(?:(?<=\s)|(?<=\()|(?<=[\s(]-)|^-?)(?P<kind>[^\s()"<>=!~:-][^\s()"<>=!~:]*:)?(?P<name>"[^"]*|[^\s()"<>=!~:-][^\s()"<>=!~:]*)?$'
)
"""The word that a text ends with, and what is before its colon."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A name that a query may go on with.

    Attributes:
        name: as the model or the table has it.
        kind: whose it is: class, label, tagger.NAME, column, error; several with commas.
        images: that have it; None of a column.
        query: the text that was typed, with the name for its last word.
    """

    name: str
    kind: str
    images: int | None
    query: str


def suggestions(text: str, vocabulary: Vocabulary, most: int = MOST_NAMED) -> list[Suggestion]:
    """Names that the last word of a text may be, best first.

    Args:
        text: a query up to where it is typed.
        vocabulary: of the run.
        most: of them.
    """
    word = _WORD.search(text)
    if not word or not (word["kind"] or word["name"]):
        return []
    kind, name = word["kind"] or "", (word["name"] or "").removeprefix('"')
    before = text[: word.start("kind") if kind else word.start("name")]
    found = _codes(name) if kind == f"{ERROR}:" else _names(name, kind.removesuffix(":"), vocabulary, most)
    return [
        Suggestion(name, of, images, f"{before}{kind}{quoted(name)}")
        for name, of, images in list(found)[:most]
    ]


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
