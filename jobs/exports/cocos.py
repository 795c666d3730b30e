"""What COCO's files have in common: images, categories, boxes.

https://cocodataset.org/#format-data
"""

from typing import Any

from jobs.exports.arrays import as_json
from jobs.exports.base import Export, Sample
from jobs.results.images import Box

DIGITS = 3
"""Behind the point of a pixel; float32 has as many up to 8,000 pixels."""


def head_of(export: Export) -> str:
    """The beginning of a dataset, up to the array of its images; ids of categories start from 1."""
    record = export.run.record
    info = {
        "description": f"labelled by raylabel {record.raylabel}, run {record.id}",
        "date_created": record.created_at.isoformat(),
    }
    categories = [{"id": number, "name": name} for number, name in enumerate(export.classes, 1)]
    return f'{{"info": {as_json(info)}, "licenses": [], "categories": {as_json(categories)}, "images": '


def image_of(sample: Sample) -> dict[str, Any]:
    """An image of a dataset; `uri`, `key` and `own_id` (the manifest's) are beside COCO's own.

    `file_name` is that of the copy in its folder, or where photos are not copied the URI.
    """
    image = sample.image
    values: dict[str, Any] = {
        "id": sample.id,
        "width": image.width,
        "height": image.height,
        "file_name": sample.name if sample.folder else image.uri,
        "uri": image.uri,
        "key": image.key,
    }
    return values if image.image_id is None else {**values, "own_id": image.image_id}


def bbox_of(box: Box) -> list[float]:
    """A box as x, y, width, height in pixels of the upright image."""
    x, y = round(box.x1, DIGITS), round(box.y1, DIGITS)
    return [x, y, round(box.x2 - x, DIGITS), round(box.y2 - y, DIGITS)]
