"""The index of a run, opened: queries, their hits, and the facets of these."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs.results.duck import Duck, Result, Session, in_quotes, quoted
from jobs.results.plain import shortest
from jobs.results.writing import whole_file
from jobs.search.compiler import Compiled, Order, compile_order, compile_query
from jobs.search.index import INDEX, TABLES, About, state_of
from jobs.search.language import quoted as quoted_name
from jobs.search.vocabulary import ERROR, Column, Term, Vocabulary
from schemas.exceptions import OutputConflictError, SpecError, StorageError
from schemas.words import raylabel_command
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.storage.uris import clean_uri

FACET_VALUES = 10
"""Values of a facet, at most."""

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
    """

    manifest_index: int
    uri: str
    error: str | None
    columns: dict[str, Any]
    matches: dict[str, Match]

    def to_dict(self) -> dict[str, Any]:
        """It as JSON has it: columns beside the others."""
        matches = {word: asdict(match) for word, match in self.matches.items()}
        return {
            "manifest_index": self.manifest_index,
            "uri": self.uri,
            "error": self.error,
            **self.columns,
            "matches": matches,
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


class Searcher:
    """The index of a run, for a `with` block; safe to use from several threads.

    Args:
        output: the run directory.
        file: the index; None: that beside the tables, of a bucket a copy on this machine.

    Attributes:
        run: the run.
        about: what the index is of.
        vocabulary: the names that queries may have.

    Raises:
        StorageError: there is no run, no index, or it cannot be read.
        OutputConflictError: the index is of another run, or of this one before it changed.
    """

    def __init__(self, output: str, file: Path | None = None) -> None:
        self.run: RunDirectory = find_run(output)
        self._name = clean_uri(output)
        local = local_index(self.run, file)
        self._duck = Duck()
        try:
            self._attach(local)
            self.about = self._read_about(local)
            self.vocabulary = self._read_vocabulary()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Searcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._duck.close()

    @contextmanager
    def search(self, query: str) -> Iterator["Hits"]:
        """The hits of a query, for a `with` block.

        Raises:
            QueryError: it is none; with the place of what is wrong.
        """
        compiled = compile_query(query, self.vocabulary)
        with self.session() as session:
            yield Hits(self, session, compiled)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connection of its own to the tables of the index (`TABLES`), for the length of a block."""
        with self._duck.session() as session:
            yield session

    def _attach(self, file: Path) -> None:
        """Makes the tables of the file views, whatever else of this process has it open."""
        try:
            self._duck.execute(f"ATTACH {in_quotes(str(file))} AS file (READ_ONLY)")
            for table in ("about", "terms", *TABLES):
                self._duck.execute(f"CREATE VIEW {table} AS FROM file.{table}")
        except SpecError as error:
            wrong = str(error).partition("\n")[0]
            raise StorageError(f"{file} is no index that can be read ({wrong}); {self._again}") from None

    def _read_about(self, file: Path) -> About:
        """What the index is of; refuses one that is not of the run as it is."""
        try:
            ((text,),) = self._duck.result("SELECT text FROM about")
            about = About.parse(text)
        except (ValueError, LookupError, TypeError, SpecError):
            raise StorageError(f"{file} is no index of this version of raylabel; {self._again}") from None
        if about.run_id != self.run.record.id:
            raise OutputConflictError(f"{file} is an index of another run than {self._name}; {self._again}")
        if about.state != state_of(self.run):
            raise OutputConflictError(
                f"{file} is older than the tables of {self._name}, which have changed; {self._again}"
            )
        return about

    @property
    def _again(self) -> str:
        return again(self.run)

    def _read_vocabulary(self) -> Vocabulary:
        terms = [
            Term(id_, kind, tagger, name, images)
            for id_, kind, tagger, name, images in self._duck.result(
                "SELECT term, kind, tagger, name, images FROM terms ORDER BY term"
            )
        ]
        carried = set(self.about.carried)
        columns = [
            Column(row["column_name"], row["column_type"], row["column_name"] in carried)
            for row in self._duck.rows("DESCRIBE images")
        ]
        return Vocabulary(terms, columns, self.about.taggers)


class Hits:
    """What a query finds, for the length of a block of `Searcher.search`.

    Args:
        searcher: the index.
        session: a connection to it.
        compiled: the query.

    Attributes:
        words: that the query asks for; see `Word`.
    """

    def __init__(self, searcher: Searcher, session: Session, compiled: Compiled) -> None:
        self._searcher, self._session = searcher, session
        self.words = compiled.words
        hits = compiled.hits
        session.execute(f"CREATE OR REPLACE TEMP TABLE {_HITS} AS {hits.text}", hits.parameters)

    @cached_property
    def total(self) -> int:
        """The number of images."""
        return int(self._session.value(f"SELECT count(*) FROM {_HITS}"))

    def first(self, limit: int, offset: int = 0, sort: str | None = None) -> list[Hit]:
        """Some of the hits.

        Args:
            limit: how many.
            offset: after how many.
            sort: the order; see `compile_order`.

        Raises:
            QueryError: there is no such order.
        """
        order = compile_order(sort, self.words, self._searcher.vocabulary)
        rows = list(self._session.result(f"{_ordered(order)} LIMIT {limit} OFFSET {offset}"))
        return self._hits([row[0] for row in rows])

    def all(self, sort: str | None = None, limit: int | None = None) -> Result:
        """The hits, all or so many, as rows of `images` in their order; read them before anything else."""
        order = compile_order(sort, self.words, self._searcher.vocabulary)
        return self._session.result(_rows(order, limit))

    def save(self, file: Path, sort: str | None = None, limit: int | None = None) -> None:
        """Writes the same rows as a Parquet file.

        Args:
            file: to write; nothing may be there.
            sort: the order; see `compile_order`.
            limit: how many at most; None: all.
        """
        order = compile_order(sort, self.words, self._searcher.vocabulary)
        self._session.execute(
            f"COPY ({_rows(order, limit)}) TO {in_quotes(str(file))} (FORMAT parquet, COMPRESSION zstd)"
        )

    def facets(self, most: int = FACET_VALUES) -> dict[str, list[FacetValue]]:
        """The most frequent classes, labels and tags of the hits, and values of columns with few of them.

        Args:
            most: values of each facet, at most.

        Returns:
            Values by facet: class, label, tagger.NAME, error, columns; facets without a value are not there.
        """
        terms = {term.id: term for term in self._searcher.vocabulary.terms}
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
        for name in (ERROR, *self._searcher.about.facets):
            rows = self._session.result(
                f"SELECT {quoted(name)}, count(*) AS images FROM images JOIN {_HITS} "
                f"USING (manifest_index) WHERE {quoted(name)} IS NOT NULL GROUP BY 1 ORDER BY images DESC, 1 "
                f"LIMIT {most}"
            )
            if values := [FacetValue(_text(value), images, _equal(name, value)) for value, images in rows]:
                facets[name] = values
        return facets

    def _hits(self, indexes: Sequence[int]) -> list[Hit]:
        """Hits by their rows, in that order."""
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
            for image, score, count, area in found:
                size = None if area is None else shortest(area)
                matches[image][word.name] = Match(shortest(score), count and int(count), size)
        result = self._session.result(f"SELECT images.* FROM {these} JOIN images ON manifest_index = number")
        names = result.names
        rows = {values[0]: dict(zip(names, values, strict=True)) for values in result.plain_rows()}
        return [_hit(rows[index], matches[index]) for index in indexes]


def local_index(run: RunDirectory, file: Path | None = None) -> Path:
    """The file of a run's index on this machine; of a bucket a copy is kept until the index changes.

    Args:
        run: the run.
        file: an index elsewhere; None: that beside the tables.

    Raises:
        StorageError: there is none, or it cannot be copied.
    """
    if file is None and run.store.is_local:
        file = Path(run.store.path(INDEX))
    if file is not None:
        if not file.is_file():
            raise StorageError(f"there is no index {file}; {again(run)}")
        return file
    version = run.store.version(INDEX)
    if version is None:
        raise StorageError(f"there is no index {clean_uri(run.store.url)}/{INDEX}; {again(run)}")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "raylabel", "indexes")
    name = hashlib.sha256(run.store.url.encode()).hexdigest()[:16]
    copy = folder / f"{name}-{hashlib.sha256(version.encode()).hexdigest()[:16]}.duckdb"
    if not copy.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(copy) as temporary:
            run.store.get(INDEX, temporary)
        for older in folder.glob(f"{name}-*.duckdb"):
            if older != copy:
                older.unlink(missing_ok=True)
    return copy


def again(run: RunDirectory) -> str:
    """How an index is made, in a sentence."""
    return f"make it with {raylabel_command('index', clean_uri(run.store.url))}"


def _ordered(order: Order) -> str:
    """The hits in their order."""
    direction = "DESC" if order.descending else "ASC"
    if order.column:
        key = f"i.{quoted(order.column.name)}"
        return (
            f"SELECT manifest_index FROM {_HITS} JOIN images i USING (manifest_index) "
            f"ORDER BY {key} {direction} NULLS LAST, manifest_index"
        )
    if order.word is None:
        return f"SELECT manifest_index FROM {_HITS} ORDER BY manifest_index {direction}"
    single = len(order.word.terms) == 1
    key = f"f.{order.value}" if single else f"sum(f.{order.value})"
    group = "" if single else "GROUP BY manifest_index"
    join = "JOIN" if order.word.is_in_all else "LEFT JOIN"
    return (
        f"SELECT manifest_index FROM {_HITS} {join} found f ON image = manifest_index "
        f"AND term {order.word.ids} {group} ORDER BY {key} {direction} NULLS LAST, manifest_index"
    )


def _rows(order: Order, limit: int | None) -> str:
    """The rows of images of hits in their order."""
    ordered = f"{_ordered(order)} {'' if limit is None else f'LIMIT {limit}'}"
    return (
        f"SELECT images.* FROM (SELECT manifest_index, row_number() OVER () AS place FROM ({ordered})) "
        "JOIN images USING (manifest_index) ORDER BY place"
    )


def _hit(row: dict[str, Any], matches: dict[str, Match]) -> Hit:
    index, uri, error = (row.pop(name) for name in ("manifest_index", "uri", ERROR))
    return Hit(index, uri, error, row, matches)


def _facet_of(term: Term) -> str:
    return f"tagger.{term.tagger}" if term.kind == "tag" else term.kind


def _equal(name: str, value: object) -> str:
    return f"{quoted_name(name)}={quoted_name(_text(value))}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
