"""Detectors in ONNX files: each layout with known boxes, which are worked out here in another way."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper

from schemas.exceptions import ModelError
from schemas.images import DecodedImage, Detections
from schemas.tasks import DetectorSpec, InputSpec
from tests.workers.models.alone import Alone
from tests.workers.models.onnx.exports import (
    KnownBoxes,
    UnderLayout,
    cells,
    export,
    model_of,
    saved,
    ultralytics,
)
from tests.workers.models.pictures import noise
from workers.models.onnx.layouts import boxes_and_scores
from workers.models.registry import load

SIZE = (64, 96)
"""Height and width of the networks' input."""

NAMES = ("cat", "dog", "car")
PLACES = len(cells(*SIZE))

OBJECTS: list[tuple[list[float], int, float]] = [
    ([10.0, 12.0, 40.0, 44.0], 0, 0.9),
    ([11.0, 12.0, 41.0, 45.0], 0, 0.8),  # the same cat again
    ([11.0, 12.0, 41.0, 45.0], 1, 0.7),  # a dog in the same place
    ([50.0, 20.0, 90.0, 60.0], 2, 0.6),
    ([2.0, 3.0, 8.0, 9.0], 1, 0.3),
]
"""Corners in input pixels, class, score."""

OPEN_SCORES = ("yolov8", "end2end", "yolo-nas", "rf-detr", "rt-detr")
"""Layouts without an objectness; in the others it is 0.5 here."""

REMOVES_DOUBLES = ("end2end", "rf-detr", "rt-detr")
"""Layouts whose networks answer with final boxes."""


def known(places: int) -> KnownBoxes:
    boxes = np.tile(np.array([1, 1, 3, 3], np.float32), (places, 1))
    scores = np.zeros((places, len(NAMES)), np.float32)
    for place, (box, label, score) in enumerate(OBJECTS, start=7):
        boxes[place], scores[place, label] = box, score
    return KnownBoxes(boxes, scores)


def exported(folder: Path, layout: str, **more: object) -> Path:
    places = 300 if layout in REMOVES_DOUBLES else 3 * PLACES if layout == "yolov5" else PLACES
    module = UnderLayout(known(places), layout, SIZE)
    return export(module, folder / f"{layout}.onnx", SIZE, layout=layout, **more)  # type: ignore[arg-type]


def spec_of(file: Path, of: str, **more: object) -> DetectorSpec:
    stated = {"layout": of} if of == "yolox" else {}
    values = {"model": str(file), "categories": list(NAMES), "score_threshold": 0.1, **stated, **more}
    return DetectorSpec(**values)  # type: ignore[arg-type]


def expected(layout: str, width: int, height: int) -> list[tuple[str, float, list[float]]]:
    """The objects in an image, best first: class, score, corners in its pixels, inside of it."""
    down, across = SIZE
    if layout in ("rf-detr", "rt-detr"):
        gain, left, top = np.array([across / width, down / height]), 0, 0
    else:
        ratio = min(across / width, down / height)
        gain = np.array([ratio, ratio])
        left, top = (
            (0, 0)
            if layout == "yolox"
            else (
                round((across - round(width * ratio)) / 2 - 0.1),
                round((down - round(height * ratio)) / 2 - 0.1),
            )
        )
    found = []
    for number, (box, label, score) in enumerate(OBJECTS):
        if number == 1 and layout not in REMOVES_DOUBLES:
            continue
        corners = (np.array(box).reshape(2, 2) - [left, top]) / gain
        corners = corners.clip(0, [width, height])
        if (corners[1] > corners[0]).all():
            whole = score if layout in OPEN_SCORES else score / 2
            found.append((NAMES[label], whole, corners.flatten().tolist()))
    return found


def close(result: Detections, layout: str, image: DecodedImage) -> None:
    """Asserts that a result is what is expected of a layout."""
    objects = expected(layout, image.width, image.height)
    assert [NAMES[label] for label in result.class_ids] == [name for name, _, _ in objects]
    np.testing.assert_allclose(result.scores, [score for _, score, _ in objects], atol=1e-6)
    np.testing.assert_allclose(result.boxes, [box for _, _, box in objects], atol=1e-3)
    assert result.boxes.dtype == np.float32


IMAGES = [noise(0, height, width) for height, width in ((64, 96), (333, 517), (480, 101), (20, 31))]


