"""A run's tables summed up: values for the terminal, the report and programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.results.images import ALL, ImageRow, Selection, read_images
from jobs.results.plain import dump_json
from jobs.results.sql import Database
from jobs.results.status import unfinished
from schemas.tasks import OBJECT_EMBEDDINGS
from workers.ledger.directory import RunDirectory

MAX_LABELS = 15
"""Number of the most frequent labels and classes in a summary."""

SCORE_BINS = 20
"""Bars of the histogram of label scores, from 0 to 1."""

OBJECT_BINS = 11
"""Bars of the histogram of objects per image: 0, 1, ... 9, and 10 or more."""


@dataclass(frozen=True, slots=True)
class LabelCount:
    """A label and the number of images that have it as their best."""

    label: str
    images: int


@dataclass(frozen=True, slots=True)
class ClassCount:
    """A class, the number of its objects, and the number of images with any."""

    class_name: str
    images: int
    objects: int


@dataclass(frozen=True, slots=True)
class TagCount:
    """A tag of a tagger, and the number of images that have it, or an object with it."""

    tagger: str
    label: str
    images: int


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """A stage and code of errors, the number of images, and the first of them as an example."""

    stage: str
    code: str
    images: int
    uri: str
    message: str


@dataclass(frozen=True, slots=True)
class FailedImage:
    """One row of the errors table, with the columns that are shown."""

    manifest_index: int
    uri: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The results of a run, summed up.

    Attributes:
        output: the run directory.
        labelled: rows of the labels table; with a condition those for which it is true.
        failed: rows of the errors table.
        objects: rows of the boxes table; None where no detector ran.
        images: the first labelled images of the selection.
        labels: the most frequent labels, at most `MAX_LABELS`.
        distinct_labels: number of labels that are the best of any image.
        classes: the most frequent classes of objects, at most `MAX_LABELS`.
        distinct_classes: number of classes with any object.
        errors: all stages and codes that occurred, the most frequent first.
        scores: images by the score of their label, in `SCORE_BINS` equal bins from 0 to 1; empty where no
            classifier ran.
        objects_per_image: images by their number of objects, `OBJECT_BINS` of them, the last open-ended;
            empty where no detector ran.
        failures: the first images that failed, in manifest order.
        tags: the most frequent tags of all taggers together, at most `MAX_LABELS`.
        distinct_tags: number of tags that any image has.
        tag_rows: rows of the tags table.
        embeddings: rows of the embeddings table.
        object_embeddings: rows of the table of objects' embeddings.
        of: rows of the labels table in all, where a condition chose some; otherwise None.
        is_choice: whether `images` are not simply the first ones.
        complete: whether the run is; otherwise all is about what is published.
    """

    output: str
    labelled: int
    failed: int
    objects: int | None
    images: tuple[ImageRow, ...]
    labels: tuple[LabelCount, ...]
    distinct_labels: int
    classes: tuple[ClassCount, ...]
    distinct_classes: int
    errors: tuple[ErrorCount, ...]
    scores: tuple[int, ...]
    objects_per_image: tuple[int, ...]
    failures: tuple[FailedImage, ...] = ()
    tags: tuple[TagCount, ...] = ()
    distinct_tags: int = 0
    tag_rows: int = 0
    embeddings: int = 0
    object_embeddings: int = 0
    of: int | None = None
    is_choice: bool = False
    complete: bool = True

    def to_json(self, pictures: Sequence[Path] = ()) -> str:
        """The summary for a program, with the pictures that were drawn of its images; see docs/json.md."""
        return dump_json({**asdict(self), "pictures": [str(picture) for picture in pictures]})

    @property
    def failed_by_code(self) -> Counter[str]:
        """The images that failed, by error code."""
        return sum((Counter({error.code: error.images}) for error in self.errors), Counter[str]())


def summarize(output: str, limit: int = 20) -> Summary:
    """Sums up a run, in memory that does not grow with it.

    Args:
        output: the run directory; a path or any fsspec URL.
        limit: number of single images in the summary, labelled and failed ones each.

    Raises:
        StorageError: there is no run.
        DamagedFileError: a file of it is damaged.
    """
    with Database({"": output}) as database:
        return summary_of(database, Selection(limit=limit))


