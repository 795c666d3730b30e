"""Open Images' tables in CSV: boxes, labels of images, names of classes.

https://storage.googleapis.com/openimages/web/download_v7.html; `ImageID` is the name of a photo's
file without its ending, `LabelName` the name of a class. Corners are shares from 0 to 1, XMax before YMin.
"""

import csv
from pathlib import Path

from jobs.exports.arrays import score_of
from jobs.exports.base import Export, Format
from jobs.results.images import Box, ImageRow

BOXES = (
    *("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    *("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"),
)
"""Columns of boxes, in Open Images' order."""

LABELS = ("ImageID", "Source", "LabelName", "Confidence")

UNKNOWN = (-1,) * 5
"""Of the five properties of a box that only people tell."""


def write(export: Export, folder: Path) -> None:
    """Writes the tables; those of boxes and classes where a detector ran."""
    if export.has_classes:
        with (folder / "class-descriptions-boxable.csv").open("x", encoding="utf-8", newline="") as file:
            classes = csv.writer(file, lineterminator="\n")
            classes.writerows([("LabelName", "DisplayName"), *((name, name) for name in export.classes)])
    with (
        (folder / "annotations-bbox.csv").open("x", encoding="utf-8", newline="") as boxes_file,
        (folder / "annotations-machine-imagelabels.csv").open("x", encoding="utf-8", newline="") as file,
    ):
        boxes, labels = (csv.writer(it, lineterminator="\n") for it in (boxes_file, file))
        boxes.writerow(BOXES)
        labels.writerow(LABELS)
        for sample in export.samples:
            image, name = sample.image, sample.stem
            boxes.writerows((name, "raylabel", *_box(box, image), *UNKNOWN) for box in image.boxes)
            labels.writerows((name, "classifier", label, score_of(score)) for label, score in image.topk)
            labels.writerows((name, tag.tagger, tag.label, score_of(tag.score)) for tag in image.tags)


def _box(box: Box, image: ImageRow) -> tuple[str | float, ...]:
    """LabelName, Confidence, XMin, XMax, YMin, YMax."""
    across = (f"{x / image.width:.6f}" for x in (box.x1, box.x2))
    down = (f"{y / image.height:.6f}" for y in (box.y1, box.y2))
    return box.class_name, score_of(box.score), *across, *down


FORMAT = Format(
    name="openimages",
    about="Open Images CSV: boxes, labels of images, names of classes",
    keeps=frozenset({"boxes", "scores", "labels", "tags"}),
    write=write,
    photos="images",
    names_files=True,
)
