import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage, Detections
from schemas.tasks import DETECT, DetectorSpec
from tests.workers.models import golden
from tests.workers.models.alone import Alone, unresolved
from tests.workers.models.pictures import EVAL, noise, one_thread, opened, photos
from workers.models.detector import clip, select
from workers.models.model import DetectorModel, LoadedModel, as_is
from workers.models.registry import load

SCORES = 1e-4
PIXELS = 0.05
COCO = EVAL / "coco64"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def average_precision(results: list[Detections], image_ids: list[int]) -> float:
    """COCO's AP of class ids 0..79 against coco64's categories 1..80."""
    from pycocotools import coco
    from pycocotools.cocoeval import COCOeval

    found = [
        {
            "image_id": image_id,
            "category_id": int(class_id) + 1,
            "score": float(score),
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
        }
        for image_id, result in zip(image_ids, results, strict=True)
        for (x1, y1, x2, y2), score, class_id in zip(
            result.boxes, result.scores, result.class_ids, strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(COCO / "annotations.json"))
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.skipif(not COCO.exists(), reason="the photos to measure against are not here")
def test_the_built_in_detector_is_as_right_as_its_reference() -> None:
    listed = json.loads((COCO / "annotations.json").read_text(encoding="utf-8"))["images"]
    images = [opened(COCO / image["file_name"]) for image in listed]
    results = Alone(load(DetectorSpec(score_threshold=0.05)), 8)(images)
    found = [x for x in results if isinstance(x, Detections)]
    assert abs(average_precision(found, [image["id"] for image in listed]) - 0.325) < 0.002
    assert sum(int((x.scores > 0.4).sum()) for x in found) == 228


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_objects_of_the_demo_photos_are_as_recorded(batch_size: int) -> None:
    expected = golden.expected("detector")
    found = golden.detect(batch_size)
    assert found.keys() == expected.keys()
    assert sum(len(x["scores"]) for x in expected.values()) > 3
    for name in expected:
        assert found[name]["class_ids"] == expected[name]["class_ids"], name
        np.testing.assert_allclose(found[name]["scores"], expected[name]["scores"], atol=SCORES, rtol=0)
        np.testing.assert_allclose(found[name]["boxes"], expected[name]["boxes"], atol=PIXELS, rtol=0)


def test_bfloat16_finds_the_same_best_object_in_the_astronauts_portrait() -> None:
    (found,) = Alone(load(DetectorSpec()), 4, "bfloat16")([photos()["astronaut.png"]])
    assert isinstance(found, Detections)
    assert found.class_ids[0] == golden.expected("detector")["astronaut.png"]["class_ids"][0]


def test_a_higher_threshold_keeps_exactly_the_boxes_above_it() -> None:
    images = list(photos().values())
    low = Alone(load(DetectorSpec(score_threshold=0.05)), 4)(images)
    high = Alone(load(DetectorSpec(score_threshold=0.3)), 4)(images)
    for a, b in zip(low, high, strict=True):
        assert isinstance(a, Detections)
        assert isinstance(b, Detections)
        np.testing.assert_array_equal(a.boxes[a.scores > np.float32(0.3)], b.boxes)


FLOATS = st.floats(-1000, 1000, width=32)
SIDE = st.integers(1, 300)


@st.composite
def objects(draw: st.DrawFn) -> Detections:
    n = draw(st.integers(0, 12))
    return Detections(
        draw(arrays(np.float32, (n, 4), elements=FLOATS)),
        draw(arrays(np.float32, n, elements=st.sampled_from([np.float32(x / 8) for x in range(9)]))),
        draw(arrays(np.int32, n, elements=st.integers(0, 2))),
    )


@given(objects(), SIDE, SIDE, st.none() | st.integers(1, 5))
def test_selected_objects_lie_inside_the_image_in_score_order_above_their_thresholds(
    found: Detections, width: int, height: int, max_boxes: int | None
) -> None:
    thresholds = np.array([0.25, 0.5, 0], np.float32)
    kept = select(found, thresholds=thresholds, max_boxes=max_boxes, width=width, height=height)
    x1, y1, x2, y2 = kept.boxes.T
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= width)).all()
    assert ((y1 >= 0) & (y1 < y2) & (y2 <= height)).all()
    assert (np.diff(kept.scores) <= 0).all()
    assert (kept.scores > thresholds[kept.class_ids]).all()
    assert len(kept.boxes) == len(kept.scores) == len(kept.class_ids) <= (max_boxes or 12)
    assert [str(x.dtype) for x in (kept.boxes, kept.scores, kept.class_ids)] == [
        "float32",
        "float32",
        "int32",
    ]


