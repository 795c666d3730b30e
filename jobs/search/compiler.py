"""Queries as SQL over an index: which images they find, and in which order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import eq, ge, gt, le, lt, ne
from typing import TypeAlias

from jobs.results.duck import quoted
from jobs.search.language import All, Name, Node, Not, Test, each_test, parse, query_error
from jobs.search.language import Any as Either
from jobs.search.language import quoted as quoted_name
from jobs.search.phrases import missing_quotes
from jobs.search.sql import Sql
from jobs.search.values import INVERSE, ValueProblem, condition, number
from jobs.search.vocabulary import (
    COLUMN,
    ERROR,
    SHORT,
    Column,
    Term,
    UnknownNameError,
    Vocabulary,
    error_codes,
)
from schemas.exceptions import QueryError

LABELLED = f"i.{ERROR} IS NULL"
"""Of an image: that it is labelled, not failed."""

BEST, ROW = "best", "row"
"""Orders that have no name of their own in a run: by what was asked for, and as in the manifest."""

ALWAYS_SHOWN = ("manifest_index", "uri", ERROR)
"""The columns that are shown of every hit, whatever is asked."""

_HOLDS = {">=": ge, "<=": le, ">": gt, "<": lt, "=": eq, "!=": ne}


@dataclass(frozen=True, slots=True)
class Word:
    """What a query asks for, of which a hit shows what it has.

    Attributes:
        name: as it was written, with its kind, without quotes and attribute.
        terms: that it stands for.
        query: it in a query.
        is_in_all: whether every hit has one of them.
    """

    name: str
    terms: tuple[Term, ...]
    query: str = ""
    is_in_all: bool = False

    @property
    def ids(self) -> str:
        """The terms in SQL: what is after `term`."""
        return _ids(self.terms)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A query in SQL.

    Attributes:
        hits: a SELECT of the rows in the manifest of the images that it finds.
        words: that it asks for.
        columns: that it compares.
        finds_failed: whether failed images may be found.
        finds_all: whether it finds every labelled image, whatever the index holds.
    """

    hits: Sql
    words: tuple[Word, ...]
    columns: tuple[Column, ...]
    finds_failed: bool
    finds_all: bool


@dataclass(frozen=True, slots=True)
class Order:
    """The order of hits.

    Attributes:
        word: whose values decide; None: a column, or none.
        value: of the word: score, count or area, summed over its terms.
        column: of images that decides; None: a word, or none.
        descending: whether the largest come first.
    """

    word: Word | None = None
    value: str = "score"
    column: Column | None = None
    descending: bool = True


@dataclass(frozen=True, slots=True)
class _Found:
    """Images that have a term: a SELECT of their rows in the manifest, each once if it is distinct."""

    select: Sql
    is_distinct: bool = False


_Piece: TypeAlias = _Found | Sql


def compile_query(query: str, vocabulary: Vocabulary) -> Compiled:
    """A query as SQL.

    Only labelled images are found, unless the query is about `error`.

    Raises:
        QueryError: with the place of what is wrong.
    """
    tree = parse(query)
    compiler = _Compiler(query, vocabulary)
    parts = tree.parts if isinstance(tree, All) else (tree,)
    pieces = [compiler.piece(part) for part in parts]
    # an image that is found has one of the terms of these
    in_all = [part for part, piece in zip(parts, pieces, strict=True) if isinstance(piece, _Found)]
    words: dict[str, Word] = {}
    columns: dict[str, Column] = {}
    for test, is_asked in each_test(tree):
        if column := compiler.column_if_any(test.name):
            columns[column.name] = column
        if is_asked and (terms := compiler.terms_if_any(test.name)):
            name, in_query = vocabulary.names_of(test.name)
            is_in_all = test in in_all or (name in words and words[name].is_in_all)
            words[name] = Word(name, tuple(terms), in_query, is_in_all)
    failed = finds_failed(tree)
    hits = _hits(pieces, finds_failed=failed)
    return Compiled(hits, tuple(words.values()), tuple(columns.values()), failed, finds_all=tree == All())


def finds_failed(tree: Node) -> bool:
    """Whether a query finds failed images too: one that is about `error` does."""
    names = (test.name for test, _ in each_test(tree))
    about = ((name.kind and name.kind.lower(), name.text.lower()) for name in names)
    return any(kind == ERROR or (text == ERROR and kind in (None, COLUMN)) for kind, text in about)


