"""Reads and sums up a run's tables: values for the terminal, the report and the pictures."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem
from rich.cells import cell_len

from schemas.ledger import shard_number, table_key
from schemas.spec import FetchSpec
from schemas.tables import TABLES
from workers.fetch.ranges import RangeFile
from workers.ledger.damage import TABLE, damaged
from workers.printable import one_line, short_line
from workers.storage.store import Store
from workers.storage.uris import CHAINS, is_local, split_chain

MAX_LABELS = 15
"""Number of the most frequent labels and classes in a summary."""

SCORE_BINS = 20
"""Bars of the histogram of label scores, from 0 to 1."""

OBJECT_BINS = 11
"""Bars of the histogram of objects per image: 0, 1, ... 9, and 10 or more."""

_Name = TypeVar("_Name", str, tuple[str, str])

_CLASS_COUNTS = pa.list_(pa.struct([("class_name", pa.string()), ("boxes", pa.int32())]))
_IMAGE_COLUMNS = [
    *("manifest_index", "uri", "width", "height", "sha256"),
    *("label", "score", "topk", "object_count", "class_counts"),
]


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """One row of the labels table, with the columns that are shown.

    Attributes:
        manifest_index: its position in the manifest.
        uri: absolute, without credentials and query.
        width: pixels across, after orientation.
        height: pixels down, after orientation.
        sha256: of the file's bytes.
        topk: labels and their scores, best first; empty where no classifier ran.
        objects: class names and their counts, most frequent first; None where no detector ran.
    """

    manifest_index: int
    uri: str
    width: int
    height: int
    sha256: bytes
    topk: tuple[tuple[str, float], ...]
    objects: tuple[tuple[str, int], ...] | None


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
    """A tag of a tagger, and the number of images that have it."""

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
        labelled: rows of the labels table.
        failed: rows of the errors table.
        objects: rows of the boxes table; None where no detector ran.
        images: the first labelled images, in manifest order.
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
        embeddings: rows of the embeddings table.
    """

    output: str
    labelled: int
    failed: int
    objects: int | None
    images: tuple[ImageSummary, ...]
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
    embeddings: int = 0

    @property
    def failed_by_code(self) -> Counter[str]:
        """The images that failed, by error code."""
        return sum((Counter({error.code: error.images}) for error in self.errors), Counter[str]())


def scan(output: str, table: str, columns: list[str], batch_rows: int = 65_536) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a run's table in batches, in file order, which is manifest order.

    Args:
        output: the run directory; a path or any fsspec URL.
        table: its name; an absent or empty folder yields no batches.
        columns: to read.
        batch_rows: maximum rows in a batch.

    Raises:
        DamagedFileError: a file is no such table.
    """
    store, schema = Store(output), TABLES[table].schema
    # One file at a time: a scan of the whole dataset reads ahead of a slow consumer without limit
    # (pyarrow 26, 30 million rows: 527 MB instead of 9 MB).
    for key in own_keys(store, table):
        with unreadable_as_damaged(store, key):
            fragment = _fragment(f"{store.url}/{key}")
            yield from fragment.to_batches(schema=schema, columns=columns, batch_size=batch_rows)


def own_keys(store: Store, table: str) -> list[str]:
    """The keys of a table's published files, in manifest order.

    A file of somebody else's beside them would not have the columns, or would be counted.
    """
    return [key for key in store.list(table) if key == _own_key(table, key)]


@contextmanager
def unreadable_as_damaged(store: Store, key: str) -> Iterator[None]:
    """Makes a DamagedFileError of what reading a table's file raises."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        wrong = short_line(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise damaged(TABLE, store, key, f"it is no table that can be read ({wrong})") from None


def _own_key(table: str, key: str) -> str | None:
    """The key of a shard's table that has the number in a key."""
    shard = shard_number(key.rpartition("/")[2].removesuffix(".parquet"))
    return None if shard is None else table_key(table, shard)


