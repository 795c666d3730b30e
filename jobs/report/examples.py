"""Which images of a run its report shows: by label and class, the least certain, the extremes, and any."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobs.report.facts import Facts
from jobs.results.images import ImageRow, Selection, read_images
from jobs.results.sql import Database

NAMES, OF_EACH = 6, 3
"""Labels and classes with examples, and how many of each; one that is found once is no frequent one."""

MOST = {"random": 12, "uncertain": 6, "margin": 6, "crowded": 6, "largest": 6, "smallest": 6}
"""Images of each other kind, at most. A run of no more than are drawn at random shows all, nothing else."""


@dataclass(frozen=True, slots=True)
class Example:
    """An image that is shown, or one of its boxes.

    Attributes:
        manifest_index: of the image.
        object_index: of the box; None: all of the image is shown.
        note: why it is shown, where its caption does not say so; "": it does.
    """

    manifest_index: int
    object_index: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Examples of one thing.

    Attributes:
        title: what they are examples of; "" where its gallery says so.
        examples: at least one.
    """

    title: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Examples of one kind.

    Attributes:
        title: of the kind.
        about: how they were chosen, a sentence.
        groups: at least one.
    """

    title: str
    about: str
    groups: tuple[Group, ...]


def choose(database: Database, facts: Facts) -> list[Gallery]:
    """The images that a report shows; no gallery is empty.

    Args:
        database: with the run, unnamed.
        facts: of the run.

    Raises:
        DamagedFileError: a file of the run is damaged.
        StorageError: a file cannot be read.
    """
    return [gallery for gallery in _galleries(database, facts) if gallery.groups]


def read_chosen(database: Database, galleries: list[Gallery]) -> dict[int, ImageRow]:
    """The images of galleries with their boxes, by manifest_index; raises as `choose` does."""
    chosen = {one.manifest_index for it in galleries for group in it.groups for one in group.examples}
    if not chosen:
        return {}
    where = f"manifest_index IN ({', '.join(map(str, sorted(chosen)))})"
    return {row.manifest_index: row for row in read_images(database, Selection(where), ["boxes"])}


def _galleries(database: Database, facts: Facts) -> Iterator[Gallery]:
    summary = facts.summary
    if summary.labelled <= MOST["random"]:
        yield Gallery("All images", "", _group(database, _FIRST, summary.labelled))
        return
    yield Gallery(
        "Any images",
        "Drawn at random: what most of the run looks like.",
        _group(database, _RANDOM, MOST["random"]),
    )
    labels = [count.label for count in summary.labels[:NAMES] if count.images > 1]
    yield Gallery(
        "Frequent labels",
        "Images drawn at random from those with the label.",
        _named(database, _OF_LABELS, labels),
    )
    if facts.box_scores:
        classes = [count.class_name for count in summary.classes[:NAMES] if count.objects > 1]
        yield Gallery(
            "Frequent classes",
            "Objects drawn at random from those of the class, cut out with what is around them.",
            _named(database, _OF_CLASSES, classes),
        )
    if summary.labels:
        yield Gallery(
            "Least certain labels",
            "The lowest scores of a best label: look here for what the classifier does not know.",
            _group(database, _UNCERTAIN, MOST["uncertain"]),
        )
        yield Gallery(
            "Close calls",
            "The best label and the next have almost the same score.",
            _group(database, _MARGIN, MOST["margin"]),
        )
    if facts.box_scores:
        yield Gallery("Most objects", "", _group(database, _CROWDED, MOST["crowded"]))
        yield Gallery(
            "Largest objects",
            "By their share of the image.",
            _group(database, _BY_SIZE.format("area DESC"), MOST["largest"]),
        )
        yield Gallery(
            "Smallest objects",
            "By their share of the image, cut out with what is around them.",
            _group(database, _BY_SIZE.format("area"), MOST["smallest"]),
        )


_FIRST = "SELECT manifest_index FROM labels ORDER BY manifest_index LIMIT ?"

_RANDOM = "SELECT manifest_index FROM labels ORDER BY hash(manifest_index), manifest_index LIMIT ?"

_OF_LABELS = f"""
    SELECT label AS name,
        arg_min({{manifest_index: manifest_index}}, hash(manifest_index), {OF_EACH}) AS shown
    FROM labels WHERE list_contains($names, label) GROUP BY label
"""

_OF_CLASSES = f"""
    SELECT class_name AS name,
        arg_min({{manifest_index: manifest_index, object_index: object_index}},
            hash(manifest_index, object_index), {4 * OF_EACH}) AS shown
    FROM boxes WHERE list_contains($names, class_name) GROUP BY class_name
"""

_UNCERTAIN = """
    SELECT manifest_index FROM labels WHERE score IS NOT NULL ORDER BY score, manifest_index LIMIT ?
"""

_MARGIN = """
    SELECT manifest_index, printf('%.3f apart', margin) AS note
    FROM (SELECT manifest_index, topk[1].score - topk[2].score AS margin FROM labels WHERE len(topk) > 1)
    ORDER BY margin, manifest_index LIMIT ?
"""

_CROWDED = """
    SELECT manifest_index FROM labels WHERE object_count > 0
    ORDER BY object_count DESC, manifest_index LIMIT ?
"""

_BY_SIZE = """
    SELECT manifest_index, object_index, printf('%.3g%% of the image', area * 100) AS note
    FROM objects ORDER BY {}, manifest_index, object_index LIMIT ?
"""


def _group(database: Database, query: str, number: int) -> tuple[Group, ...]:
    """The one group of a gallery; none where nothing is found."""
    examples = tuple(Example(**row) for row in database.rows(query, [number]))
    return (Group("", examples),) if examples else ()


def _named(database: Database, query: str, names: list[str]) -> tuple[Group, ...]:
    """A group for each name, in that order."""
    if not names:
        return ()
    found: dict[str, list[dict[str, Any]]] = {
        row["name"]: row["shown"] for row in database.rows(query, {"names": names})
    }
    return tuple(Group(name, _of_several_images(found[name])) for name in names if name in found)


def _of_several_images(drawn: list[dict[str, Any]]) -> tuple[Example, ...]:
    """The first of those drawn; of one image a second time only where there are too few others."""
    numbers = Counter[int]()
    ranked = []
    for one in drawn:
        ranked.append((numbers[one["manifest_index"]], one))
        numbers[one["manifest_index"]] += 1
    ranked.sort(key=lambda pair: pair[0])
    return tuple(Example(**one) for _, one in ranked[:OF_EACH])
