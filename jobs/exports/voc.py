"""A Pascal VOC dataset: `Annotations/NAME.xml`, `ImageSets/Main/all.txt`, `JPEGImages` with copies.

Corners are whole pixels counted from 1, the last one included, as in the VOC development kit.
"""

import math
from pathlib import Path

from jobs.exports.base import Export, Format, Sample
from jobs.exports.xmls import text
from jobs.results.images import Box
from schemas.exceptions import SpecError

PHOTOS = "JPEGImages"

LABELMAP_HEAD = "# label:color_rgb:parts:actions\n"
"""The first line of `labelmap.txt`, where CVAT and Datumaro look for the names of classes."""


def write(export: Export, folder: Path) -> None:
    """Writes a file of annotations for each image, with no object where it has none.

    Raises:
        SpecError: a class has a name of several lines.
    """
    if several := next((name for name in export.classes if not name.isprintable()), None):
        raise SpecError(
            f"--format voc has a class a line, and the class {several!r} is no line of text; give it another "
            "name by --class-map, or leave it out"
        )
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    names = "".join(f"{name}:::\n" for name in export.classes)
    (folder / "labelmap.txt").write_text(LABELMAP_HEAD + names, encoding="utf-8")
    with (folder / "ImageSets" / "Main" / "all.txt").open("x", encoding="utf-8") as image_set:
        for sample in export.samples:
            with open(f"{folder}/Annotations/{sample.stem}.xml", "x", encoding="utf-8") as file:
                file.write(_annotation(sample, export.run.record.id))
            image_set.write(f"{sample.stem}\n")


def _annotation(sample: Sample, run: str) -> str:
    image = sample.image
    size = f"<width>{image.width}</width><height>{image.height}</height><depth>3</depth>"
    objects = "".join(_object(box) for box in image.boxes)
    return (
        f"<annotation>\n  <folder>{PHOTOS}</folder>\n  <filename>{sample.name}</filename>\n"
        f"  <path>{text(sample.path)}</path>\n  <source><database>raylabel {run}</database></source>\n"
        f"  <size>{size}</size>\n  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _object(box: Box) -> str:
    """A box: half-open [x1, x2) touches the pixels floor(x1) + 1 to ceil(x2), counted from 1."""
    corners = (
        f"<xmin>{math.floor(box.x1) + 1}</xmin><ymin>{math.floor(box.y1) + 1}</ymin>"
        f"<xmax>{math.ceil(box.x2)}</xmax><ymax>{math.ceil(box.y2)}</ymax>"
    )
    return (
        f"  <object>\n    <name>{text(box.class_name)}</name>\n    <pose>Unspecified</pose>\n"
        f"    <truncated>0</truncated>\n    <difficult>0</difficult>\n"
        f"    <confidence>{box.score}</confidence>\n    <bndbox>{corners}</bndbox>\n  </object>\n"
    )


FORMAT = Format(
    name="voc",
    about="Pascal VOC dataset: an XML file for each image, boxes in whole pixels",
    keeps=frozenset({"boxes", "scores"}),
    write=write,
    photos=PHOTOS,
    needs_detector=True,
    names_files=True,
)