def summary_of(database: Database, selection: Selection = ALL) -> Summary:
    """Sums up the images that a condition is true for; of all images, also those that failed.

    Args:
        database: with the run, unnamed.
        selection: its condition decides what is counted, all of it which single images are in the summary.

    Raises:
        SpecError: a condition is none that DuckDB understands.
        DamagedFileError: a file of the run is damaged.
    """
    images = tuple(read_images(database, selection, ["tags"]))  # these refuse a condition that is none
    run, source = database.runs[""], selection.labels
    labels = database.row(
        "SELECT count(*) AS images, count(object_count) AS detected, "
        f"sum(object_count)::BIGINT AS objects FROM {source}"
    )
    names = _most_frequent(
        database, f"SELECT label, count(*) AS n FROM {source} WHERE label IS NOT NULL GROUP BY label"
    )
    classes = _most_frequent(
        database,
        "SELECT one.key AS class_name, count(*) AS images, sum(one.value)::BIGINT AS n FROM "
        f"(SELECT unnest(map_entries(class_counts)) AS one FROM {source}) GROUP BY class_name",
    )
    tags = []
    if has_tags := "tags" in run.tables.names:
        tags = _most_frequent(
            database,
            f"SELECT tagger, label, count(*) AS n FROM {tagged(run)}{_of(selection)} GROUP BY tagger, label",
        )
    errors, failures = [], []
    if selection.where is None:
        errors = list(database.rows(_ERRORS))
        failures = list(database.rows(_FAILURES, [selection.limit]))
    return Summary(
        output=database.outputs[""],
        labelled=labels["images"],
        failed=sum(error["images"] for error in errors),
        objects=labels["objects"] if labels["detected"] else None,
        images=images,
        labels=tuple(LabelCount(row["label"], row["n"]) for row in names),
        distinct_labels=_distinct(names),
        classes=tuple(ClassCount(row["class_name"], row["images"], row["n"]) for row in classes),
        distinct_classes=_distinct(classes),
        errors=tuple(ErrorCount(**row) for row in errors),
        scores=_bins(database, source, f"floor(score * {SCORE_BINS})", SCORE_BINS),
        objects_per_image=_bins(database, source, "object_count", OBJECT_BINS),
        failures=tuple(FailedImage(**row) for row in failures),
        tags=tuple(TagCount(row["tagger"], row["label"], row["n"]) for row in tags),
        distinct_tags=_distinct(tags),
        tag_rows=_rows(database, "tags", selection) if has_tags else 0,
        **{
            name: _rows(database, name, selection)
            for name in ("embeddings", OBJECT_EMBEDDINGS)
            if name in run.tables.names
        },
        of=None if selection.where is None else database.row("SELECT count(*) AS n FROM labels")["n"],
        is_choice=selection.chooses,
        complete=unfinished(run) is None,
    )


_ERRORS = """
    SELECT stage, code, count(*) AS images,
        arg_min(uri, manifest_index) AS uri, arg_min(message, manifest_index) AS message
    FROM errors GROUP BY stage, code ORDER BY images DESC, stage, code
"""

_FAILURES = "SELECT manifest_index, uri, code, message FROM errors ORDER BY manifest_index LIMIT ?"


def tagged(run: RunDirectory) -> str:
    """A source of rows in SQL: `manifest_index`, `tagger` and `label`, once an image, and their number `n`.

    Tags of whole images are there once anyway, so that nothing need be gathered.
    """
    each = "count(*) AS n FROM tags GROUP BY ALL" if run.record.taggers_of_boxes else "1 AS n FROM tags"
    return f"(SELECT manifest_index, tagger, label, {each})"


def _most_frequent(database: Database, counts: str) -> list[dict[str, Any]]:
    """The first rows of a query that counts, the highest count `n` first, then by name; see `_distinct`."""
    query = f"SELECT *, count(*) OVER () AS distinct_names FROM ({counts})"
    rows = database.rows(
        f"SELECT * FROM ({query}) ORDER BY n DESC, COLUMNS(* EXCLUDE (n, distinct_names)) LIMIT ?",
        [MAX_LABELS],
    )
    return list(rows)


def _distinct(most_frequent: list[dict[str, Any]]) -> int:
    """The number of names of which those are the most frequent."""
    return most_frequent[0]["distinct_names"] if most_frequent else 0


def _rows(database: Database, table: str, selection: Selection) -> int:
    """The rows of a table that are of the images of a selection."""
    return int(database.row(f"SELECT count(*) AS n FROM {table}{_of(selection)}")["n"])


def _of(selection: Selection) -> str:
    """What restricts the rows of a table to the images of a selection."""
    if selection.where is None:
        return ""
    return f" WHERE manifest_index IN (SELECT manifest_index FROM {selection.labels})"


def _bins(database: Database, source: str, value: str, bins: int) -> tuple[int, ...]:
    """The number of images in each bin of a value, the last of them open-ended; empty where it has none."""
    rows = database.rows(
        f"SELECT least({value}, {bins - 1})::INT AS bin, count(*) AS n FROM {source} "
        f"WHERE {value} IS NOT NULL GROUP BY 1"
    )
    counts = Counter({row["bin"]: row["n"] for row in rows})
    return tuple(counts[bin_] for bin_ in range(bins)) if counts else ()