@pytest.mark.parametrize("layout", ["yolov8", "yolov5", "yolox", "end2end", "yolo-nas", "rf-detr", "rt-detr"])
@pytest.mark.parametrize("dynamic", [True, False])
def test_boxes_of_each_layout_are_in_pixels_of_the_image_whatever_the_batch(
    tmp_path: Path, layout: str, dynamic: bool
) -> None:
    loaded = load(spec_of(exported(tmp_path, layout, dynamic=dynamic), layout))
    assert loaded.resolved.parts == {"layout": layout}
    for batch in (1, 3):
        for result, image in zip(Alone(loaded, batch)(IMAGES), IMAGES, strict=True):
            close(result, layout, image)


def test_metadata_of_ultralytics_says_all_that_is_to_be_known(tmp_path: Path) -> None:
    module = UnderLayout(known(PLACES), "yolov8", SIZE)
    metadata = ultralytics(
        NAMES, imgsz=str(list(SIZE)), args="{'nms': False, 'half': False}", license="AGPL-3.0"
    )
    file = export(module, tmp_path / "yolo11n.onnx", SIZE, metadata=metadata)
    loaded = load(DetectorSpec(model=str(file), score_threshold=0.1))
    assert loaded.model.categories == NAMES
    resolved = loaded.resolved
    assert (resolved.info.name, resolved.info.source, resolved.info.input_size) == (
        "yolo11n.onnx",
        "onnx",
        "64x96",
    )
    assert resolved.info.licence == "AGPL-3.0"
    close(Alone(loaded, 1)([IMAGES[1]])[0], "yolov8", IMAGES[1])


def test_a_half_precision_file_gets_half_precision(tmp_path: Path) -> None:
    file = exported(tmp_path, "yolov8", dtype=torch.float16)
    loaded = load(spec_of(file, "yolov8"))
    (result,) = Alone(loaded, 1)(IMAGES[:1])
    objects = expected("yolov8", 96, 64)
    np.testing.assert_allclose(result.scores, [score for _, score, _ in objects], atol=1e-3)
    np.testing.assert_allclose(result.boxes, [box for _, _, box in objects], atol=0.05)


def test_a_file_of_whole_numbers_gets_pixels_as_they_are(tmp_path: Path) -> None:
    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = UnderLayout(known(PLACES), "yolov8", SIZE)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            bright = (images.float().mean(dim=(1, 2, 3)) > 100).float()[:, None, None]
            found: torch.Tensor = self.inner(images.float()) * bright
            return found

    file = export(Whole(), tmp_path / "whole.onnx", SIZE, dtype=torch.uint8)
    close(Alone(load(spec_of(file, "yolov8")), 1)(IMAGES[:1])[0], "yolov8", IMAGES[0])


def test_thresholds_nms_and_the_most_boxes_are_the_specs(tmp_path: Path) -> None:
    file = exported(tmp_path, "yolov8")

    def scores(**settings: object) -> NDArray[np.float32]:
        (result,) = Alone(load(spec_of(file, "yolov8", **settings)), 1)(IMAGES[:1])
        assert isinstance(result, Detections)
        return result.scores.round(2)

    np.testing.assert_allclose(scores(score_threshold=0.5), [0.9, 0.7, 0.6])
    np.testing.assert_allclose(scores(nms_iou=0.99), [0.9, 0.8, 0.7, 0.6, 0.3])
    np.testing.assert_allclose(scores(max_boxes=2), [0.9, 0.7])
    np.testing.assert_allclose(scores(class_thresholds={"cat": 0.95, "dog": 0.65}), [0.7, 0.6])


@pytest.mark.parametrize("layout", REMOVES_DOUBLES)
def test_an_overlap_is_refused_where_the_network_removes_doubles_itself(tmp_path: Path, layout: str) -> None:
    file = exported(tmp_path, layout)
    with pytest.raises(
        ModelError,
        match=r"^nms_iou: found 0\.5, but .* gives an object one box by itself; leave nms_iou out$",
    ):
        load(spec_of(file, layout, nms_iou=0.5))