def _fragment(url: str) -> ds.ParquetFileFragment:
    """A Parquet file to scan, local or read by ranges."""
    if is_local(url):
        return ds.ParquetFileFormat().make_fragment(url, LocalFileSystem())
    return ds.ParquetFileFormat().make_fragment(RangeFile(url, FetchSpec()))


def read_images(output: str, limit: int | None = None) -> Iterator[ImageSummary]:
    """Yields the first labelled images of a run in manifest order; reads lazily."""
    batches = scan(output, "labels", _IMAGE_COLUMNS, batch_rows=min(limit or 1024, 1024))
    return islice((_image(row) for batch in batches for row in batch.to_pylist()), limit)


def read_failures(output: str, limit: int) -> Iterator[FailedImage]:
    """Yields the first failed images of a run in manifest order; reads lazily."""
    batches = scan(output, "errors", ["manifest_index", "uri", "code", "message"], min(limit or 1, 1024))
    return islice((FailedImage(**row) for batch in batches for row in batch.to_pylist()), limit)


def summarize(output: str, limit: int = 20) -> Summary:
    """Sums up a run's tables, in memory that does not grow with the run.

    Args:
        output: the run directory; a path or any fsspec URL.
        limit: number of single images in the summary, labelled and failed ones each.
    """
    labels, failures = _LabelTally(), _ErrorTally()
    tags: Counter[tuple[str, str]] = Counter()
    for batch in scan(output, "tags", ["tagger", "label"]):
        tags.update(_pairs(batch))
    for batch in scan(output, "labels", ["label", "score", "object_count", "class_counts"]):
        labels.add(batch)
    for batch in scan(output, "errors", ["stage", "code", "uri", "message"]):
        failures.add(batch)
    return Summary(
        output=output,
        labelled=labels.images,
        failed=sum(failures.images.values()),
        objects=sum(labels.boxes.values()) if labels.per_image else None,
        images=tuple(read_images(output, limit)),
        labels=tuple(LabelCount(*count) for count in _most_frequent(labels.labels)),
        distinct_labels=len(labels.labels),
        classes=tuple(
            ClassCount(name, labels.images_with[name], n) for name, n in _most_frequent(labels.boxes)
        ),
        distinct_classes=len(labels.boxes),
        errors=failures.counts(),
        scores=_bins(labels.scores, SCORE_BINS),
        objects_per_image=_bins(labels.per_image, OBJECT_BINS),
        failures=tuple(read_failures(output, limit)),
        tags=tuple(TagCount(*tag, images) for tag, images in _most_frequent(tags)),
        distinct_tags=len(tags),
        embeddings=sum(batch.num_rows for batch in scan(output, "embeddings", ["manifest_index"])),
    )


@dataclass
class _LabelTally:
    """Running sums over batches of the labels table."""

    images: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    scores: Counter[int] = field(default_factory=Counter)
    per_image: Counter[int] = field(default_factory=Counter)
    images_with: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)

    def add(self, batch: pa.RecordBatch) -> None:
        self.images += batch.num_rows
        self.labels.update(_counts(batch["label"]))
        bins = pc.floor(pc.multiply(batch["score"], SCORE_BINS)).cast(pa.int32())
        self.scores.update(_counts(pc.min_element_wise(bins, SCORE_BINS - 1, skip_nulls=False)))
        self.per_image.update(
            _counts(pc.min_element_wise(batch["object_count"], OBJECT_BINS - 1, skip_nulls=False))
        )
        names, boxes = batch["class_counts"].cast(_CLASS_COUNTS).flatten().flatten()
        classes = pa.table({"name": names, "boxes": boxes}).group_by("name")
        for row in classes.aggregate([("boxes", "count"), ("boxes", "sum")]).to_pylist():
            self.images_with[row["name"]] += row["boxes_count"]
            self.boxes[row["name"]] += row["boxes_sum"]