def compile_order(sort: str | None, words: Sequence[Word], vocabulary: Vocabulary) -> Order:
    """The order that is asked for: the name of a column, class or label, with "-" before it for the reverse.

    Classes come by their number of objects, labels by their score, columns ascending; `car.score` and
    `car.area` are there, too. `best`, which is also what None is, goes by the scores of what the query asks
    for, summed up; `row` as the manifest.

    Raises:
        QueryError: there is nothing of that name.
    """
    name = (sort or BEST).strip()
    reverse = name.startswith("-")
    bare = name.removeprefix("-").strip()
    named = vocabulary.column_of(bare)
    if bare == BEST and not named and (terms := tuple(chain.from_iterable(word.terms for word in words))):
        best = Word(BEST, terms, is_in_all=any(word.is_in_all for word in words))
        return Order(best, descending=not reverse)
    if (bare in (BEST, ROW) and not named) or (named and named.name == SHORT[ROW]):
        return Order(descending=reverse)
    tree = parse(bare)
    if not isinstance(tree, Test) or tree.operator:
        raise query_error(
            name, 0, len(name), "an order is one name, such as person, car.area, taken or -taken"
        )
    compiler = _Compiler(bare, vocabulary)
    if terms_ := compiler.terms_if_any(tree.name):
        attribute = vocabulary.split(tree.name)[1]
        has_count = any(term.kind == "class" for term in terms_)
        value = attribute or ("count" if has_count else "score")
        shown = vocabulary.names_of(tree.name)[0] + (f".{attribute}" if attribute else "")
        return Order(Word(shown, tuple(terms_)), value, descending=not reverse)
    if column := vocabulary.column_of(tree.name.text):
        return Order(column=column, descending=reverse)
    raise compiler.error(tree.name, vocabulary.unknown(tree.name.text))


class _Compiler:
    """Makes pieces of SQL of a query.

    Args:
        query: for messages.
        vocabulary: of the run.
    """

    def __init__(self, query: str, vocabulary: Vocabulary) -> None:
        self._query, self._vocabulary = query, vocabulary

    def piece(self, node: Node) -> _Piece:
        """The images that a part of a query is true of."""
        match node:
            case Test():
                return self._test(node)
            case Not(inner):
                where = _condition(self.piece(inner))
                return replace(where, text=f"(NOT coalesce({where.text}, false))")
            case All(parts):
                return _joined("AND", map(_condition, map(self.piece, parts))) if parts else Sql("true")
            case Either(parts):
                return _either([self.piece(part) for part in parts])

    def terms_if_any(self, name: Name) -> list[Term]:
        """The terms of a test that is about some."""
        try:
            if name.kind is not None and not self._vocabulary.is_kind(name.kind):
                return []
            return self._vocabulary.terms_of(name)
        except UnknownNameError as problem:
            raise self.error(name, problem) from None

    def column_if_any(self, name: Name) -> Column | None:
        """The column of a test that is about one."""
        return None if self.terms_if_any(name) else self._vocabulary.column_asked(name)

    def error(self, name: Name, problem: Exception, end: int | None = None) -> QueryError:
        """An error at a name, or at what is between its beginning and an end."""
        text = str(problem)
        if isinstance(problem, UnknownNameError) and (
            advice := missing_quotes(self._query, name, self._vocabulary)
        ):
            text = f"{text.partition('; ')[0]}; {advice}"
        return query_error(self._query, name.start, name.end if end is None else end, text)

    def _test(self, test: Test) -> _Piece:
        name = test.name
        terms = self.terms_if_any(name)
        text, attribute = self._vocabulary.split(name)
        column = self._vocabulary.column_asked(name)
        try:
            if name.kind and name.kind.lower() == ERROR:
                return self._error_test(test)
            if column and terms and test.operator and not attribute:
                raise ValueProblem(
                    f"{text!r} is a column and {terms[0].kind} at once; write {terms[0].query} or "
                    f"{COLUMN}:{quoted_name(text)}"
                )
            if terms:
                return self._term_test(test, terms, attribute)
            if column is None:
                raise self._vocabulary.unknown(name.text)
            return self._column_test(test, column)
        except UnknownNameError as problem:
            raise self.error(name, problem) from None
        except ValueProblem as problem:
            raise self.error(name, problem, test.end) from None

    def _error_test(self, test: Test) -> Sql:
        if test.operator:
            raise ValueProblem("what follows error: is a code, such as error:NOT_FOUND")
        if test.name.text == "*" and not test.name.is_quoted:
            return Sql(f"i.{ERROR} IS NOT NULL", needs_images=True)
        codes = error_codes(test.name.text)
        return Sql(f"i.{ERROR} IN ({', '.join('?' * len(codes))})", tuple(codes), needs_images=True)

    def _column_test(self, test: Test, column: Column) -> Sql:
        name = test.name
        if name.kind is not None and name.kind.lower() != COLUMN:
            if test.operator:
                compared = f"{quoted_name(column.name)}{test.operator}{quoted_name(test.value)}"
                raise ValueProblem(f"a colon is like =; write {compared}")
            return condition(column, "=", name.text, is_quoted=name.is_quoted)
        if test.operator:
            return condition(column, test.operator, test.value, is_quoted=test.is_quoted)
        if column.type == "BOOLEAN":
            return Sql(f"i.{quoted(column.name)}", needs_images=True)
        example = f"{self._vocabulary.query_of(column.name)}{_example(column)}"
        raise ValueProblem(f"{column.name} is a column; compare it, as in {example}")

    def _term_test(self, test: Test, terms: Sequence[Term], attribute: str | None) -> _Piece:
        operator = test.operator
        if operator is None:
            if attribute:
                name, limit = self._vocabulary.names_of(test.name)[1], 2 if attribute == "count" else 0.5
                raise ValueProblem(f"compare it, as in {name}.{attribute}>{limit}")
            return _found(terms)
        if operator == "~":
            raise ValueProblem("~ is for texts; a number is compared by >=, >, <=, <, = or !=")
        if attribute in ("score", "area"):
            limit = number(test.value, percent=True)
            terms = _with_area(terms) if attribute == "area" else terms
            if not 0 <= limit <= 1:
                raise ValueProblem(f"{test.value!r} is no {attribute}: that is from 0 to 1, or 0% to 100%")
            if operator == "!=":
                return _without(terms, f"AND {attribute} = ?::FLOAT", limit)
            return _found(terms, f"AND {attribute} {operator} ?::FLOAT", limit)
        classes = [term for term in terms if term.kind == "class"]
        if not classes:
            raise ValueProblem(
                f"{terms[0].name!r} is a {terms[0].kind}, which has a score and no number of objects: "
                f"{quoted_name(terms[0].name)}.score>0.5"
            )
        limit = number(test.value)
        if not _HOLDS[operator](0, limit):
            return _found(classes, f"AND count {operator} ?", limit)
        return _without(classes, f"AND count {INVERSE[operator]} ?", limit)


