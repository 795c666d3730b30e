"""Making the index of a run: `raylabel index`.

What is found is sorted by term within each `CHUNK_ROWS` rows of the manifest: of each chunk
a query reads only the blocks with its terms.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from jobs.results.duck import in_quotes, quoted
from jobs.results.sql import Database
from jobs.results.status import unfinished
from jobs.results.writing import whole_file
from jobs.search.index import (
    FACTS,
    INDEX,
    MIN_LABEL_SCORE,
    TABLES,
    VERSION,
    About,
    is_index,
    state_of,
    terms_of,
    vectors_of,
)
from jobs.search.similar import assert_embeddings
from jobs.search.values import is_time, time_in
from jobs.search.vectors import assert_lance, assert_replaceable, in_words, is_older, write_vectors
from jobs.search.vocabulary import ERROR
from schemas.exceptions import OutputConflictError, ReconcileError, SpecError, StorageError
from schemas.tables import carried_names, fact_fields
from schemas.words import counted, raylabel_command
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.printable import printable
from workers.process.leftovers import temporary_folder
from workers.process.streams import print_error
from workers.storage.uris import clean_uri

CHUNK_ROWS = 500_000
"""Rows of the manifest whose findings are sorted together."""

MOST_VALUES = 100
"""Different texts in a column whose values are facets, at most."""

PROGRESS_S = 2.0
"""Seconds from one line of progress to the next."""

_QUERY = "?"
"""DuckDB takes what follows it in a path for a query, and puts the log of a file that it writes elsewhere.
Reading such a file works."""

_KNOWN_TAG = (
    "LEFT JOIN known ON kind = CASE tags.tagger WHEN 'classifier' THEN 'label' ELSE 'tag' END "
    "AND known.tagger = CASE tags.tagger WHEN 'classifier' THEN '' ELSE tags.tagger END AND name = label"
)
"""What leads from a row of tags to its term."""

_BUILT = "built"
"""What the new file is called in SQL."""


def index_run(
    output: str, into: Path | None = None, min_label_score: float = MIN_LABEL_SCORE, *, vectors: bool = False
) -> None:
    """Makes the index of a run, with `vectors` that of its embeddings as well, and says what is in them.

    Raises:
        SpecError: there are no embeddings, or Lance is not installed, or the run is in a bucket and `into` is
            not given.
        RaylabelError: see `make_index`.
    """
    run = find_run(output)
    if vectors:
        assert_vectors(run, into)
        assert_replaceable(vectors_of(into or Path(output, INDEX)))
    if note := unfinished(run):
        print_error(f"note: {note}")
    began = time.monotonic()
    about, name = make_index(output, into, min_label_score)
    images = counted(about.labelled, "image")
    failed = f" and {about.failed:,} failed" if about.failed else ""
    print(f"{images}{failed} in {time.monotonic() - began:.1f} s: {printable(name)}")
    folder = vectors_of(Path(name))
    if not vectors and folder.is_dir() and is_older(folder, about.state):
        print_error(f"note: {folder} is older than the tables: --vectors makes it again")
    if vectors:
        began = time.monotonic()
        rows = make_vectors(output, folder, about.state)
        print(f"{in_words(rows)} in {time.monotonic() - began:.1f} s: {printable(str(folder))}")


def make_index(
    output: str, into: Path | None = None, min_label_score: float = MIN_LABEL_SCORE
) -> tuple[About, str]:
    """Makes the index of a run, in place of an older one.

    Args:
        output: the run directory.
        into: the file to write; None: `INDEX` in the run directory; that of a bucket is made here, and put.
        min_label_score: of a label beside the best one that an image is found by.

    Returns:
        What is in it, and where it is.

    Raises:
        SpecError: the file has another ending than `INDEX`.
        StorageError: there is no run, or a file cannot be read or written.
        DamagedFileError: a file of the run is damaged.
        OutputConflictError: the run changed meanwhile.
    """
    with Database({"": output}) as database, _file_of(database.runs[""], into) as (file, name):
        run = database.runs[""]
        state = state_of(run)
        about = _Builder(database, run, file, min_label_score).build(state)
        if state_of(run) != state:
            raise OutputConflictError(
                f"{clean_uri(output)} changed while its index was made; nothing is written. When the job has "
                f"ended: {raylabel_command('index', clean_uri(output))}"
            )
    return about, name


def assert_vectors(run: RunDirectory, into: Path | None) -> None:
    """Refuses to index embeddings where that cannot be; see `index_run`."""
    assert_lance()
    assert_embeddings(run)
    if into is None and not run.store.is_local:
        raise SpecError(
            "--vectors of a run in a bucket are made on this machine: name a place for both with --into FILE"
        )


def make_vectors(output: str, folder: Path, state: str) -> int:
    """Makes the index of a run's embeddings, in place of an older one; returns their number.

    Raises:
        RaylabelError: see `write_vectors`.
    """
    assert_replaceable(folder)
    width = find_run(output).tables.embedding_width or 0
    with temporary_folder(f".{folder.name}.", folder.parent) as work:
        rows = write_vectors(output, work / "new", state, width)
        if folder.exists():
            os.rename(folder, work / "old")
        os.rename(work / "new", folder)
    return rows


@contextmanager
def _file_of(run: RunDirectory, into: Path | None) -> Iterator[tuple[Path, str]]:
    """A name for a new file, whose content gets its place when the block ends without an exception."""
    if into is None and not run.store.is_local:
        with temporary_folder("raylabel-index-") as folder:
            yield folder / INDEX, f"{clean_uri(run.store.url)}/{INDEX}"
            run.store.put(INDEX, folder / INDEX)
        return
    target = into or Path(run.store.path(INDEX))
    with whole_file(target, [Path(INDEX).suffix]) as file:
        if into and not is_index(into):
            raise StorageError(
                f"cannot write {into}: it exists, and is no index that can be read; move or delete it, or "
                "name another file"
            )
        if _QUERY not in os.path.realpath(file):
            yield file, str(target)
            return
        with temporary_folder("raylabel-index-") as folder:
            yield folder / INDEX, str(target)
            shutil.move(folder / INDEX, file)


class _Builder:
    """Makes an index of a run's tables.

    Args:
        database: with the run, unnamed.
        run: the run.
        file: to write; nothing is there.
        min_label_score: see `MIN_LABEL_SCORE`.
    """

    def __init__(self, database: Database, run: RunDirectory, file: Path, min_label_score: float) -> None:
        self._database, self._run, self._file = database, run, file
        self._min_label_score = min_label_score
        columns = {row["column_name"]: row["column_type"] for row in database.rows("DESCRIBE labels")}
        manifest = pa.schema([(name, pa.null()) for name in run.record.manifest_columns])
        in_labels, in_errors = (
            carried_names(manifest, table, run.record.facts) for table in ("labels", "errors")
        )
        self._carried = {name: columns[name] for name in in_labels.values()}
        self._in_errors = {in_labels[name]: in_errors[name] for name in manifest.names}
        self._facts = {field.name: columns[field.name] for field in fact_fields(run.record.facts)}
        self._columns = {name: columns[name] for name in FACTS} | self._facts | self._carried

    def build(self, state: str) -> About:
        """Writes all of it."""
        self._database.execute(f"ATTACH {in_quotes(str(self._file))} AS {_BUILT}")
        try:
            self._create()
            self._fill()
            self._count_terms()
            about = self._about(state)
            self._database.execute(f"CREATE TABLE {_BUILT}.about (text VARCHAR)")
            self._database.execute(f"INSERT INTO {_BUILT}.about VALUES (?)", [about.to_json()])
            self._database.execute(f"CHECKPOINT {_BUILT}")
        finally:
            self._database.execute(f"DETACH {_BUILT}")
        return about

    def _create(self) -> None:
        """Makes the tables, and puts the terms."""
        database = self._database
        columns = [f"{quoted(name)} {_stored(kind)}" for name, kind in self._columns.items()]
        for table, own in TABLES.items():
            every = [*own, *(columns if table == "images" else ())]
            database.execute(f"CREATE TABLE {_BUILT}.{table} ({', '.join(every)})")
        database.execute("CREATE TABLE known (term INTEGER, kind VARCHAR, tagger VARCHAR, name VARCHAR)")
        terms = [(term.id, term.kind, term.tagger, term.name) for term in terms_of(self._run.record)]
        database.execute(
            "INSERT INTO known SELECT unnest(?::INTEGER[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), "
            "unnest(?::VARCHAR[])",
            [list(column) for column in zip(*terms, strict=True)] if terms else [[], [], [], []],
        )

    def _fill(self) -> None:
        """Adds the images chunk by chunk, which bounds the memory; says now and then how far it is."""
        rows = self._run.plan.rows
        began = last = time.monotonic()
        for start in range(0, rows, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, rows)
            for statement in self._chunk(f"manifest_index >= {start} AND manifest_index < {stop}"):
                self._add(statement)
            if time.monotonic() - last >= PROGRESS_S:
                last = time.monotonic()
                rate = stop / (last - began)
                print_error(f"{stop:,} of {counted(rows, 'image')}, {rate:,.0f}/s")

    def _add(self, statement: str) -> None:
        try:
            self._database.execute(statement)
        except SpecError as error:
            if "NOT NULL constraint failed" not in str(error):
                raise
            raise ReconcileError(
                f"the tables of {clean_uri(self._run.store.url)} name a class, label or tag that the models "
                "in run.json do not have; `raylabel reconcile` says whether they are as they were written"
            ) from None

    def _chunk(self, within: str) -> Iterator[str]:
        """The statements that add some images."""
        names = [quoted(name) for name in self._columns]
        stored = ", ".join(
            f"{name}::{_stored(kind)}" for name, kind in zip(names, self._columns.values(), strict=True)
        )
        in_errors = {"image_id": "image_id", **self._in_errors}
        failed = ", ".join(
            f"{quoted(in_errors[name])}::{_stored(kind)}" if name in in_errors else "NULL"
            for name, kind in self._columns.items()
        )
        yield (
            f"INSERT INTO {_BUILT}.images SELECT manifest_index, uri, NULL, {stored} FROM labels "
            f"WHERE {within} UNION ALL SELECT manifest_index, uri, code, {failed} FROM errors WHERE {within}"
        )
        yield (
            f"INSERT INTO {_BUILT}.failures SELECT manifest_index, stage, message FROM errors WHERE {within}"
        )
        tags, join = "NULL", ""
        if self._run.record.taggers_of_boxes:
            tags = "of_objects.tags"
            join = (
                "LEFT JOIN (SELECT manifest_index, object_index, "
                "list({term: term, score: score} ORDER BY term) AS tags "
                f"FROM tags {_KNOWN_TAG} WHERE object_index IS NOT NULL AND {within} "
                "GROUP BY manifest_index, object_index) AS of_objects USING (manifest_index, object_index)"
            )
        yield (
            f"INSERT INTO {_BUILT}.objects SELECT manifest_index, known.term, boxes.score, x1, y1, x2, y2, "
            f"{tags} FROM boxes LEFT JOIN known ON kind = 'class' AND name = class_name {join} "
            f"WHERE {within} ORDER BY manifest_index, object_index"
        )
        found = " UNION ALL ".join(self._found(within))
        yield (
            f"INSERT INTO {_BUILT}.found SELECT term, image, max(score), sum(count), max(area) "
            f"FROM ({found}) GROUP BY term, image ORDER BY term, image"
        )

    def _found(self, within: str) -> Iterator[str]:
        """What is found of some images, by models: term, image, score, count and area."""
        yield (
            "SELECT term, manifest_index AS image, score, 1 AS count, area FROM objects "
            f"LEFT JOIN known ON kind = 'class' AND name = class_name WHERE {within}"
        )
        shown = f"place = 1 OR entry.score >= {self._min_label_score!r}::FLOAT"
        yield (
            "SELECT term, image, entry.score, NULL, NULL FROM (SELECT image, "
            f"unnest([entry FOR entry, place IN topk IF {shown}]) AS entry "
            f"FROM (SELECT manifest_index AS image, topk FROM labels WHERE {within})) "
            "LEFT JOIN known ON kind = 'label' AND name = entry.label"
        )
        if "tags" in self._run.tables.names:
            yield (f"SELECT term, manifest_index, score, NULL, NULL FROM tags {_KNOWN_TAG} WHERE {within}")

    def _count_terms(self) -> None:
        """Writes the terms with the number of images that have each."""
        self._database.execute(
            f"CREATE TABLE {_BUILT}.terms AS SELECT known.*, coalesce(images, 0) AS images FROM known "
            f"LEFT JOIN (SELECT term, count(*) AS images FROM {_BUILT}.found GROUP BY term) USING (term) "
            "ORDER BY term"
        )

    def _about(self, state: str) -> About:
        row = self._database.row(
            f"SELECT count(*) - count({ERROR}) AS labelled, count({ERROR}) AS failed FROM {_BUILT}.images"
        )
        models = (name.partition(".") for name in self._run.record.models)
        return About(
            VERSION,
            self._run.record.id,
            state,
            row["labelled"],
            row["failed"],
            self._min_label_score,
            tuple(self._carried),
            tuple(self._facets()),
            tuple(self._times()),
            tuple(tagger for section, _, tagger in models if section == "taggers"),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _facets(self) -> list[str]:
        """The columns with few values."""
        texts = [name for name, kind in self._columns.items() if kind in ("VARCHAR", "BOOLEAN")]
        texts = [name for name in texts if name not in ("image_id", "label")]
        if not texts:
            return []
        counts = (f"approx_count_distinct({quoted(name)}) AS {quoted(name)}" for name in texts)
        numbers = self._database.row(f"SELECT {', '.join(counts)} FROM {_BUILT}.images")
        return [name for name in texts if 1 < numbers[name] <= MOST_VALUES]

    def _times(self) -> list[str]:
        """The columns whose values are times, those that a CSV manifest has as texts as well."""
        return [
            name
            for name, kind in (self._facts | self._carried).items()
            if is_time(kind) or (kind == "VARCHAR" and self._holds_times(quoted(name)))
        ]

    def _holds_times(self, name: str) -> bool:
        """Whether each text of a column is a time, as far as there are some."""
        found = self._database.row(
            f"SELECT count(nullif({name}, '')) AS texts, count({time_in(name)}) AS times FROM {_BUILT}.images"
        )
        return bool(0 < found["texts"] == found["times"])


def _stored(kind: str) -> str:
    """The type that a column has in the index: what is nested is text."""
    is_nested = kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION"))
    return "VARCHAR" if is_nested else kind
