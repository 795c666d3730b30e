"""The numbers of a run's report: one query each, in memory that does not grow with the run."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from jobs.results.images import Selection
from jobs.results.sql import Database
from jobs.results.summary import MAX_LABELS, SCORE_BINS, Summary, TagCount, summary_of, tagged

MAX_FAILED = 20
"""Failed images that are named one by one."""

MAX_TOGETHER = 8
"""The most frequent classes of which is counted how often two are in one image."""

SIZE_DECADES, BINS_A_DECADE = 5, 3
"""Sizes of boxes are counted from a 100,000th of the image to all of it, so many bins a factor of 10."""

MAX_TIMES = 48
"""Columns of the chart of speed over time, at most."""

TIME_STEPS_S = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3600 * hours for hours in (1, 2, 3, 6, 12, 24, 48, 96, 168)),
)
"""Seconds of one of these columns: the least with which there are few enough."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files of the labelled images.

    Attributes:
        size: bytes of all of them.
        pixels: of all of them, decoded.
        formats: the formats and their numbers of files, the most frequent first.
    """

    size: int
    pixels: int
    formats: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class TaggerCounts:
    """The tags of one tagger.

    Attributes:
        tagger: its name; "classifier" for the tags of the classifier.
        tags: the most frequent, at most `MAX_LABELS`.
        distinct: how many different ones there are.
        rows: of the tags table.
    """

    tagger: str
    tags: tuple[TagCount, ...]
    distinct: int
    rows: int


@dataclass(frozen=True, slots=True)
class Together:
    """How often classes are in one image.

    Attributes:
        names: the most frequent classes, at most `MAX_TOGETHER`, by the number of their images.
        images: [i][j]: images with an object of both; [i][i]: images with the class.
    """

    names: tuple[str, ...]
    images: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Rate:
    """When images were labelled, or failed.

    Attributes:
        first: when the first one was, UTC.
        last: when the last one was.
        step_s: seconds of a bin.
        images: in each bin from `first` to `last`.
    """

    first: datetime
    last: datetime
    step_s: int
    images: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the tables of a run come to.

    Attributes:
        summary: sums, labels, classes, errors, the first failed images.
        files: of the labelled images.
        taggers: the tags of each tagger.
        box_scores: boxes by score, in `SCORE_BINS` equal bins from 0 to 1; empty without a box.
        box_sizes: boxes by their share of the image, in `BINS_A_DECADE` times `SIZE_DECADES` bins that are as
            wide on a logarithmic scale; those below the least are in the first; empty without a box.
        together: None where there are no two classes.
        rate: None where nothing was done yet.
    """

    summary: Summary
    files: Files
    taggers: tuple[TaggerCounts, ...]
    box_scores: tuple[int, ...]
    box_sizes: tuple[int, ...]
    together: Together | None
    rate: Rate | None

    @property
    def tags(self) -> int:
        """Rows of the tags table."""
        return sum(one.rows for one in self.taggers)


def find_facts(database: Database) -> Facts:
    """The numbers of a run.

    Args:
        database: with the run, unnamed.

    Raises:
        DamagedFileError: a file of the run is damaged.
        StorageError: a file cannot be read.
    """
    tables = database.runs[""].tables.names
    has_boxes = "boxes" in tables
    size_bins = SIZE_DECADES * BINS_A_DECADE
    return Facts(
        summary=summary_of(database, Selection(limit=MAX_FAILED)),
        files=_files(database),
        taggers=tuple(_taggers(database)) if "tags" in tables else (),
        box_scores=_bins(database, "boxes", f"floor(score * {SCORE_BINS})", SCORE_BINS) if has_boxes else (),
        box_sizes=_bins(database, "objects", _SIZE_BIN, size_bins) if has_boxes else (),
        together=_together(database) if has_boxes else None,
        rate=_rate(database),
    )


_SIZE_BIN = f"floor(log10(area) * {BINS_A_DECADE}) + {SIZE_DECADES * BINS_A_DECADE}"


