"""A YOLO dataset as Ultralytics reads it: `data.yaml`, `labels/NAME.txt`, `images/NAME.jpg`.

https://docs.ultralytics.com/datasets/detect/
"""

from pathlib import Path

import yaml

from jobs.exports.base import Export, Format
from jobs.results.images import Box, ImageRow

_HEAD = """\
# A split of your own: list photos in train.txt and val.txt, a path a line, and name these files here.
"""


def write(export: Export, folder: Path) -> None:
    """Writes a file of labels for each image, an empty one where it has no object."""
    (folder / "labels").mkdir()
    names = dict(enumerate(export.classes))
    data = yaml.safe_dump(
        {"train": "images", "val": "images", "names": names}, sort_keys=False, allow_unicode=True
    )
    (folder / "data.yaml").write_text(_HEAD + data, encoding="utf-8")
    for sample in export.samples:
        lines = (_line(box, sample.image) for box in sample.image.boxes)
        with open(f"{folder}/labels/{sample.stem}.txt", "x", encoding="ascii") as file:
            file.writelines(lines)


def _line(box: Box, image: ImageRow) -> str:
    """Class, centre, width and height from 0 to 1."""
    across, down = 2 * image.width, 2 * image.height
    centre = (box.x1 + box.x2) / across, (box.y1 + box.y2) / down
    size = (box.x2 - box.x1) * 2 / across, (box.y2 - box.y1) * 2 / down
    return f"{box.class_id} {centre[0]:.6f} {centre[1]:.6f} {size[0]:.6f} {size[1]:.6f}\n"


FORMAT = Format(
    name="yolo",
    about="YOLO dataset: data.yaml, a file of labels for each image",
    keeps=frozenset({"boxes"}),
    write=write,
    photos="images",
    needs_detector=True,
    names_files=True,
)
