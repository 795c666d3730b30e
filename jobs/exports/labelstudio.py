"""Label Studio tasks with predictions: `tasks-00000.json` and on, and `config.xml` with the labels.

https://labelstud.io/guide/predictions; corners are percent of the upright photo.
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs.exports.arrays import JsonArray, as_json
from jobs.exports.base import Export, Format, Sample
from jobs.exports.rows import carried_names
from jobs.exports.xmls import attribute
from jobs.results.images import Box, ImageRow
from jobs.results.plain import plain
from jobs.results.text import scored
from workers.batched import chunks
from workers.storage.uris import is_local

DATA = ("image", "manifest_index", "image_id", "key", "uri", "label", "label_score", "tags")
"""The data of a task before the manifest's own columns."""

TASKS = 10_000
"""In a file; Label Studio takes files of up to 200 MB."""

SERVED = "/data/local-files/?d="
"""What Label Studio serves from a folder of its machine; its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""

DIGITS = 4
"""Behind the point of a percentage."""


def write(export: Export, folder: Path) -> None:
    """Writes the config and the tasks."""
    (folder / "config.xml").write_text(_config(export.classes), encoding="utf-8")
    detector = export.run.record.models.get("detector")
    version = detector.fingerprint if detector else None
    names = carried_names(export, DATA)
    for number, samples in enumerate(chunks(export.samples, TASKS)):
        with (folder / f"tasks-{number:05d}.json").open("x", encoding="utf-8") as file:
            tasks = JsonArray(file)
            for sample in samples:
                tasks.add(as_json(_task(sample, version, names, export)))
            tasks.end()


def _config(classes: tuple[str, ...]) -> str:
    """The labelling config, with every label that a prediction may have."""
    labels = "".join(f"    <Label value={attribute(name)}/>\n" for name in classes)
    boxes = f'  <RectangleLabels name="objects" toName="image">\n{labels}  </RectangleLabels>\n'
    return f'<View>\n  <Image name="image" value="$image"/>\n{boxes if classes else ""}</View>\n'


def _task(sample: Sample, version: str | None, names: dict[str, str], export: Export) -> dict[str, Any]:
    """A task; what is known of the image beside its boxes is data, which the data manager shows."""
    image = sample.image
    data: dict[str, Any] = {
        "image": _url(sample, export.into),
        "manifest_index": image.manifest_index,
        "image_id": image.image_id,
        "key": image.key,
        "uri": image.uri,
    }
    if image.topk:
        data |= {"label": image.topk[0][0], "label_score": image.topk[0][1]}
    if "tags" in export.run.tables.names:
        data["tags"] = [tag.label for tag in image.own_tags]
    data |= {names[name]: plain(value) for name, value in (image.carried or {}).items()}
    return (
        {"data": data} if version is None else {"data": data, "predictions": [_prediction(sample, version)]}
    )


def _url(sample: Sample, into: Path) -> str:
    """Where the browser finds a photo: a local one where Label Studio serves it."""
    if sample.folder:
        return SERVED + quote(f"{into.resolve().name}/{sample.path}")
    uri = sample.image.uri
    return SERVED + quote(uri.lstrip("/")) if is_local(uri) else uri


def _prediction(sample: Sample, version: str) -> dict[str, Any]:
    boxes = sample.image.boxes
    prediction: dict[str, Any] = {
        "model_version": version,
        "result": [
            _rectangle(f"{sample.id}-{number}", box, sample.image) for number, box in enumerate(boxes)
        ],
    }
    if boxes:
        prediction["score"] = sum(box.score for box in boxes) / len(boxes)
    return prediction


def _rectangle(name: str, box: Box, image: ImageRow) -> dict[str, Any]:
    """A region; its tags are what Label Studio shows of it as meta information."""
    x, y = 100 * box.x1 / image.width, 100 * box.y1 / image.height
    width, height = 100 * (box.x2 - box.x1) / image.width, 100 * (box.y2 - box.y1) / image.height
    tags = [f"{tag.tagger}: {scored(tag.label, tag.score)}" for tag in image.tags_of(box)]
    return {
        "id": name,
        **({"meta": {"text": tags}} if tags else {}),
        "type": "rectanglelabels",
        "from_name": "objects",
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "value": {
            "x": round(x, DIGITS),
            "y": round(y, DIGITS),
            "width": round(width, DIGITS),
            "height": round(height, DIGITS),
            "rotation": 0,
            "rectanglelabels": [box.class_name],
        },
        "score": box.score,
    }


FORMAT = Format(
    name="labelstudio",
    about="Label Studio tasks with predictions, and the labelling config",
    keeps=frozenset({"boxes", "scores", "labels", "tags", "carried"}),
    write=write,
    photos="images",
    note="Label Studio must reach the photos: connect their bucket, or serve their folder as local files",
)
