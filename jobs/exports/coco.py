"""A COCO dataset: `annotations/instances_all.json`, and the photos in `images` where they are copied."""

from pathlib import Path

from jobs.exports.arrays import JsonArray, as_json, set_aside
from jobs.exports.base import Export, Format
from jobs.exports.cocos import DIGITS, bbox_of, head_of, image_of


def write(export: Export, folder: Path) -> None:
    """Writes the dataset; an annotation has the score of its box beside COCO's own keys."""
    number = 0
    (folder / "annotations").mkdir()
    with (folder / "annotations" / "instances_all.json").open("x", encoding="utf-8") as file:
        with set_aside(file, folder) as later:
            file.write(head_of(export))
            images, annotations = JsonArray(file), JsonArray(later)
            for sample in export.samples:
                images.add(as_json(image_of(sample)))
                for box in sample.image.boxes:
                    number += 1
                    bbox = bbox_of(box)
                    annotation = {
                        "id": number,
                        "image_id": sample.id,
                        "category_id": box.class_id + 1,
                        "bbox": bbox,
                        "area": round(bbox[2] * bbox[3], DIGITS),
                        "iscrowd": 0,
                        "score": box.score,
                    }
                    annotations.add(as_json(annotation))
            images.end()
            annotations.end()
            file.write(', "annotations": ')
        file.write("}\n")


FORMAT = Format(
    name="coco",
    about="COCO dataset: annotations/instances_all.json",
    keeps=frozenset({"boxes", "scores"}),
    write=write,
    photos="images",
    needs_detector=True,
)
