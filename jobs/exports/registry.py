"""The formats of `raylabel export`."""

from jobs.exports import (
    coco,
    coco_results,
    cvat,
    fiftyone,
    hf,
    labelstudio,
    lance,
    openimages,
    opensearch,
    sqlite,
    voc,
    yolo,
)
from jobs.exports.base import Format
from schemas.exceptions import SpecError

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        *(coco, coco_results, yolo, voc, openimages, labelstudio),
        *(cvat, hf, fiftyone, opensearch, sqlite, lance),
    )
}
"""By name, in the order in which they are listed."""


def format_of(name: str) -> Format:
    """The format of a name.

    Raises:
        SpecError: there is none.
    """
    if name not in FORMATS:
        raise SpecError(f"--format {name}: allowed are {', '.join(FORMATS)}")
    return FORMATS[name]