@dataclass
class _ErrorTally:
    """Running sums over batches of the errors table, with the first error of each kind as its example."""

    images: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        kinds = pa.Table.from_batches([batch]).group_by(["stage", "code"], use_threads=False)
        for row in kinds.aggregate([([], "count_all"), ("uri", "first"), ("message", "first")]).to_pylist():
            kind = (row["stage"], row["code"])
            self.images[kind] += row["count_all"]
            self.examples.setdefault(kind, (row["uri_first"], row["message_first"]))

    def counts(self) -> tuple[ErrorCount, ...]:
        kinds = sorted(self.images.items(), key=lambda item: (-item[1], item[0]))
        return tuple(ErrorCount(*kind, images, *self.examples[kind]) for kind, images in kinds)


def _counts(values: pa.Array) -> dict[Any, int]:
    """The number of times that each value occurs, without nulls."""
    return {row["values"]: row["counts"] for row in pc.value_counts(values.drop_null()).to_pylist()}


def _pairs(batch: pa.RecordBatch) -> dict[tuple[str, str], int]:
    """The number of times that each pair of values of two columns of text occurs."""
    one, other = (batch.schema.names[i] for i in range(2))
    pairs = pa.table({name: batch[name].cast(pa.string()) for name in (one, other)})
    rows = pairs.group_by([one, other]).aggregate([([], "count_all")]).to_pylist()
    return {(row[one], row[other]): row["count_all"] for row in rows}


def _most_frequent(counts: Counter[_Name]) -> list[tuple[_Name, int]]:
    """At most `MAX_LABELS` names and their counts, the most frequent first, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_LABELS]


def _bins(counts: Counter[int], bins: int) -> tuple[int, ...]:
    """The count of each bin; empty where nothing was counted."""
    return tuple(counts[i] for i in range(bins)) if counts else ()


def _image(row: dict[str, Any]) -> ImageSummary:
    topk = tuple((entry["label"], entry["score"]) for entry in row["topk"] or ())
    if not topk and row["label"] is not None:
        topk = ((row["label"], row["score"]),)
    objects = None
    if row["object_count"] is not None:
        objects = tuple(_most_frequent(Counter(dict(row["class_counts"] or ()))))
    return ImageSummary(
        **{name: row[name] for name in ("manifest_index", "uri", "width", "height", "sha256")},
        topk=topk,
        objects=objects,
    )


def shorten(text: str, width: int) -> str:
    """The text on one line, with "…" for its middle where it is wider than `width` terminal cells."""
    text, width = one_line(text), max(width, 1)
    if cell_len(text) <= width:
        return text
    half = max((width - 1) // 2, 0)
    start, end = text, text
    while cell_len(start) > width - 1 - half:
        start = start[:-1]
    while cell_len(end) > half:
        end = end[1:]
    return f"{start}…{end}"


def short_uris(uris: Iterable[str], width: int) -> list[str]:
    """The ends of URIs, all cut at the same depth: as many folders as fit, at least the file names.

    The folder that all of them are in is left out.
    """
    uris = _below_common_folder([one_line(as_path(uri)) for uri in uris])
    depths = range(max((uri.count("/") for uri in uris), default=0), -1, -1)
    for names in ([_tail(uri, depth) for uri in uris] for depth in depths):
        if all(cell_len(name) <= width for name in names):
            return names
    return [shorten(_tail(uri, 0), width) for uri in uris]


def _below_common_folder(uris: list[str]) -> list[str]:
    folders = zip(*(uri.split("/")[:-1] for uri in uris), strict=False)
    common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    return ["/".join(uri.split("/")[common:]) for uri in uris]


def as_path(uri: str) -> str:
    """A chained URI as one path: `tar://b.jpg::s3://x/a.tar` becomes `s3://x/a.tar/b.jpg`."""
    chain = split_chain(uri)
    if not chain or not chain[0].startswith(CHAINS):
        return uri
    inner, outer = chain
    return f"{outer}/{inner.partition('://')[2]}"


def _tail(uri: str, folders: int) -> str:
    """A file name with that many folders above it; "…/" stands for the others."""
    kept = "/".join(uri.split("/")[-folders - 1 :])
    if kept == uri or not folders:
        return kept
    return f"…/{kept.lstrip('/')}"


def scored(label: str, score: float) -> str:
    """A label with its score, as the terminal, the report and the pictures show it."""
    return f"{one_line(label)} {score:.2f}"