def _hits(pieces: Sequence[_Piece], *, finds_failed: bool) -> Sql:
    """The images that all pieces are true of.

    Where nothing is asked of the columns of images, these are not read: a set of what was found begins.
    """
    first = next((piece for piece in pieces if isinstance(piece, _Found)), None)
    others = [_condition(piece) for piece in pieces if piece is not first]
    if first is None or any(piece.needs_images for piece in others):
        others = [_condition(piece) for piece in pieces]
        where = _joined("AND", [Sql("true" if finds_failed else LABELLED), *others])
        return replace(where, text=f"SELECT i.manifest_index FROM images i WHERE {where.text}")
    where = _joined("AND", others) if others else Sql("true")
    source = f"(SELECT DISTINCT image AS manifest_index FROM ({first.select.text})) i"
    if first.is_distinct:
        source = f"(SELECT image AS manifest_index FROM ({first.select.text})) i"
    return Sql(
        f"SELECT i.manifest_index FROM {source} WHERE {where.text}",
        first.select.parameters + where.parameters,
    )


def _condition(piece: _Piece) -> Sql:
    """A piece as a condition on an image."""
    if isinstance(piece, Sql):
        return piece
    return Sql(f"i.manifest_index IN ({piece.select.text})", piece.select.parameters)


def _joined(word: str, conditions: Iterable[Sql]) -> Sql:
    pieces = list(conditions)
    return Sql(
        f" {word} ".join(f"({piece.text})" for piece in pieces),
        tuple(chain.from_iterable(piece.parameters for piece in pieces)),
        any(piece.needs_images for piece in pieces),
    )


def _either(pieces: Sequence[_Piece]) -> _Piece:
    """What is one of several: sets are united, which is faster than looking into each."""
    sets = [piece.select for piece in pieces if isinstance(piece, _Found)]
    others = [piece for piece in pieces if isinstance(piece, Sql)]
    united = _Found(
        Sql(
            " UNION ALL ".join(one.text for one in sets),
            tuple(chain.from_iterable(one.parameters for one in sets)),
        )
    )
    if not others:
        return united
    return _joined("OR", [_condition(united), *others] if sets else others)


def _with_area(terms: Sequence[Term]) -> list[Term]:
    classes = [term for term in terms if term.kind == "class"]
    if not classes:
        raise ValueProblem(f"{terms[0].name!r} is a {terms[0].kind}, which has no area; it has a score")
    return classes


def _found(terms: Sequence[Term], more: str = "", *parameters: float) -> _Found:
    """The images that have one of some terms, as is said in SQL."""
    select = Sql(f"SELECT image FROM found WHERE term {_ids(terms)} {more}", parameters)
    return _Found(select, is_distinct=len(terms) == 1)


def _without(terms: Sequence[Term], more: str, *parameters: float) -> Sql:
    """The labelled images that have none of some terms, as is said in SQL."""
    select = _found(terms, more).select.text
    return Sql(f"({LABELLED} AND i.manifest_index NOT IN ({select}))", parameters, needs_images=True)


def _ids(terms: Iterable[Term]) -> str:
    """What is after `term` in SQL."""
    ids = sorted(term.id for term in terms)
    return f"= {ids[0]}" if len(ids) == 1 else f"IN ({', '.join(map(str, ids))})"


def _example(column: Column) -> str:
    """What a column may be compared with."""
    value = {"VARCHAR": '="…"', "DATE": ">=2024-01-01"}.get(column.type)
    return value or (">=2024-01-01" if column.type.startswith("TIMESTAMP") else ">=1")
