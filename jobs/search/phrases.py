"""Words of a query that stand side by side and may be meant as one name, or as one value: without quotes."""

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.search.language import All, Name, Node, Not, Test, each_part, parse, quoted
from jobs.search.vocabulary import COLUMN, Column, UnknownNameError, Vocabulary

LONGEST = 5
"""Words of a phrase, at most."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words side by side.

    Attributes:
        first: a word, or a comparison with one.
        words: those that follow it.
    """

    first: Test
    words: tuple[Test, ...]

    @property
    def is_value(self) -> bool:
        """Whether it is what a column is compared with: `place=New York`."""
        return self.first.operator is not None

    @property
    def text(self) -> str:
        """The words as one name or value."""
        before = self.first.value if self.is_value else self.first.name.text
        return " ".join([before, *(word.name.text for word in self.words)])

    @property
    def name(self) -> Name:
        """It as a name with quotes."""
        first = self.first.name
        return Name(self.text, first.kind, None, is_quoted=True, start=first.start, end=self.end)

    @property
    def end(self) -> int:
        """Where in the query it ends."""
        return self.words[-1].end

    def in_quotes(self, query: str) -> str:
        """It as it is meant in a query."""
        first = self.first.name
        if self.is_value:
            return f"{query[first.start : first.end]}{self.first.operator}{quoted(self.text)}"
        return f"{first.kind}:{quoted(self.text)}" if first.kind else quoted(self.text)

    def mended(self, query: str) -> str:
        """The query with it in quotes."""
        return f"{query[: self.first.name.start]}{self.in_quotes(query)}{query[self.end :]}"


def phrases(query: str, tree: Node) -> Iterator[Phrase]:
    """Yields what may be a phrase; of those that begin with the same word the longest first."""
    for node in each_part(tree):
        if not isinstance(node, All):
            continue
        for place, part in enumerate(node.parts):
            first = part.inner if isinstance(part, Not) else part
            if isinstance(first, Test) and _may_begin(first):
                words = _following(query, first, node.parts[place + 1 : place + LONGEST])
                yield from (Phrase(first, words[:number]) for number in range(len(words), 0, -1))


def kind_of(phrase: Phrase, vocabulary: Vocabulary) -> str:
    """What has the words for its name: a class, label, tag or column; "": nothing."""
    kind = phrase.first.name.kind
    if phrase.is_value:
        return ""
    try:
        terms = vocabulary.terms_of(phrase.name) if kind is None or vocabulary.is_kind(kind) else []
    except UnknownNameError:
        return ""
    if terms:
        return terms[0].kind
    return COLUMN if kind is None and vocabulary.column_of(phrase.text) else ""


def missing_quotes(query: str, unknown: Name, vocabulary: Vocabulary) -> str:
    """What to say of a name that nothing has where it is a part of a name or a value; "": it is none."""
    around = [
        phrase
        for phrase in phrases(query, parse(query))
        if phrase.first.name.start <= unknown.start and unknown.end <= phrase.end
    ]
    for phrase in around:
        if kind := kind_of(phrase, vocabulary):
            return f"{quoted(phrase.text)} is a {kind}: put it in quotes"
    for phrase in around:
        after = [word.name for word in phrase.words if word.name.start >= unknown.start]
        column = vocabulary.column_of(
            phrase.first.name.text if phrase.is_value else phrase.first.name.kind or ""
        )
        if column and after and not any(_is_known(name, vocabulary) for name in after):
            return f"a value of several words needs quotes: {phrase.in_quotes(query)}"
    return ""


def _column_of(phrase: Phrase, vocabulary: Vocabulary) -> Column | None:
    """The column that the words may be a value of."""
    try:
        is_value = phrase.is_value or phrase.first.name.kind
        return vocabulary.column_asked(phrase.first.name) if is_value else None
    except UnknownNameError:
        return None


def _is_known(name: Name, vocabulary: Vocabulary) -> bool:
    return bool(vocabulary.terms_of(name)) or vocabulary.column_of(name.text) is not None


def _may_begin(test: Test) -> bool:
    name = test.name
    is_compared = test.operator in ("=", "!=", "~") and not test.is_quoted
    return is_compared or (test.operator is None and not name.is_quoted and name.attribute is None)


def _following(query: str, first: Test, parts: tuple[Node, ...]) -> tuple[Test, ...]:
    """The bare words right after a test."""
    words: list[Test] = []
    end = first.end
    for part in parts:
        is_word = isinstance(part, Test) and part.operator is None and part.name.kind is None
        if not isinstance(part, Test) or not is_word or part.name.is_quoted:
            break
        if query[end : part.name.start].strip():
            break
        words.append(part)
        end = part.end
    return tuple(words)
