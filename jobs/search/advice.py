"""What to say of a query that finds nothing, or something else than was meant."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.search.column_values import ColumnValues
from jobs.search.language import Node, Test, each_test, parse, quoted
from jobs.search.phrases import kind_of, phrases
from jobs.search.values import is_text
from jobs.search.vocabulary import COLUMN, ERROR, Column, Vocabulary, close_to, nothing_like


@dataclass(frozen=True, slots=True)
class Advice:
    """What to say of a query.

    Attributes:
        text: what there is, in a sentence without its full stop.
        query: the one that may be meant; "": none.
    """

    text: str
    query: str = ""


def advice_on(
    query: str, vocabulary: Vocabulary, values: ColumnValues, *, finds_nothing: bool
) -> list[Advice]:
    """What to say of a query that can be answered.

    Args:
        query: as it was given.
        vocabulary: of the run.
        values: of its columns.
        finds_nothing: whether no image is found: then values that no image has are named as well.
    """
    tree = parse(query)
    advice = list(_names(query, tree, vocabulary))
    if finds_nothing:
        advice += _values(query, tree, vocabulary, values)
    return advice


def _names(query: str, tree: Node, vocabulary: Vocabulary) -> Iterator[Advice]:
    """Of words side by side that are a name together."""
    end = 0
    for phrase in phrases(query, tree):
        if phrase.first.name.start >= end and (kind := kind_of(phrase, vocabulary)):
            end = phrase.end
            yield Advice(f"{quoted(phrase.text)} is a {kind}: put it in quotes", phrase.mended(query))


def _values(query: str, tree: Node, vocabulary: Vocabulary, values: ColumnValues) -> Iterator[Advice]:
    """Of values that no image has."""
    together: set[Test] = set()
    for phrase in phrases(query, tree):
        compared = _compared(phrase.first, vocabulary)
        if compared and phrase.first not in together and values.has(compared[0], phrase.text):
            together.add(phrase.first)
            text = f"{compared[0].name} has the value {quoted(phrase.text)}: put it in quotes"
            yield Advice(text, phrase.mended(query))
    for test, is_asked in each_test(tree):
        compared = _compared(test, vocabulary)
        if is_asked and compared and test not in together and not values.has(*compared):
            yield _no_such_value(query, test, compared, vocabulary, values.likely(*compared))


def _no_such_value(
    query: str, test: Test, compared: tuple[Column, str], vocabulary: Vocabulary, likely: Sequence[str]
) -> Advice:
    """That no image has a value, with what may be meant."""
    column, text = compared
    what, close = f"no image has {column.name}", close_to(text, likely)
    if not close:
        return Advice(nothing_like(what, text, likely) if likely else f"{what} {text!r}")
    meant = f"{vocabulary.query_of(column.name)}={quoted(close[0])}"
    return Advice(nothing_like(what, text, likely), query[: test.name.start] + meant + query[test.end :])


def _compared(test: Test, vocabulary: Vocabulary) -> tuple[Column, str] | None:
    """The column that holds texts, and the value that a test asks of it; None: it is about something else."""
    name, column = test.name, vocabulary.column_asked(test.name)
    if column is None or column.name == ERROR or not is_text(column):
        return None
    is_after_colon = name.kind is not None and name.kind.lower() != COLUMN
    text, is_quoted = (name.text, name.is_quoted) if is_after_colon else (test.value, test.is_quoted)
    is_equal = test.operator is None if is_after_colon else test.operator == "="
    return (column, text) if is_equal and (is_quoted or "*" not in text) else None
