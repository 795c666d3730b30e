"""docs/models.md, "I have X, what do I write?": each line labels a photo with a file that is made here."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from onnx import helper

from schemas.exceptions import ImageError
from schemas.spec_file import build_spec
from tests.workers.models.alone import Alone
from tests.workers.models.onnx.exports import (
    STRIDES,
    KnownBoxes,
    UnderLayout,
    cells,
    export,
    model_of,
    saved,
    ultralytics,
    with_metadata,
)
from tests.workers.models.pictures import ROOT, noise
from workers.models.registry import load_all

PAGE = ROOT / "docs" / "models.md"
NAMES = ("cat", "dog", "car")
SIZE = (64, 64)
CELLS = len(cells(*SIZE))


def rows() -> dict[str, str]:
    """The lines of the page's first table, that of ONNX files, by what one has."""
    part = PAGE.read_text(encoding="utf-8").partition("## I have X, what do I write?\n")[2]
    text = part.partition("| I have |")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| (.+?) \| `(.+)` \|$", text, re.MULTILINE))


def detector(layout: str, file: str, places: int = CELLS, metadata: dict[str, str] | None = None) -> None:
    """A detector that finds a cat with a score of 0.9 (0.45 where there is an objectness)."""
    boxes = np.tile(np.array([8, 8, 40, 48], np.float32), (places, 1))
    scores = np.zeros((places, len(NAMES)), np.float32)
    scores[5, 0] = 0.9
    export(
        UnderLayout(KnownBoxes(boxes, scores), layout, SIZE),
        Path(file),
        SIZE,
        layout=layout,
        metadata=metadata,
    )
    Path("names.txt").write_text("\n".join(NAMES))


def row_of(file: str, *, channels_last: bool = False, last: str = "Identity", classes: int = 3) -> None:
    """A classifier of 224 x 224 pixels; or features, which are its scores."""
    shape: list[int | str] = ["n", 224, 224, 3] if channels_last else ["n", 3, 224, 224]
    axes = [1, 2] if channels_last else [2, 3]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["row"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["row", "weights"], ["logits"]),
        helper.make_node(last, ["logits"], ["out"]),
    ]
    weights = {"weights": np.eye(3, classes, dtype=np.float32)}
    saved(model_of(nodes, {"images": shape}, {"out": ["n", classes]}, weights), Path(file))
    Path("names.txt").write_text("\n".join(NAMES))


def ultralytics_classifier() -> None:
    row_of("yolo11n-cls.onnx", last="Softmax")
    with_metadata(Path("yolo11n-cls.onnx"), ultralytics(NAMES, "classify", imgsz="[224, 224]"))


OF_ULTRALYTICS = ultralytics(NAMES, imgsz=str(list(SIZE)))

MAKERS: dict[str, Callable[[], None]] = {
    "YOLOv8, v9, 11 or 12, exported by Ultralytics": lambda: detector(
        "yolov8", "yolo11n.onnx", metadata=OF_ULTRALYTICS
    ),
    "YOLOv10, YOLO26, or any YOLO exported with `nms=True`": lambda: detector(
        "end2end", "yolov10n.onnx", 300, OF_ULTRALYTICS
    ),
    "YOLOv5, exported by its own `export.py`": lambda: detector(
        "yolov5", "yolov5s.onnx", 3 * CELLS, {"stride": str(STRIDES[-1]), "names": str(list(NAMES))}
    ),
    "YOLOv6": lambda: detector("yolov5", "yolov6n.onnx"),
    "YOLOX": lambda: detector("yolox", "yolox_s.onnx"),
    "YOLO-NAS": lambda: detector("yolo-nas", "yolo_nas_s.onnx"),
    "RF-DETR": lambda: detector("rf-detr", "rf-detr.onnx", 300),
    "RT-DETR or D-FINE, exported by its own `export_onnx.py`": lambda: detector("rt-detr", "dfine.onnx", 300),
    "NudeNet's `320n.onnx`": lambda: detector("yolov8", "320n.onnx", metadata=OF_ULTRALYTICS),
    "a classifier exported by Ultralytics": ultralytics_classifier,
    "a classifier of torchvision or timm as ONNX": lambda: row_of("resnet50.onnx"),
    "Yahoo's open_nsfw as ONNX": lambda: row_of(
        "open-nsfw.onnx", channels_last=True, last="Softmax", classes=2
    ),
    "several labels an image as ONNX, logits": lambda: row_of("scenes.onnx"),
    "features as ONNX": lambda: row_of("dinov2.onnx"),
}
"""What makes the files of each line, in the working directory."""


def test_every_line_of_the_page_is_tried() -> None:
    assert rows().keys() == MAKERS.keys()


@pytest.mark.parametrize("have", MAKERS)
def test_what_the_page_says_to_write_labels_an_image(
    have: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    MAKERS[have]()
    section = yaml.safe_load(rows()[have])
    left_out = {"classifier": None, "detector": None}
    spec = build_spec({"manifest": "a.csv", "output": "out", **left_out, **section}, "the page")
    image = noise(0, 64, 64)
    for loaded in load_all(spec.models).values():
        (result,) = Alone(loaded, 1)([image])
        assert not isinstance(result, ImageError)
        if isinstance(result, np.ndarray):
            assert result.shape == (3,)
            continue
        assert result.scores.size
        assert loaded.model.categories[0] in ("cat", "sfw")
        if loaded.spec.task.name == "detector":
            np.testing.assert_allclose(result.boxes[0], [8, 8, 40, 48], atol=1e-3)
            assert loaded.model.categories[result.class_ids[0]] == "cat"
    assert torch.get_num_threads() == 1