def _files(database: Database) -> Files:
    sums = database.row(
        "SELECT coalesce(sum(byte_size), 0)::BIGINT AS size, "
        "coalesce(sum(width::BIGINT * height), 0)::BIGINT AS pixels FROM labels"
    )
    formats = database.rows(
        "SELECT format, count(*) AS n FROM labels GROUP BY format ORDER BY n DESC, format LIMIT 10"
    )
    return Files(**sums, formats=tuple((row["format"], row["n"]) for row in formats))


def _taggers(database: Database) -> Iterator[TaggerCounts]:
    """The taggers by name; each has some thousand tags at most, so that they are counted in little memory."""
    rows = database.rows(
        "SELECT *, count(*) OVER own AS tags, (sum(n) OVER own)::BIGINT AS total, "
        "row_number() OVER (PARTITION BY tagger ORDER BY images DESC, label) AS place "
        "FROM (SELECT tagger, label, count(*) AS images, sum(n) AS n "
        f"FROM {tagged(database.runs[''])} GROUP BY tagger, label) "
        "WINDOW own AS (PARTITION BY tagger) "
        f"QUALIFY place <= {MAX_LABELS} ORDER BY tagger, place"
    )
    found: dict[str, list[TagCount]] = {}
    sums: dict[str, tuple[int, int]] = {}
    for row in rows:
        found.setdefault(row["tagger"], []).append(TagCount(row["tagger"], row["label"], row["images"]))
        sums[row["tagger"]] = row["tags"], row["total"]
    for tagger, tags in found.items():
        yield TaggerCounts(tagger, tuple(tags), *sums[tagger])


def _bins(database: Database, source: str, value: str, bins: int) -> tuple[int, ...]:
    """The number of rows in each bin of a value; what is below the first is in it, above the last in that."""
    rows = database.rows(
        f"SELECT greatest(least({value}, {bins - 1}), 0)::INT AS bin, count(*) AS n FROM {source} "
        f"WHERE isfinite({value}) GROUP BY 1"
    )
    counts = Counter({row["bin"]: row["n"] for row in rows})
    return tuple(counts[bin_] for bin_ in range(bins)) if counts else ()


def _together(database: Database) -> Together | None:
    """Only pairs of the most frequent classes are counted: others would be as many as classes squared."""
    named = database.rows(
        "SELECT one AS name, count(*) AS n FROM (SELECT unnest(map_keys(class_counts)) AS one FROM labels) "
        f"GROUP BY name ORDER BY n DESC, name LIMIT {MAX_TOGETHER}"
    )
    names = [row["name"] for row in named]
    if len(names) < 2:
        return None
    pairs = database.rows(
        "SELECT a.place AS one, b.place AS other, count(*) AS n FROM (SELECT [list_position($names, name) "
        "FOR name IN map_keys(class_counts) IF list_contains($names, name)] AS places FROM labels), "
        "unnest(places) AS a(place), unnest(places) AS b(place) GROUP BY ALL",
        {"names": names},
    )
    counts = Counter({(row["one"] - 1, row["other"] - 1): row["n"] for row in pairs})
    places = range(len(names))
    return Together(tuple(names), tuple(tuple(counts[one, other] for other in places) for one in places))


_DONE = "(SELECT processed_at AS moment FROM labels UNION ALL SELECT failed_at AS moment FROM errors)"
"""When each image was labelled, or failed."""


def _rate(database: Database) -> Rate | None:
    ends = database.row(f"SELECT min(moment) AS first, max(moment) AS last FROM {_DONE}")
    if ends["first"] is None:
        return None
    seconds = step_s((ends["last"] - ends["first"]).total_seconds())
    rows = database.rows(
        f"SELECT (epoch_us(moment) - epoch_us(?)) // {seconds * 1_000_000} AS bin, count(*) AS n "
        f"FROM {_DONE} GROUP BY 1",
        [ends["first"]],
    )
    counts = Counter({row["bin"]: row["n"] for row in rows})
    return Rate(ends["first"], ends["last"], seconds, tuple(counts[bin_] for bin_ in range(max(counts) + 1)))


def step_s(seconds: float) -> int:
    """Seconds of a bin where all of them are so many; where it is years, a multiple of the last step."""
    least = seconds / MAX_TIMES
    longest = TIME_STEPS_S[-1]
    return next((step for step in TIME_STEPS_S if step > least), longest * (int(least // longest) + 1))
