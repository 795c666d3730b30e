"""Open Images' tables in CSV, in `annotations`: images, boxes, labels of images, names of classes.

https://storage.googleapis.com/openimages/web/download_v7.html; `ImageID` is the name of a photo's
file without its ending, `LabelName` the name of a class. Corners are shares from 0 to 1, XMax before YMin.
"""

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.exports.base import Export, Format
from jobs.results.images import Box, ImageRow

if TYPE_CHECKING:
    from _csv import Writer

BOXES = (
    *("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    *("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"),
)
"""Columns of boxes, in Open Images' order."""

LABELS = ("ImageID", "Source", "LabelName", "Confidence")

IMAGES = (
    *("ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL", "Author"),
    *("Title", "OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation"),
)
"""Columns of images, in Open Images' order; `Title` is the manifest's own id, sizes are in bytes."""

SUBSET = "all"

UNKNOWN = (-1,) * 5
"""Of the five properties of a box that only people tell."""


def write(export: Export, folder: Path) -> None:
    """Writes the tables."""
    tables = folder / "annotations"
    tables.mkdir()
    with ExitStack() as stack:

        def table(name: str, columns: Sequence[str]) -> "Writer":
            file = stack.enter_context((tables / name).open("x", encoding="utf-8", newline=""))
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            return writer

        classes = table("oidv7-class-descriptions.csv", ("LabelName", "DisplayName"))
        classes.writerows((name, name) for name in _names(export))
        images = table("image_ids_and_rotation.csv", IMAGES)
        boxes = table(f"{SUBSET}-annotations-bbox.csv", BOXES)
        labels = table(f"{SUBSET}-annotations-machine-imagelabels.csv", LABELS)
        for sample in export.samples:
            image, name = sample.image, sample.stem
            images.writerow([name, SUBSET, image.uri, *[""] * 4, image.image_id, image.byte_size, "", "", ""])
            boxes.writerows((name, "raylabel", *_box(box, image), *UNKNOWN) for box in image.boxes)
            labels.writerows((name, *label, score) for label, score in labels_of(image).items())


def labels_of(image: ImageRow) -> dict[tuple[str, str], float]:
    """The best score of each label by Source and LabelName; a classifier with a threshold has tags, too.

    What an object in it is, an image shows.
    """
    found: dict[tuple[str, str], float] = {}
    for label, score in image.topk:
        found.setdefault(("classifier", label), score)
    for tag in image.tags:
        key = tag.tagger, tag.label
        found[key] = max(tag.score, found.get(key, 0.0))
    return found


def _names(export: Export) -> list[str]:
    """The classes of boxes, and after them all labels that an image may have."""
    models = export.run.record.models.items()
    labels = [label for name, model in models if name != "detector" for label in model.classes]
    return list(dict.fromkeys([*export.classes, *labels]))


def _box(box: Box, image: ImageRow) -> tuple[str | float, ...]:
    """LabelName, Confidence, XMin, XMax, YMin, YMax."""
    across = (f"{x / image.width:.6f}" for x in (box.x1, box.x2))
    down = (f"{y / image.height:.6f}" for y in (box.y1, box.y2))
    return box.class_name, box.score, *across, *down


FORMAT = Format(
    name="openimages",
    about="Open Images CSV: boxes, labels of images, names of classes",
    keeps=frozenset({"boxes", "scores", "labels", "tags"}),
    write=write,
    photos=f"images/{SUBSET}",
)