def test_an_ambiguous_file_is_refused_with_the_candidates_and_the_lines_to_add(tmp_path: Path) -> None:
    file = exported(tmp_path, "yolox")
    message = (
        f"yolox.onnx does not say what its output means: it may be yolov5 (one output of (1, {PLACES}, 8): "
        "a box, an "
        f"objectness and 3 classes at {PLACES} places); yolox (one output of (1, {PLACES}, 8): a box, an "
        "objectness "
        "and 3 classes for each cell of its input's grids); add `layout: yolov5` or `layout: yolox`"
    )
    with pytest.raises(ModelError, match=re.escape(message)):
        load(DetectorSpec(model=str(file), categories=list(NAMES)))


@pytest.mark.parametrize("layout", ["yolox", "yolov5"])
def test_a_yolo_of_one_class_and_a_small_input_is_not_taken_for_final_boxes(
    tmp_path: Path, layout: str
) -> None:
    """Its rows have six numbers, too, and there are fewer than a thousand."""
    places = PLACES if layout == "yolox" else 3 * PLACES
    boxes = np.tile(np.array([1, 1, 3, 3], np.float32), (places, 1))
    boxes[7], scores = OBJECTS[0][0], np.zeros((places, 1), np.float32)
    scores[7] = 0.9
    module = UnderLayout(KnownBoxes(boxes, scores), layout, SIZE)
    file = export(module, tmp_path / "one.onnx", SIZE, layout=layout)
    spec = DetectorSpec(model=str(file), categories=["cat"], score_threshold=0.1)
    if layout == "yolox":
        with pytest.raises(
            ModelError, match=r"add `layout: yolov5` or `layout: yolox` or `layout: end2end`$"
        ):
            load(spec)
        spec = spec.model_copy(update={"layout": "yolox"})
    loaded = load(spec)
    assert loaded.resolved.parts == {"layout": layout}
    (result,) = Alone(loaded, 1)(IMAGES[:1])
    np.testing.assert_allclose(result.scores, [0.45], atol=1e-6)
    np.testing.assert_allclose(result.boxes, [OBJECTS[0][0]], atol=1e-3)


def test_a_file_that_cannot_have_the_stated_layout_is_refused_with_what_it_can_have(tmp_path: Path) -> None:
    file = exported(tmp_path, "yolov8")
    with pytest.raises(
        ModelError,
        match=r"layout: rt-detr is three outputs .*, but yolov8\.onnx has the output .*; "
        "it can be yolov8",
    ):
        load(spec_of(file, "yolov8", layout="rt-detr"))
    with pytest.raises(
        ModelError, match=r"layout: found 'yolo8'; allowed: yolov8, .*\(did you mean yolov8\?\)"
    ):
        load(spec_of(file, "yolov8", layout="yolo8"))


def test_detr_and_rf_detr_look_alike_so_the_layout_must_be_stated(tmp_path: Path) -> None:
    module = UnderLayout(known(300), "rf-detr", SIZE)
    file = export(module, tmp_path / "detr.onnx", SIZE, outputs=("pred_boxes", "logits"))
    with pytest.raises(ModelError, match=r"may be rf-detr .*; add `layout: rf-detr`"):
        load(DetectorSpec(model=str(file), categories=list(NAMES)))
    (result,) = Alone(load(spec_of(file, "rf-detr", layout="rf-detr")), 1)(IMAGES[1:2])
    close(result, "rf-detr", IMAGES[1])


def test_class_names_must_be_known_and_as_many_as_the_classes(tmp_path: Path) -> None:
    file = exported(tmp_path, "yolov8")
    with pytest.raises(
        ModelError, match=r"does not say how its 3 classes are called; add `categories: names\.txt`"
    ):
        load(DetectorSpec(model=str(file)))
    with pytest.raises(ModelError, match=r"categories: found 2 class names, but yolov8\.onnx has 3 classes"):
        load(DetectorSpec(model=str(file), categories=["cat", "dog"]))