@given(objects(), SIDE, SIDE)
def test_nothing_that_should_be_kept_is_lost_and_ties_keep_the_models_order(
    found: Detections, width: int, height: int
) -> None:
    thresholds = np.array([0.25, 0.5, 0], np.float32)
    boxes = clip(found.boxes, width, height)
    expected = [
        i
        for i in sorted(range(len(found.scores)), key=lambda i: -found.scores[i])
        if found.scores[i] > thresholds[found.class_ids[i]]
        and boxes[i, 0] < boxes[i, 2]
        and boxes[i, 1] < boxes[i, 3]
    ]
    kept = select(found, thresholds=thresholds, max_boxes=None, width=width, height=height)
    np.testing.assert_array_equal(kept.boxes, boxes[expected])
    np.testing.assert_array_equal(kept.scores, found.scores[expected])
    np.testing.assert_array_equal(kept.class_ids, found.class_ids[expected])


@given(objects(), SIDE, SIDE)
def test_selecting_twice_changes_nothing(found: Detections, width: int, height: int) -> None:
    settings: dict[str, Any] = {
        "thresholds": np.full(3, 0.25, np.float32),
        "max_boxes": 4,
        "width": width,
        "height": height,
    }
    once = select(found, **settings)
    twice = select(once, **settings)
    np.testing.assert_array_equal(once.boxes, twice.boxes)


def test_a_score_equal_to_the_threshold_is_not_above_it() -> None:
    found = Detections(
        np.array([[0, 0, 5, 5]], np.float32), np.array([0.4], np.float32), np.zeros(1, np.int32)
    )
    thresholds = np.array([0.4], np.float32)
    assert len(select(found, thresholds=thresholds, max_boxes=None, width=9, height=9).scores) == 0


class Faulty(nn.Module):
    """One box over each image, and the fault that the image's first value names."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[tuple[int, ...]]] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        self.batches.append([tuple(image.shape) for image in images])
        return [self.answer(image, int(image[0, 0, 0])) for image in images]

    def answer(self, image: Tensor, fault: int) -> dict[str, Tensor]:
        height, width = image.shape[1:]
        box = [0.0, 0.0, float(width), float(height)]
        if fault == 201:
            raise RuntimeError("a kernel failed")
        boxes = torch.tensor(
            [box, box] if fault == 202 else [[torch.nan, *box[1:]]] if fault == 203 else [box]
        )
        label = 7 if fault == 204 else 0
        answer = {"boxes": boxes, "scores": torch.tensor([0.9]), "labels": torch.tensor([label])}
        if fault == 205:
            del answer["scores"]
        return answer


def detector(module: nn.Module, *, mixes_shapes: bool, batch_size: int = 8) -> Alone:
    model = DetectorModel(module=module, transform=as_is, categories=("a", "b"), mixes_shapes=mixes_shapes)
    return Alone(
        LoadedModel(model, DetectorSpec(score_threshold=0.5), unresolved(DETECT, model.categories)),
        batch_size,
    )


def marked(first: int, height: int = 40, width: int = 60) -> DecodedImage:
    image = noise(first, height, width)
    image.pixels[0, 0, 0] = first
    return image


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (201, ErrorCode.MODEL_ERROR),
        (202, ErrorCode.MODEL_ERROR),
        (203, ErrorCode.NON_FINITE),
        (204, ErrorCode.MODEL_ERROR),
        (205, ErrorCode.MODEL_ERROR),
    ],
)
def test_only_the_image_that_fails_alone_is_failed(fault: int, code: ErrorCode) -> None:
    before, failed, after = detector(Faulty(), mixes_shapes=True)([marked(1), marked(fault), marked(2)])
    assert isinstance(before, Detections)
    assert isinstance(after, Detections)
    assert isinstance(failed, ImageError)
    assert (failed.stage, failed.code) == (Stage.DETECT, code)


def test_a_model_that_pads_its_batches_is_given_one_shape_at_a_time_and_results_keep_their_order() -> None:
    shapes = [(40, 60), (30, 30), (40, 60), (60, 40), (30, 30), (40, 60)]
    images = [marked(i, *shape) for i, shape in enumerate(shapes)]
    module = Faulty()
    found = detector(module, mixes_shapes=False, batch_size=2)(images)
    assert [len(set(batch)) for batch in module.batches] == [1] * 4
    assert [tuple(x.boxes[0, [3, 2]]) for x in found if isinstance(x, Detections)] == shapes
    model = detector(module, mixes_shapes=False, batch_size=2)
    again = model.predict([model.runner.preprocess(image) for image in images])
    assert [tuple(x.boxes[0, [3, 2]]) for x in again if isinstance(x, Detections)] == shapes


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (2000, 1)])
def test_slivers_and_single_pixels_are_answered(shape: tuple[int, int]) -> None:
    (found,) = Alone(load(DetectorSpec()), 1)([noise(1, *shape)])
    assert isinstance(found, Detections)
