"""The labelled images of a run, one after another, each with what was found in it."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from jobs.results.duck import MOST_ROWS
from jobs.results.plain import shortest
from jobs.results.sql import Database
from schemas.exceptions import SpecError
from schemas.tables import FACTS, KEYS, LABELS, rows_of

ATTACHED = ("boxes", "tags", "embeddings")
"""The tables whose rows an image can come with."""

NESTED = ("topk", "class_counts")
"""The columns of labels that hold several values; see `read_images`."""

_PLACE = rows_of("labels")
PLACE = f'"{_PLACE}"'
"""What the place of an image is called in SQL: a name that no column of a manifest has in a table."""

_CHOSEN = "chosen_images"
"""The table of a database with the images of a selection, and their places in it."""


@dataclass(frozen=True, slots=True)
class Box:
    """One object: half-open [x1, y1, x2, y2] in pixels of the upright image; its number there, from 0."""

    class_id: int
    class_name: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float
    object_index: int = 0


@dataclass(frozen=True, slots=True)
class Tag:
    """A label that a tagger gave an image or an object in it, or the classifier where it has a threshold.

    `object_index` is that of the box; None: it is the whole image's.
    """

    tagger: str
    label_id: int
    label: str
    score: float
    object_index: int | None = None


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A row of the labels table, with rows of other tables.

    Attributes:
        manifest_index: its position in the manifest.
        image_id: the manifest's own; None where it has none.
        uri: absolute, without credentials and query.
        key: of the image in any run.
        width: pixels across, after orientation.
        height: pixels down, after orientation.
        format: of the file: JPEG, PNG, ...
        byte_size: of the file.
        sha256: of the file's bytes.
        exif_orientation: 1 to 8, as it was applied.
        topk: labels and their scores, best first; empty where no classifier ran. A score has the digits that
            tell a float32 apart, as those of boxes and tags have.
        objects: class names and their counts, most frequent first; None where no detector ran.
        boxes: by descending score; empty where they were not asked for.
        tags: as in the table, of the image and of objects in it; empty where they were not asked for.
        embedding: float numbers; None where it was not asked for.
        carried: the manifest's own columns, under their names in the labels table.
    """

    manifest_index: int
    image_id: str | None
    uri: str
    key: str
    width: int
    height: int
    format: str
    byte_size: int
    sha256: bytes
    exif_orientation: int
    topk: tuple[tuple[str, float], ...] = ()
    objects: tuple[tuple[str, int], ...] | None = None
    boxes: tuple[Box, ...] = ()
    tags: tuple[Tag, ...] = ()
    embedding: tuple[float, ...] | None = None
    carried: dict[str, Any] | None = None

    @property
    def own_tags(self) -> tuple[Tag, ...]:
        """Those of its tags that are of the whole image."""
        return tuple(tag for tag in self.tags if tag.object_index is None)

    @property
    def best_tags(self) -> tuple[Tag, ...]:
        """The best tag that each tagger has of each object in it."""
        best: dict[tuple[str, int], Tag] = {}
        for tag in self.tags:
            if tag.object_index is not None:
                best.setdefault((tag.tagger, tag.object_index), tag)
        return tuple(best.values())

    def tags_of(self, box: Box) -> tuple[Tag, ...]:
        """The tags of an object in it, one tagger's after the other's, each with the best first."""
        return tuple(tag for tag in self.tags if tag.object_index == box.object_index)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which labelled images of a run, in which order.

    Attributes:
        where: a condition in SQL on a row of `labels`; None: all of them.
        sort: columns or expressions to order by, as after ORDER BY; None: manifest order.
        sample: number of images to draw at random, the same ones each time; None: all.
        limit: the first so many of them; None: all.
    """

    where: str | None = None
    sort: str | None = None
    sample: int | None = None
    limit: int | None = None

    @property
    def chooses(self) -> bool:
        """Whether it is not simply the first images."""
        return (self.where, self.sort, self.sample) != (None, None, None)

    @property
    def labels(self) -> str:
        """The rows of `labels` that the condition is true for, as a source of rows in SQL."""
        if self.where is None:
            return "labels"
        # a comment may end the condition
        return f"(SELECT * FROM labels WHERE ({self.where}\n)) AS labels"

    def query(self) -> str:
        """The manifest_index and the place of each image, in SQL."""
        source = self.labels
        if self.sample is not None:
            number = min(self.sample, MOST_ROWS)
            source = f"(SELECT * FROM {source} ORDER BY hash(key), manifest_index LIMIT {number}) AS labels"
        order = f"{self.sort}, manifest_index" if self.sort else "manifest_index"
        limit = "" if self.limit is None else f"LIMIT {min(self.limit, MOST_ROWS)}"
        return (
            f"SELECT manifest_index, row_number() OVER (ORDER BY {order}) AS {PLACE} FROM {source} "
            f"ORDER BY {PLACE} {limit}"
        )


ALL = Selection()


def read_images(
    database: Database,
    selection: Selection = ALL,
    attached: Collection[str] = (),
    boxes_where: str = "true",
    without: Collection[str] = (),
) -> Iterator[ImageRow]:
    """Yields the images of a selection, in its order; reads lazily.

    Args:
        database: with the run, unnamed.
        selection: which images.
        attached: names out of `ATTACHED`: the tables whose rows an image comes with; those that the run does
            not have are passed over.
        boxes_where: a condition in SQL on a row of `boxes`: the others are left out.
        without: names out of `NESTED`: columns that are not read, which saves most of the time; an image is
            then without what is made of them.

    Raises:
        SpecError: a condition is none that DuckDB understands.
        DamagedFileError: a file of the run is damaged.
    """
    assert_answers(database, selection)
    tables = [name for name in attached if name in database.runs[""].tables.names]
    place, source = "manifest_index", "{}"
    if selection.chooses:
        database.keep(_CHOSEN, selection.query())
        place, source = PLACE, f"{{}} JOIN {_CHOSEN} USING (manifest_index)"
    with ExitStack() as stack:

        def rows(table: str, where: str, order: str) -> Iterator[dict[str, Any]]:
            # what is read from the beginning to the end is in order; a join may mix the rows
            ending = f"ORDER BY {order}" if place == PLACE else ""
            columns = ", ".join(f"{table}.{name}" for name in _ATTACHED_COLUMNS.get(table, ()))
            columns = columns or (f"{table}.* EXCLUDE ({', '.join(without)})" if without else f"{table}.*")
            text = f"SELECT {columns}, {place} AS {PLACE} FROM {source.format(table)} WHERE {where} {ending}"
            return stack.enter_context(closing(database.rows(text)))

        orders = {
            "boxes": f"{PLACE}, object_index",
            "tags": f"{PLACE}, tagger, object_index NULLS FIRST, score DESC",
            "embeddings": PLACE,
        }
        wheres = {"boxes": boxes_where}
        streams = {name: _Groups(rows(name, wheres.get(name, "true"), orders[name])) for name in tables}
        for number, row in enumerate(rows("labels", "true", PLACE)):
            if number == selection.limit:
                return
            yield _image(row, {name: stream.of(row[_PLACE]) for name, stream in streams.items()})


def assert_answers(database: Database, selection: Selection) -> None:
    """Refuses a condition or an order that is none, in its own words and without the query around it.

    Args:
        database: with the run, unnamed.
        selection: with the condition and the order.

    Raises:
        SpecError: naming the option.
    """
    for option, text, query in (
        ("--where", selection.where, "SELECT {}\nFROM labels LIMIT 0"),
        ("--sort", selection.sort, "SELECT 1 FROM labels ORDER BY {}\nLIMIT 0"),
    ):
        if text is None:
            continue
        try:
            if len(database.result(query.format(text)).names) != 1:
                raise SpecError("it is not one condition")
            list(database.rows(f"SELECT * FROM ({selection.query()}) LIMIT 0"))
        except SpecError as error:
            problem = str(error).partition("\n\nLINE ")[0]
            raise SpecError(
                f"{option} {text!r}: {problem}\nIt is about a row of `labels`, whose columns `raylabel sql` "
                "has. For other tables: manifest_index IN (SELECT manifest_index FROM tags WHERE …)"
            ) from None


class _Groups:
    """Rows in order of their places, taken place by place."""

    def __init__(self, rows: Iterator[dict[str, Any]]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def of(self, place: int) -> list[dict[str, Any]]:
        """The rows of a place, which is after the last one asked for."""
        group = []
        while self._next is not None and self._next[_PLACE] <= place:
            if self._next[_PLACE] == place:
                group.append(self._next)
            self._next = next(self._rows, None)
        return group


_KNOWN = {*LABELS.names, _PLACE}
_PLAIN = [field.name for field in (*KEYS, *FACTS) if field.name in ImageRow.__slots__]
_BOX, _TAG = Box.__slots__, Tag.__slots__
_ATTACHED_COLUMNS = {"boxes": _BOX, "tags": _TAG, "embeddings": ("embedding",)}


def _image(row: dict[str, Any], attached: dict[str, list[dict[str, Any]]]) -> ImageRow:
    topk = tuple((entry["label"], shortest(entry["score"])) for entry in row.get("topk") or ())
    if not topk and row["label"] is not None:
        topk = ((row["label"], shortest(row["score"])),)
    objects = None
    if row["object_count"] is not None and "class_counts" in row:
        counts = (row["class_counts"] or {}).items()
        objects = tuple(sorted(counts, key=lambda item: (-item[1], item[0])))
    (vector,) = attached.get("embeddings") or [{"embedding": None}]
    return ImageRow(
        **{name: row[name] for name in _PLAIN},
        topk=topk,
        objects=objects,
        boxes=tuple(Box(*(_short(box[name]) for name in _BOX)) for box in attached.get("boxes", ())),
        tags=tuple(Tag(*(_short(tag[name]) for name in _TAG)) for tag in attached.get("tags", ())),
        embedding=vector["embedding"],
        carried={name: value for name, value in row.items() if name not in _KNOWN},
    )


def _short(value: Any) -> Any:
    """A value of a box or a tag, whose numbers are float32."""
    return shortest(value) if isinstance(value, float) else value
