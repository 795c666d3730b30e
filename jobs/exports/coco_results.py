"""COCO's format of results: `results.json`, and `image_info.json` with its images and categories."""

from pathlib import Path

from jobs.exports.arrays import JsonArray, as_json
from jobs.exports.base import Export, Format
from jobs.exports.cocos import bbox_of, head_of, image_of


def write(export: Export, folder: Path) -> None:
    """Writes the results, and a dataset without annotations to load them into."""
    with (
        (folder / "results.json").open("x", encoding="utf-8") as results_file,
        (folder / "image_info.json").open("x", encoding="utf-8") as file,
    ):
        file.write(head_of(export))
        images, results = JsonArray(file), JsonArray(results_file)
        for sample in export.samples:
            images.add(as_json(image_of(sample)))
            for box in sample.image.boxes:
                result = {
                    "image_id": sample.id,
                    "category_id": box.class_id + 1,
                    "bbox": bbox_of(box),
                    "score": box.score,
                }
                results.add(as_json(result))
        images.end()
        file.write("}\n")
        results.end()
        results_file.write("\n")


FORMAT = Format(
    name="coco-results",
    about="COCO results, for pycocotools' loadRes: results.json; image_info.json has the ids",
    keeps=frozenset({"boxes", "scores"}),
    write=write,
    needs_detector=True,
)
