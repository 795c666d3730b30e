"""CVAT for images 1.1: `annotations.xml` to upload into a task, and `labels.json` for its constructor.

https://docs.cvat.ai/docs/manual/advanced/xml_format/; CVAT finds a frame by its name.
"""

from pathlib import Path

from jobs.exports.arrays import as_json
from jobs.exports.base import Export, Format, Sample
from jobs.exports.xmls import attribute, text
from jobs.results.images import Box
from jobs.results.text import as_path

DIGITS = 2
"""Behind the point of a pixel, as CVAT writes it."""

_SCORE = {"name": "score", "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
"""The attribute that keeps the score of a box; where a task's labels lack it, CVAT passes over it."""


def write(export: Export, folder: Path) -> None:
    """Writes the annotations and the labels."""
    labels = [{"name": name, "type": "rectangle", "attributes": [_SCORE]} for name in export.classes]
    (folder / "labels.json").write_text(as_json(labels) + "\n", encoding="utf-8")
    names = "".join(f"<label><name>{text(name)}</name></label>" for name in export.classes)
    with (folder / "annotations.xml").open("x", encoding="utf-8") as file:
        file.write(
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
            f"  <meta><task><labels>{names}</labels></task></meta>\n"
        )
        for number, sample in enumerate(export.samples):
            image = sample.image
            boxes = "".join(_box(box) for box in image.boxes)
            file.write(
                f"  <image id={attribute(number)} name={attribute(_name(sample))} "
                f"width={attribute(image.width)} height={attribute(image.height)}>\n{boxes}  </image>\n"
            )
        file.write("</annotations>\n")


def _name(sample: Sample) -> str:
    """The name of a frame: of a copied photo its file's, otherwise its path in its bucket or on its disk."""
    if sample.folder:
        return sample.name
    path = as_path(sample.image.uri)
    _, scheme, rest = path.partition("://")
    return rest.partition("/")[2] if scheme else path.lstrip("/")


def _box(box: Box) -> str:
    corners = {"xtl": box.x1, "ytl": box.y1, "xbr": box.x2, "ybr": box.y2}
    values = " ".join(f'{name}="{value:.{DIGITS}f}"' for name, value in corners.items())
    return (
        f'    <box label={attribute(box.class_name)} source="auto" occluded="0" {values} z_order="0">'
        f'<attribute name="score">{box.score}</attribute></box>\n'
    )


FORMAT = Format(
    name="cvat",
    about="CVAT for images 1.1: annotations.xml for a task, labels.json for its labels",
    keeps=frozenset({"boxes", "scores"}),
    write=write,
    photos="images",
    needs_detector=True,
)