def test_the_size_of_a_file_for_any_size_must_be_known(tmp_path: Path) -> None:
    class AnySize(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(images, 8).flatten(2).repeat(1, 3, 1)[:, :7]

    file = export(AnySize(), tmp_path / "any.onnx", (64, 64), any_size=True)
    with pytest.raises(
        ModelError, match=r"takes images of any size and does not say which .*; add `input: {size: 640}`"
    ):
        load(DetectorSpec(model=str(file), categories=list(NAMES)))
    spec = DetectorSpec(
        model=str(file), categories=list(NAMES), layout="yolov8", input=InputSpec(size=[32, 64])
    )
    assert load(spec).resolved.info.input_size == "32x64"
    fixed = exported(tmp_path, "yolov8")
    with pytest.raises(ModelError, match=r"input\.size: found 32x32, but yolov8\.onnx is made for 64x96"):
        load(spec_of(fixed, "yolov8", input=InputSpec(size=32)))


def test_what_a_spec_says_of_the_input_goes_before_the_layout(tmp_path: Path) -> None:
    file = exported(tmp_path, "yolov8")
    square = load(spec_of(file, "yolov8", input=InputSpec(letterbox="none", channels="bgr", scale=1.0)))
    assert square.resolved.preprocessing == (
        "size: [64, 96], letterbox: none, interpolation: linear, channels: bgr, scale: 1, mean: 0, std: 1"
    )
    (result,) = Alone(square, 1)(IMAGES[1:2])
    image, gain = IMAGES[1], np.array([96 / 517, 64 / 333] * 2)
    np.testing.assert_allclose(result.boxes[0], np.array(OBJECTS[0][0]) / gain, atol=1e-3)
    assert (image.width, image.height) == (517, 333)
    default = load(spec_of(file, "yolov8"))
    assert default.resolved.fingerprint != square.resolved.fingerprint


def test_a_network_that_answers_nan_is_refused_before_anything_starts(tmp_path: Path) -> None:
    boxes = np.full((PLACES, 4), np.nan, np.float32)
    module = UnderLayout(KnownBoxes(boxes, np.zeros((PLACES, 3), np.float32)), "yolov8", SIZE)
    file = export(module, tmp_path / "nan.onnx", SIZE)
    with pytest.raises(ModelError, match=r"nan\.onnx answers with NaN or infinity for an image of noise"):
        load(DetectorSpec(model=str(file), categories=list(NAMES)))


@pytest.mark.parametrize(
    ("task", "hint"),
    [("classify", "name it under `classifier:`"), ("segment", "export a model for `task=detect`")],
)
def test_a_file_of_another_task_is_refused(tmp_path: Path, task: str, hint: str) -> None:
    module = UnderLayout(known(PLACES), "yolov8", SIZE)
    file = export(module, tmp_path / "x.onnx", SIZE, metadata=ultralytics(NAMES, task))
    with pytest.raises(ModelError, match=f"says that its task is {task}, which is no detector's; {hint}"):
        load(DetectorSpec(model=str(file)))


@pytest.mark.parametrize(
    ("shape", "shown"),
    [(["n", 4], "(1, 4)"), (["n", 4, 1, 1], "(1, 4, 1, 1)")],
)
@pytest.mark.parametrize("side", [64, "side"])
def test_a_classifier_named_as_a_detector_is_told_before_what_it_lacks(
    tmp_path: Path, shape: list[int | str], shown: str, side: int | str
) -> None:
    pooled = helper.make_node("GlobalAveragePool", ["images"], ["mean"])
    mixed = helper.make_node("Conv", ["mean", "weights"], ["out" if len(shape) == 4 else "mixed"])
    flat = [helper.make_node("Flatten", ["mixed"], ["out"])] if len(shape) == 2 else []
    weights = {"weights": np.ones((4, 3, 1, 1), np.float32)}
    model = model_of([pooled, mixed, *flat], {"images": ["n", 3, side, side]}, {"out": shape}, weights)
    with pytest.raises(ModelError) as caught:
        load(DetectorSpec(model=str(saved(model, tmp_path / "a.onnx"))))
    assert str(caught.value) == (
        f"a.onnx is no detector: found the output 'out' {shown}, numbers for the image as a whole; name it "
        "under `classifier:`, `embedder:` or in `taggers:`"
    )


def test_boxes_of_yolo_nas_come_first_where_names_of_outputs_say_nothing() -> None:
    shapes = {"o913": (1, 84, 4), "o904": (1, 84, 4)}
    assert boxes_and_scores(shapes) == ("o913", "o904")
    assert boxes_and_scores({"a": (1, 84, 4), "boxes": (1, 84, 4)}) == ("boxes", "a")
    assert boxes_and_scores({"boxes": (1, 84, 4), "dets": (1, 84, 4)}) == ("boxes", "dets")
    assert boxes_and_scores({"scores": (1, 84, 80), "b": (1, 84, 4)}) == ("b", "scores")
