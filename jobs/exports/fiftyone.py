"""A FiftyOneImageDetectionDataset: `labels.json`, with photos in `data` or their paths in `data.json`.

https://docs.voxel51.com/user_guide/import_datasets.html; boxes are [x, y, width, height] from 0 to 1.
"""

from pathlib import Path
from typing import Any

from jobs.exports.arrays import JsonArray, as_json
from jobs.exports.base import Export, Format
from jobs.results.images import Box, ImageRow

DIGITS = 6
"""Behind the point of a share."""


def write(export: Export, folder: Path) -> None:
    """Writes the labels by the names of the photos, and where photos are not copied their places."""
    with (
        (folder / "labels.json").open("x", encoding="utf-8") as labels_file,
        (folder / "data.json").open("x", encoding="utf-8") as data_file,
    ):
        labels_file.write(f'{{"classes": {as_json(export.classes)}, "labels": ')
        labels, data = JsonArray(labels_file, "{}"), JsonArray(data_file, "{}")
        for sample in export.samples:
            boxes = [_detection(box, sample.image) for box in sample.image.boxes]
            labels.add(f'"{sample.stem}": {as_json(boxes)}')
            data.add(f'"{sample.stem}": {as_json(sample.image.uri)}')
        labels.end()
        data.end()
        labels_file.write("}\n")
    if export.copied:
        (folder / "data.json").unlink()


def _detection(box: Box, image: ImageRow) -> dict[str, Any]:
    x, y = box.x1 / image.width, box.y1 / image.height
    size = (box.x2 - box.x1) / image.width, (box.y2 - box.y1) / image.height
    return {
        "label": box.class_name,
        "bounding_box": [round(share, DIGITS) for share in (x, y, *size)],
        "confidence": box.score,
    }


FORMAT = Format(
    name="fiftyone",
    about="FiftyOne's FiftyOneImageDetectionDataset: labels.json",
    keeps=frozenset({"boxes", "scores"}),
    write=write,
    photos="data",
    needs_detector=True,
    reads_local=True,
)
