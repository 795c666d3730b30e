"""What a query finds: hits in an order, their number, and facets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.results.duck import MOST_ROWS, Result, Session, free_name, in_quotes, quoted
from jobs.results.plain import shortest
from jobs.search.compiler import ALWAYS_SHOWN, BEST, Compiled, Order, compile_order
from jobs.search.index import About
from jobs.search.language import quoted as quoted_name
from jobs.search.similar import Similar
from jobs.search.values import time_in
from jobs.search.vocabulary import ERROR, Term, Vocabulary

FACET_VALUES = 10
"""Values of a facet, at most."""

MOST_SPANS = 31
"""Years, months or days of a facet, at most: as many as a month has days."""

_SPANS = {"year": 4, "month": 7, "day": 10}
"""Parts of times that are counted, and how many letters of a time tell them."""

MOST_COLUMNS = 3
"""Columns whose values are shown of each hit because they are asked about, at most."""

MATCHES, SIMILARITY = "matches", "similarity"
"""What a hit has beside the columns of images; a column that is called so is told as `manifest_matches`."""

_HITS = "hits"
"""The temporary table of a query's hits."""


@dataclass(frozen=True, slots=True)
class Match:
    """What an image has of a word that was asked for.

    Attributes:
        score: the best.
        count: number of objects; None of a label or tag.
        area: of the largest object, as a share of the image; None of a label or tag.
    """

    score: float
    count: int | None
    area: float | None


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that a query finds.

    Attributes:
        manifest_index: its row in the manifest.
        uri: absolute, without credentials and query.
        error: the code, of a failed image; None of a labelled one.
        columns: the others by name: facts, best label and score, number of objects, the manifest's own.
        matches: by the words of the query that it has.
        similarity: to what was asked for, see `Similar`; None where nothing was.
        values: of the columns that are asked about and what it is sorted by, in words by their names; not
            what `matches` has, nor its row and where it is.
    """

    manifest_index: int
    uri: str
    error: str | None
    columns: dict[str, Any]
    matches: dict[str, Match]
    similarity: float | None = None
    values: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """It as JSON has it: columns beside the others."""
        own = {MATCHES: {word: asdict(match) for word, match in self.matches.items()}}
        if self.similarity is not None:
            own[SIMILARITY] = self.similarity  # type: ignore[assignment]
        columns = {
            free_name(f"manifest_{name}", self.columns) if name in (MATCHES, SIMILARITY) else name: value
            for name, value in self.columns.items()
        }
        return {
            "manifest_index": self.manifest_index,
            "uri": self.uri,
            "error": self.error,
            **columns,
            **own,
        }


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value of a facet.

    Attributes:
        value: a class, a label, a tag, or a value of a column.
        images: hits that have it.
        query: what to add to a query to see these alone.
    """

    value: str
    images: int
    query: str


