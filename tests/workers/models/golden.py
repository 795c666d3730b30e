"""What the two built-in models answer on the demo photos, kept in golden.json.

Record it again with `python -m tests.workers.models.golden`, and look at the difference before committing it.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.images import Classification, Detections
from schemas.tasks import ClassifierSpec, DetectorSpec
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import photos
from workers.models.registry import load

PATH = Path(__file__).with_name("golden.json")
COMMAND = "python -m tests.workers.models.golden"


def expected(part: str) -> dict[str, Any]:
    """The recorded answers of "classifier" or "detector", by photo."""
    if not PATH.exists():
        raise FileNotFoundError(f"{PATH.name} is missing; record it with: {COMMAND}")
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))[part]
    return found


def classify(batch_size: int) -> dict[str, Any]:
    """The five best classes of each demo photo."""
    names, images = zip(*photos().items(), strict=True)
    results = Alone(load(ClassifierSpec()), batch_size)(images)
    return {
        name: {"label_ids": x.label_ids.tolist(), "scores": x.scores.tolist()}
        for name, x in zip(names, results, strict=True)
        if isinstance(x, Classification)
    }


def detect(batch_size: int) -> dict[str, Any]:
    """The objects of each demo photo at the default threshold."""
    names, images = zip(*photos().items(), strict=True)
    results = Alone(load(DetectorSpec()), batch_size)(images)
    return {
        name: {"class_ids": x.class_ids.tolist(), "scores": x.scores.tolist(), "boxes": x.boxes.tolist()}
        for name, x in zip(names, results, strict=True)
        if isinstance(x, Detections)
    }


def assert_recorded(tables: dict[str, pa.Table], photos: list[str]) -> None:
    """Asserts that the tables of a run hold what is recorded of demo photos, whatever their URIs are.

    Args:
        tables: the labels and the boxes.
        photos: the name of each labelled row's photo.
    """
    labels, boxes = tables["labels"].to_pylist(), tables["boxes"].to_pylist()
    best, objects = expected("classifier"), expected("detector")
    for row, name in zip(labels, photos, strict=True):
        assert [top["label_id"] for top in row["topk"]] == best[name]["label_ids"]
        assert [top["score"] for top in row["topk"]] == pytest.approx(best[name]["scores"], abs=1e-4)
        own = [box for box in boxes if box["manifest_index"] == row["manifest_index"]]
        assert [box["class_id"] for box in own] == objects[name]["class_ids"]
        assert [box["score"] for box in own] == pytest.approx(objects[name]["scores"], abs=1e-4)
        assert row["object_count"] == len(own)
        for box, corners in zip(own, objects[name]["boxes"], strict=True):
            assert [box[side] for side in ("x1", "y1", "x2", "y2")] == pytest.approx(corners, abs=0.05)


def main() -> None:
    """Records golden.json, one image at a time."""
    answers = {"classifier": classify(1), "detector": detect(1)}
    rounded = json.loads(json.dumps(answers), parse_float=lambda text: round(float(text), 5))
    PATH.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
