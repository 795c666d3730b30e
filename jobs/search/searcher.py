"""The index of a run, opened."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path

import duckdb

from jobs.results.duck import ABOUT_QUERIES, Duck, Session, first_line, in_quotes
from jobs.results.sql import Database
from jobs.results.writing import whole_file
from jobs.search.compiler import compile_query
from jobs.search.hits import Hits
from jobs.search.index import INDEX, TABLES, About, state_of, vectors_of
from jobs.search.similar import (
    Similar,
    assert_embeddings,
    embedding_of_photo,
    embedding_of_row,
    nearest,
)
from jobs.search.vectors import Vectors
from jobs.search.vocabulary import ERROR, Column, Term, Vocabulary
from schemas.exceptions import OutputConflictError, RaylabelError, SpecError, StorageError
from schemas.words import raylabel_command
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.storage.uris import clean_uri


class _IndexDuck(Duck):
    """A DuckDB whose errors are about the file of an index, unless they are about a query.

    Args:
        file: of the index.
        again: how it is made, for messages.
    """

    def __init__(self, file: Path, again: str) -> None:
        self._about = file, again
        super().__init__()

    def _error(self, error: duckdb.Error) -> RaylabelError:
        if isinstance(error, ABOUT_QUERIES):
            return super()._error(error)
        file, again = self._about
        return StorageError(f"{file} is damaged, or no index ({first_line(error)}); {again}")


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
        self._output, self._name = output, clean_uri(output)
        self._given = file
        self._file = local = local_index(self.run, file)
        self._duck = _IndexDuck(local, self._again)
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
    def search(self, query: str) -> Iterator[Hits]:
        """The hits of a query, for a `with` block.

        Raises:
            QueryError: it is none; with the place of what is wrong.
        """
        compiled = compile_query(query, self.vocabulary)
        with self.session() as session:
            yield Hits(session, compiled, self.vocabulary, self.about)

    @cached_property
    def _vectors(self) -> Vectors | None:
        """The index of embeddings beside this one; None: there is none."""
        folder = vectors_of(self._file)
        how = again(self.run, self._given, vectors=True)
        return Vectors(folder, self.about.state, how) if folder.is_dir() else None

    def row_of(self, uri: str) -> int | None:
        """The first row in the manifest of a labelled image with some URI; None: there is none."""
        query = f"SELECT min(manifest_index) FROM images WHERE uri = ? AND {ERROR} IS NULL"
        ((row,),) = self._duck.result(query, [uri])
        return None if row is None else int(row)

    def similar(self, hits: Hits, like: str, most: int) -> list[Similar]:
        """Those of some hits that look most like a photo, the most alike first; see `Hits.narrow`.

        Args:
            hits: of a query; those of the empty one are all images.
            like: the row of an image of the run, its URI, or else a photo: a path or a URL.
            most: images, at most.

        Raises:
            SpecError: the run has no embeddings, or the row has none.
            StorageError: the photo cannot be read.
            ModelError: the run's embedder cannot be built here as it was.
        """
        assert_embeddings(self.run)
        row = int(like) if like.isdecimal() else self.row_of(like)
        if row is None:
            vector = embedding_of_photo(self.run, like)
        else:
            with Database({"": self._output}) as database:
                vector = embedding_of_row(database, row)
        among = None if hits.finds_all else hits.rows()
        found = self._vectors.nearest(vector, most, among, row) if self._vectors else None
        return nearest(self._output, vector, most, among, row) if found is None else found

    def session(self) -> AbstractContextManager[Session]:
        """A connection of its own to the tables of the index (`TABLES`), for the length of a block."""
        return self._duck.session()

    def _attach(self, file: Path) -> None:
        """Makes the tables of the file views, whatever else of this process has it open."""
        try:
            self._duck.execute(f"ATTACH {in_quotes(str(file))} AS file (READ_ONLY)")
            for table in ("about", "terms", *TABLES):
                self._duck.execute(f"CREATE VIEW {table} AS FROM file.{table}")
        except SpecError:
            raise StorageError(f"{file} is no index of raylabel; {self._again}") from None

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
        return again(self.run, self._given)

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


def local_index(run: RunDirectory, file: Path | None = None) -> Path:
    """The file of a run's index on this machine; of a bucket a copy is kept until the index changes.

    Args:
        run: the run.
        file: an index elsewhere; None: that beside the tables.

    Raises:
        StorageError: there is none, or it cannot be copied.
    """
    beside = file is None
    if file is None and run.store.is_local:
        file = Path(run.store.path(INDEX))
    if file is not None:
        if not file.is_file():
            raise StorageError(f"there is no index {file}; {again(run, None if beside else file)}")
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


def again(run: RunDirectory, file: Path | None = None, *, vectors: bool = False) -> str:
    """How an index is made, in a sentence.

    Args:
        run: whose.
        file: that it is written into; None: beside the tables.
        vectors: whether embeddings are indexed as well.
    """
    into = ["--into", str(file)] if file else []
    options = [*into, *(["--vectors"] if vectors else [])]
    return f"make it with {raylabel_command('index', clean_uri(run.store.url), *options)}"
