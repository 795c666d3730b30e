"""The index of a run, opened."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path

import duckdb

from jobs.results.duck import ABOUT_QUERIES, Duck, Session, first_line, in_quotes
from jobs.results.sql import Database
from jobs.results.text import as_path, short_uris
from jobs.results.writing import whole_file
from jobs.search.advice import Advice, advice_on
from jobs.search.column_values import ColumnValues
from jobs.search.compiler import compile_query
from jobs.search.hits import Hits
from jobs.search.index import INDEX, TABLES, About, state_of, vectors_of
from jobs.search.similar import (
    LIKE_ALLOWED,
    Similar,
    TextVectors,
    Vector,
    assert_embeddings,
    embedding_of_photo,
    embedding_of_row,
    nearest,
)
from jobs.search.vectors import Vectors
from jobs.search.vocabulary import ERROR, MOST_NAMED, Column, Term, Vocabulary
from schemas.exceptions import OutputConflictError, RaylabelError, SpecError, StorageError
from schemas.words import raylabel_command
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.printable import one_line, short_line
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
        values: that its columns have.
        file: that is open, on this machine.
        stamp: tells it from another one of that name.

    Raises:
        StorageError: there is no run, no index, or it cannot be read.
        OutputConflictError: the index is of another run, or of this one before it changed.
    """

    def __init__(self, output: str, file: Path | None = None) -> None:
        self.run: RunDirectory = find_run(output)
        self._output, self._name = output, clean_uri(output)
        self._given = file
        self.file = local = local_index(self.run, file)
        self.stamp = stamp_of(local)
        self._duck = _IndexDuck(local, self._again)
        self._text_vectors = TextVectors(self.run)
        try:
            self._attach(local)
            self.about = self._read_about(local)
            self.vocabulary = self._read_vocabulary()
            self.values = ColumnValues(self.session)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Searcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, and ends what encodes texts."""
        self._duck.close()
        self._text_vectors.close()

    @contextmanager
    def search(self, query: str) -> Iterator[Hits]:
        """The hits of a query, for a `with` block.

        Raises:
            QueryError: it is none; with the place of what is wrong.
        """
        compiled = compile_query(query, self.vocabulary)
        with self.session() as session:
            yield Hits(session, compiled, self.vocabulary, self.about)

    def advice(self, query: str, hits: Hits) -> list[Advice]:
        """What to say of a query to who may have meant something else."""
        return advice_on(query, self.vocabulary, self.values, finds_nothing=hits.total == 0)

    @cached_property
    def _vectors(self) -> Vectors | None:
        """The index of embeddings beside this one; None: there is none."""
        folder = vectors_of(self.file)
        how = again(self.run, self._given, vectors=True)
        return Vectors(folder, self.about.state, how) if folder.is_dir() else None

    def row_of(self, uri: str) -> int | None:
        """The first row in the manifest of a labelled image with some URI; None: there is none."""
        query = f"SELECT min(manifest_index) FROM images WHERE uri = ? AND {ERROR} IS NULL"
        ((row,),) = self._duck.result(query, [uri])
        return None if row is None else int(row)

    def row_named(self, name: str) -> int | None:
        """The row of the image whose URI ends with a name, as `short_uris` has it; None: there is none.

        Raises:
            SpecError: several images are called so.
        """
        parts = [re.escape(part) for part in name.removeprefix("…/").split("…")]
        pattern = re.compile(f"(?:.*/)?{'.*'.join(parts)}", re.DOTALL)
        end = max(name.rpartition("/")[2].split("…"), key=len)
        found: dict[str, int] = {}
        query = "SELECT uri, manifest_index FROM images WHERE contains(uri, ?) ORDER BY manifest_index"
        for uri, row in self._duck.result(query, [end]):
            if len(found) <= MOST_NAMED and pattern.fullmatch(one_line(as_path(uri))):
                found.setdefault(uri, int(row))
        if len(found) > 1:
            shown = zip(found.values(), short_uris(found, 60), strict=True)
            rows = [f"{row} ({short})" for row, short in shown][:MOST_NAMED]
            more = ", …" if len(found) > MOST_NAMED else ""
            raise SpecError(
                f"--like {short_line(name)}: several images of the run are called so, in rows "
                f"{', '.join(rows)}{more}; name one by its row"
            )
        return next(iter(found.values()), None)

    def _row_like(self, like: str) -> int | None:
        """The row of the image of the run that is meant; None: it is a photo."""
        if not like.strip():
            raise SpecError(f"--like is empty. {LIKE_ALLOWED}")
        if like.isdecimal():
            return int(like)
        row = self.row_of(like)
        if row is None and "://" not in like:
            row = self.row_of(os.path.abspath(like))
            if row is None and not os.path.exists(like):
                row = self.row_named(like)
                if row is None:
                    what = "there is no such file, and no image of the run is called so"
                    raise StorageError(f"--like {short_line(like)}: {what}. {LIKE_ALLOWED}")
        return row

    def similar(self, hits: Hits, like: str, most: int) -> list[Similar]:
        """Those of some hits that look most like a photo, the most alike first; see `Hits.narrow`.

        Args:
            hits: of a query; those of the empty one are all images.
            like: the row of an image of the run, its URI, a photo (a path or a URL), or the name of an image
                of the run as it is shown.
            most: images, at most.

        Raises:
            SpecError: the run has no embeddings, or the row has none, or several images are meant.
            StorageError: the photo cannot be read.
            ModelError: the run's embedder cannot be built here as it was.
        """
        assert_embeddings(self.run)
        row = self._row_like(like)
        if row is None:
            vector = embedding_of_photo(self.run, like)
        else:
            with Database({"": self._output}) as database:
                vector = embedding_of_row(database, row)
        return self._nearest(hits, vector, most, row)

    @property
    def takes_texts(self) -> bool:
        """Whether the run's images can be compared with texts."""
        embedder = self.run.record.models.get("embedder")
        return embedder is not None and embedder.takes_texts and "embeddings" in self.run.tables.names

    def similar_to_text(self, hits: Hits, text: str, most: int) -> list[Similar]:
        """Those of some hits that are most like what a text says, the most alike first; see `similar`.

        Raises:
            SpecError: the run has no embeddings, or there is no text.
            ModelError: the run's embedder has no half for texts, or cannot be built here as it was.
        """
        assert_embeddings(self.run)
        return self._nearest(hits, self._text_vectors(text), most)

    def _nearest(self, hits: Hits, vector: Vector, most: int, row: int | None = None) -> list[Similar]:
        """Those of some hits whose embeddings are nearest to a vector; without the one in `row`."""
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


def stamp_of(file: Path) -> tuple[int, int, int] | None:
    """What tells a file from another one of its name; None: it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


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