class Hits:
    """What a query finds, for the length of a block of `Searcher.search`.

    Args:
        session: a connection to the index.
        compiled: the query.
        vocabulary: of the index.
        about: what the index is of.

    Attributes:
        words: that the query asks for; see `Word`.
        finds_all: whether they are every labelled image.
        compared: images that those which are alike were chosen from; None: none were.
    """

    def __init__(self, session: Session, compiled: Compiled, vocabulary: Vocabulary, about: About) -> None:
        self._session, self._vocabulary, self._about = session, vocabulary, about
        self._finds_failed = compiled.finds_failed
        self.words, self.finds_all = compiled.words, compiled.finds_all
        self._columns = compiled.columns
        self.compared: int | None = None
        hits = compiled.hits
        session.execute(f"CREATE OR REPLACE TEMP TABLE {_HITS} AS {hits.text}", hits.parameters)

    @cached_property
    def total(self) -> int:
        """The number of images."""
        return int(self._session.value(f"SELECT count(*) FROM {_HITS}"))

    @property
    def out_of(self) -> int:
        """The number of images that they were chosen from."""
        failed = self._about.failed if self._finds_failed else 0
        return self._about.labelled + failed if self.compared is None else self.compared

    def to_dict(
        self, query: str, some: Sequence[Hit], facets: Mapping[str, Sequence[FacetValue]] | None
    ) -> dict[str, Any]:
        """Some of them as JSON has them, with the query and what is counted: docs/json.md."""
        counted = {name: [asdict(value) for value in values] for name, values in (facets or {}).items()}
        return {
            "query": query,
            "images": self._about.labelled,
            "failed": self._about.failed,
            "total": self.total,
            **({} if self.compared is None else {"compared": self.compared}),
            "hits": [hit.to_dict() for hit in some],
            **({} if facets is None else {"facets": counted}),
        }

    def rows(self) -> NDArray[np.int64]:
        """The rows in the manifest of all hits, ascending."""
        result = self._session.result(f"SELECT manifest_index FROM {_HITS} ORDER BY manifest_index")
        return np.fromiter((row[0] for row in result), np.int64)

    def narrow(self, similar: Sequence[Similar]) -> None:
        """Leaves those hits that are given, most alike first."""
        self.compared = self.total
        del self.total
        self._session.execute(
            f"CREATE OR REPLACE TEMP TABLE {_HITS} AS SELECT unnest(?::BIGINT[]) AS manifest_index, "
            "unnest(?::DOUBLE[]) AS similarity",
            [[each.row for each in similar], [each.similarity for each in similar]],
        )

    def first(self, limit: int, offset: int = 0, sort: str | None = None) -> list[Hit]:
        """Some of the hits.

        Args:
            limit: how many.
            offset: after how many.
            sort: the order; see `compile_order`.

        Raises:
            QueryError: there is no such order.
        """
        part = f"LIMIT {min(limit, MOST_ROWS)} OFFSET {min(offset, MOST_ROWS)}"
        order = self._order(sort)
        keys: dict[int, Any] = dict(self._session.result(f"{_ordered(order)} {part}"))
        return self._hits(keys, self._shown(order))

    def name_of(self, column: str) -> str:
        """What a column is called where its values are shown."""
        return self._vocabulary.short_of(column)

    def all(self, sort: str | None = None, limit: int | None = None) -> Result:
        """The hits, all or so many, as rows of `images` in their order; read them before anything else."""
        return self._session.result(self._rows(sort, limit))

    def save(self, file: Path, sort: str | None = None, limit: int | None = None) -> None:
        """Writes the same rows as a Parquet file.

        Args:
            file: to write; nothing may be there.
            sort: the order; see `compile_order`.
            limit: how many at most; None: all.
        """
        self._session.execute(
            f"COPY ({self._rows(sort, limit)}) TO {in_quotes(str(file))} (FORMAT parquet, COMPRESSION zstd)"
        )

    def facets(self, most: int = FACET_VALUES) -> dict[str, list[FacetValue]]:
        """The most frequent classes, labels and tags of the hits, and values of columns with few of them.

        Args:
            most: values of each facet, at most.

        Returns:
            Values by facet: class, label, tagger.NAME, error, columns; facets without a value are not there.
            Those of times are years; where all are of one year its months, where of one month its days.
        """
        terms = {term.id: term for term in self._vocabulary.terms}
        facets: dict[str, list[FacetValue]] = {}
        # JOIN, as a hit is there once: a SEMI JOIN takes four times as long
        counts = self._session.result(
            f"SELECT term, count(*) AS images FROM found JOIN {_HITS} ON image = manifest_index "
            "GROUP BY term ORDER BY images DESC, term"
        )
        for id_, images in counts:
            values = facets.setdefault(_facet_of(terms[id_]), [])
            if len(values) < most:
                values.append(FacetValue(terms[id_].name, images, terms[id_].query))
        texts = (name for name in self._about.facets if name not in self._about.times)
        for name in (ERROR, *texts):
            rows = self._session.result(
                f"SELECT i.{quoted(name)}, count(*) AS images FROM images i JOIN {_HITS} "
                f"USING (manifest_index) WHERE i.{quoted(name)} IS NOT NULL GROUP BY 1 "
                f"ORDER BY images DESC, 1 LIMIT {most}"
            )
            facets |= self._facet(name, rows)
        for name in self._about.times:
            facets |= self._facet(name, self._spans(name))
        return facets

    def _facet(self, name: str, counts: Iterable[tuple[Any, int]]) -> dict[str, list[FacetValue]]:
        """The facet of a column, if the hits have values of it."""
        values = [FacetValue(_text(value), images, self._equal(name, value)) for value, images in counts]
        return {name: values} if values else {}

    def _spans(self, name: str) -> list[tuple[str, int]]:
        """Years and how many hits are of each; where all are of one year its months, or the days of one."""
        time = time_in(f"i.{quoted(name)}")
        times = (
            f"(SELECT {time} AS time FROM images i JOIN {_HITS} USING (manifest_index) "
            f"WHERE year({time}) BETWEEN 1 AND 9999)"
        )
        ((first, last),) = self._session.result(f"SELECT min(time)::VARCHAR, max(time)::VARCHAR FROM {times}")
        if first is None:
            return []
        span, letters = next(
            (span, letters)
            for span, letters in _SPANS.items()
            if span == "day" or first[:letters] != last[:letters]
        )
        counts = (
            f"SELECT date_trunc('{span}', time) AS start, count(*) AS images FROM {times} GROUP BY 1 "
            f"ORDER BY images DESC, 1 LIMIT {MOST_SPANS}"
        )
        return list(
            self._session.result(f"SELECT left(start::VARCHAR, {letters}), images FROM ({counts}) ORDER BY 1")
        )

    def _equal(self, name: str, value: object) -> str:
        """A test of a column in a query, told apart from a class or label of that name."""
        return f"{self._vocabulary.query_of(name)}={quoted_name(_text(value))}"

    def _order(self, sort: str | None) -> Order | None:
        """The order of the hits; None: by how alike they are."""
        if self.compared is not None and sort is None:
            return None
        return compile_order(sort, self.words, self._vocabulary)

    def _shown(self, order: Order | None) -> "_Shown":
        """What is shown of a hit in an order beside its matches."""
        asked = [order.column] if order and order.column else []
        names = dict.fromkeys(
            column.name for column in (*asked, *self._columns) if column.name not in ALWAYS_SHOWN
        )
        columns = {self.name_of(name): name for name in list(names)[:MOST_COLUMNS]}
        word = order.word if order else None
        if order is None or word is None or word.name == BEST:
            return _Shown(columns)
        has_match = any(word.terms == one.terms for one in self.words) and order.value != "area"
        return _Shown(columns) if has_match else _Shown(columns, word.name, order.value)

    def _rows(self, sort: str | None, limit: int | None) -> str:
        """The rows of images of the hits in their order, in SQL."""
        ordered = f"{_ordered(self._order(sort))} {'' if limit is None else f'LIMIT {min(limit, MOST_ROWS)}'}"
        similar = join = ""
        if self.compared is not None:
            name = free_name(SIMILARITY, (column.name for column in self._vocabulary.columns))
            similar = f", {_HITS}.similarity AS {quoted(name)}"
            join = f"JOIN {_HITS} ON {_HITS}.manifest_index = images.manifest_index"
        return (
            f"SELECT images.*{similar} "
            f"FROM (SELECT manifest_index, row_number() OVER () AS place FROM ({ordered})) AS ordered "
            f"JOIN images ON images.manifest_index = ordered.manifest_index {join} ORDER BY ordered.place"
        )

    def _similarities(self) -> dict[int, float]:
        """How like what was asked for each hit is; nothing where nothing was."""
        return dict(self._session.result(f"FROM {_HITS}")) if self.compared is not None else {}

    def _hits(self, indexes: Mapping[int, Any], shown: "_Shown") -> list[Hit]:
        """Hits by their rows, in that order, with what each is sorted by."""
        if not indexes:
            return []
        # joined, as a list of numbers to look into takes five times as long
        these = f"(VALUES {', '.join(f'({index})' for index in indexes)}) AS these (number)"
        matches: dict[int, dict[str, Match]] = {index: {} for index in indexes}
        for word in self.words:
            found = self._session.result(
                f"SELECT image, max(score), sum(count), max(area) FROM {these} "
                f"JOIN found ON image = number WHERE term {word.ids} GROUP BY image"
            )
            for image, score, number, area in found:
                size = None if area is None else shortest(area)
                matches[image][word.name] = Match(shortest(score), number and int(number), size)
        result = self._session.result(
            f"SELECT images.* FROM {these} JOIN images ON images.manifest_index = these.number"
        )
        names = result.names
        rows = {values[0]: dict(zip(names, values, strict=True)) for values in result.plain_rows()}
        similarities = self._similarities()
        return [
            _hit(rows[index], matches[index], similarities.get(index), shown.of(rows[index], key))
            for index, key in indexes.items()
        ]


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is shown of a hit beside its matches.

    Attributes:
        columns: names of columns of images by what they are called there.
        word: that hits are sorted by, if it is shown; "": none.
        value: of the word.
    """

    columns: dict[str, str]
    word: str = ""
    value: str = ""

    def of(self, row: Mapping[str, Any], key: float | None) -> dict[str, str]:
        """The values of a row of images that is sorted by a key, in words."""
        values = {self.word: _amount(self.value, key)} if self.word else {}
        return values | {shown: _in_words(row[name]) for shown, name in self.columns.items()}


def _amount(value: str, amount: float | None) -> str:
    """A score, an area or a number of objects in words."""
    if amount is None:
        return ""
    return {"score": f"{amount:.2f}", "area": f"{amount:.0%}"}.get(value, f"{amount:.0f}")


def _in_words(value: object) -> str:
    return "" if value is None else _text(value)


def _ordered(order: Order | None) -> str:
    """The hits in their order, and what each is sorted by."""
    if order is None:
        return f"SELECT manifest_index, similarity FROM {_HITS} ORDER BY similarity DESC, manifest_index"
    direction = "DESC" if order.descending else "ASC"
    if order.column:
        key = f"i.{quoted(order.column.name)}"
        keys = [f"{key} {direction} NULLS LAST", "manifest_index"]
        if order.column.type == "VARCHAR":  # a CSV manifest has numbers as texts, and "" for no value
            key = f"nullif({key}, '')"
            keys[0] = f"{key} {direction} NULLS LAST"
            keys.insert(0, f"TRY_CAST({key} AS DOUBLE) {direction} NULLS LAST")
        return (
            f"SELECT manifest_index, NULL FROM {_HITS} JOIN images i USING (manifest_index) "
            f"ORDER BY {', '.join(keys)}"
        )
    if order.word is None:
        return f"SELECT manifest_index, NULL FROM {_HITS} ORDER BY manifest_index {direction}"
    single = len(order.word.terms) == 1
    key = f"f.{order.value}" if single else f"sum(f.{order.value})"
    key = f"coalesce({key}, 0)" if order.value == "count" else key  # none is a number of objects, too
    group = "" if single else "GROUP BY manifest_index"
    join = "JOIN" if order.word.is_in_all else "LEFT JOIN"
    return (
        f"SELECT manifest_index, {key} FROM {_HITS} {join} found f ON image = manifest_index "
        f"AND term {order.word.ids} {group} ORDER BY {key} {direction} NULLS LAST, manifest_index"
    )


def _hit(
    row: dict[str, Any], matches: dict[str, Match], similarity: float | None, values: dict[str, str]
) -> Hit:
    index, uri, error = (row.pop(name) for name in ("manifest_index", "uri", ERROR))
    return Hit(index, uri, error, row, matches, similarity, values)


def _facet_of(term: Term) -> str:
    return f"tagger.{term.tagger}" if term.kind == "tag" else term.kind


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
