from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError, ModelError
from schemas.images import DecodedImage, Detections
from schemas.tasks import DetectorSpec, TilesSpec
from tests.workers.models.alone import Alone, unresolved
from tests.workers.models.mosaics import COCO, mosaic, score, total
from tests.workers.models.onnx.exports import KnownBoxes, UnderLayout, cells, export, ultralytics
from tests.workers.models.pictures import PHOTOS, noise, one_thread, opened, photos
from workers.models.detector import Detector
from workers.models.model import DetectorModel, LoadedModel, as_is
from workers.models.predictor import ModelInput
from workers.models.registry import load
from workers.models.runner import Runner
from workers.models.tiled import TiledRunner

needs_photos = pytest.mark.skipif(not COCO.exists(), reason="the photos to measure against are not here")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def tiled(**settings: Any) -> Alone:
    return Alone(load(DetectorSpec(**settings)), 4)


def same(found: Detections, expected: Detections) -> None:
    for name in ("boxes", "scores", "class_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.slow
@needs_photos
def test_small_objects_are_found_in_tiles_that_are_not_found_in_the_whole() -> None:
    known = mosaic(4, 4)
    (plain,), (cut,), (half,) = (
        tiled()([known.image]),
        tiled(tiles=TilesSpec(size=640))([known.image]),
        tiled(tiles=TilesSpec())([known.image]),
    )
    each = total([score(tiled()([one.image])[0], one) for one in (mosaic(1, 1, n) for n in range(16))])
    assert score(plain, known).objects == each.objects == 72
    assert score(plain, known).found <= 8
    assert score(half, known).found >= 2 * score(plain, known).found
    assert score(cut, known).found >= 0.9 * each.found  # as many as in each photo by itself
    assert score(cut, known).doubles <= 2


def test_an_image_that_fits_into_a_tile_has_the_same_objects_bit_for_bit() -> None:
    images = list(photos().values())
    largest = max(max(image.width, image.height) for image in images)
    expected = tiled(score_threshold=0.1)(images)
    for most in (None, 2):
        found = tiled(score_threshold=0.1, tiles=TilesSpec(size=largest), max_boxes=most)(images)
        limited = expected if most is None else tiled(score_threshold=0.1, max_boxes=most)(images)
        for one, other in zip(found, limited, strict=True):
            same(one, other)
    assert sum(len(one.scores) for one in expected) > 10


def test_answers_depend_neither_on_the_batch_nor_on_other_images() -> None:
    images = [
        opened(path, size) for path, size in zip(_files(), ((700, 500), (300, 200), (500, 900)), strict=True)
    ]
    model = DetectorSpec(score_threshold=0.2, tiles=TilesSpec(size=256))
    alone = [Alone(load(model), 1)([image])[0] for image in images]
    together = Alone(load(model), 5)(images)
    for one, other in zip(alone, together, strict=True):
        assert one.class_ids.tolist() == other.class_ids.tolist()
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def _files() -> list[Path]:
    return sorted(path for path in PHOTOS.iterdir() if path.suffix in (".jpg", ".png"))[:3]


class Bright(nn.Module):
    """Finds the bright pixels of an image, each a box; raises, or answers with NaN, at certain colours."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[list[tuple[int, ...]]] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        self.shapes.append([tuple(image.shape) for image in images])
        return [self.found(image) for image in images]

    def found(self, image: Tensor) -> dict[str, Tensor]:
        if (image[0] == 77).any():
            raise ValueError("I do not like 77")
        y, x = (image[1] == 255).nonzero(as_tuple=True)
        boxes = torch.stack([x, y, x + 1, y + 1], dim=1).float()
        if (image[0] == 78).any():
            boxes = boxes * float("nan")
        scores = image[2][y, x] / 255
        return {"boxes": boxes, "scores": scores, "labels": torch.zeros(len(x), dtype=torch.int64)}


def bright(spec: DetectorSpec, batch_size: int = 4) -> tuple[Alone, Bright]:
    module = Bright()
    model = DetectorModel(module=module, transform=as_is, categories=("dot",))
    resolved = unresolved(spec.task, model.categories)
    resolved = resolved.model_copy(update={"settings": Detector.apply(spec, model)})
    return Alone(LoadedModel(model, spec, resolved), batch_size, runtime="torch"), module


def dots(width: int, height: int, *places: tuple[int, int]) -> DecodedImage:
    pixels = np.zeros((height, width, 3), np.uint8)
    for number, (x, y) in enumerate(places):
        pixels[y, x] = 0, 255, 250 - number
    return DecodedImage(pixels, "PNG", 1, "RGB", 1)


TILES = DetectorSpec(tiles=TilesSpec(size=100, overlap=0.2))


def test_parts_of_several_images_share_a_batch_and_are_watched_by_their_image() -> None:
    detect, module = bright(TILES)
    watched: list[list[int]] = []

    def watch(batch: Sequence[int]) -> AbstractContextManager[None]:
        watched.append(list(batch))
        return nullcontext()

    images = [dots(180, 60, (5, 5)), dots(50, 40, (7, 8)), dots(100, 260, (90, 250))]
    found = [result[0] for result in detect.runner(images, watch)]  # type: ignore[index]
    assert [len(one.scores) for one in found] == [1, 1, 1]
    assert found[2].boxes.tolist() == [[90, 250, 91, 251]]
    assert watched == [[0, 0, 0, 1], [2, 2, 2, 2]]
    assert module.shapes == [
        [(3, 60, 180), (3, 60, 100), (3, 60, 100), (3, 40, 50)],
        [(3, 260, 100), (3, 100, 100), (3, 100, 100), (3, 100, 100)],
    ]


def test_every_object_of_a_large_image_is_found_once_at_its_place() -> None:
    random = np.random.default_rng(0)
    places = sorted(
        {
            (int(x), int(y))
            for x, y in zip(random.integers(0, 1000, 90), random.integers(0, 700, 90), strict=True)
        }
    )
    (found,) = bright(TILES)[0]([dots(1000, 700, *places)])
    assert sorted(found.boxes.tolist()) == [[x, y, x + 1, y + 1] for x, y in places]
    assert (np.diff(found.scores) <= 0).all()


def test_boxes_are_counted_when_those_of_all_tiles_are_there() -> None:
    places = [(5, 5), (150, 5), (100, 50), (20, 20)]
    spec = TILES.model_copy(update={"max_boxes": 3})
    (found,) = bright(spec)[0]([dots(180, 60, *places)])
    assert found.boxes[:, 0].tolist() == [5, 150, 100]


@pytest.mark.parametrize(
    ("red", "code", "message"),
    [
        (77, ErrorCode.MODEL_ERROR, "ValueError: I do not like 77"),
        (78, ErrorCode.NON_FINITE, "FloatingPointError: a box or a score is not a number"),
    ],
)
def test_an_image_with_a_part_that_fails_has_failed_and_the_part_is_said(
    red: int, code: ErrorCode, message: str
) -> None:
    image = dots(180, 60, (170, 5))
    image.pixels[50, 170, 0] = red
    first, failed, last = bright(TILES)[0]([dots(180, 60, (5, 5)), image, dots(40, 40, (6, 5))])
    assert [first.boxes.tolist(), last.boxes.tolist()] == [[[5, 5, 6, 6]], [[6, 5, 7, 6]]]
    assert isinstance(failed, ImageError)
    assert (failed.stage, failed.code) == (Stage.DETECT, code)
    assert failed.message == f"{message} (of the part from x 0, y 0 to x 180, y 60)"


def test_a_small_image_that_fails_says_no_part() -> None:
    image = dots(80, 60)
    image.pixels[50, 70, 0] = 77
    (failed,) = bright(TILES)[0]([image])
    assert failed.message == "ValueError: I do not like 77"


def test_only_a_detector_with_tiles_is_run_in_tiles_and_an_input_cannot_be_cut() -> None:
    runner = bright(TILES)[0].runner
    assert type(runner) is TiledRunner
    assert type(bright(DetectorSpec())[0].runner) is Runner
    with pytest.raises(TypeError, match="an input of a model cannot be cut into tiles"):
        runner([ModelInput(torch.zeros(3, 4, 4), 4, 4)])


def test_tiles_are_a_part_of_what_a_model_is_known_by_and_nothing_is_without_them() -> None:
    plain = load(DetectorSpec()).resolved
    assert "tiles" not in plain.settings
    assert plain.fingerprint == "nanodet_g-4fb96f0e0aaf"  # as in the README, and in tables of old
    found = [
        load(DetectorSpec(tiles=TilesSpec(**tiles), nms_iou=iou)).resolved
        for tiles, iou in (({}, None), ({"size": 512}, None), ({"overlap": 0.3}, None), ({}, 0.5))
    ]
    assert len({plain.fingerprint, *(one.fingerprint for one in found)}) == 5
    assert found[0].settings["tiles"] == {"size": 1024, "overlap": 0.2, "iou": 0.6}
    assert {"workers.models.tiled", "workers.models.tiles"} <= set(found[0].modules)
    assert not {"workers.models.tiled", "workers.models.tiles"} & set(plain.modules)


def test_nms_iou_is_that_of_tiles_where_the_detector_has_none() -> None:
    with pytest.raises(ModelError, match=r"nms_iou: found 0\.3, but nanodet_g gives an object one box"):
        bright(DetectorSpec(nms_iou=0.3))
    spec = TILES.model_copy(update={"nms_iou": 0.3})
    runner = bright(spec)[0].runner
    assert isinstance(runner, TiledRunner)
    assert runner._tiling.iou == 0.3


def test_a_large_image_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(0, 300, 400)
    detect, _ = bright(TILES, batch_size=1)
    assert isinstance(detect.runner, TiledRunner)
    seen = []
    made = detect.runner.preprocess

    def preprocess(part: DecodedImage) -> ModelInput | ImageError:
        seen.append(np.shares_memory(part.pixels, image.pixels))
        return made(part)

    monkeypatch.setattr(detect.runner, "preprocess", preprocess)
    detect([image])
    assert len(seen) == 1 + 4 * 5
    assert all(seen)


def test_a_detector_in_an_onnx_file_has_tiles_too(tmp_path: Path) -> None:
    boxes = np.tile(np.array([8, 8, 40, 48], np.float32), (len(cells(64, 64)), 1))
    scores = np.zeros((len(boxes), 2), np.float32)
    scores[5, 0] = 0.9
    export(
        UnderLayout(KnownBoxes(boxes, scores), "yolov8", (64, 64)),
        tmp_path / "yolo.onnx",
        (64, 64),
        layout="yolov8",
        metadata=ultralytics(("cat", "dog"), imgsz="[64, 64]"),
    )
    spec = DetectorSpec(model=str(tmp_path / "yolo.onnx"), tiles=TilesSpec(size=64, overlap=0))
    (found,) = Alone(load(spec), 1)([noise(0, 64, 128)])
    # what it finds at one place of each input: in the two tiles, and in the letterboxed whole twice as large
    expected = [[16, 0, 80, 64], [8, 8, 40, 48], [72, 8, 104, 48]]
    np.testing.assert_allclose(found.boxes[np.argsort(-found.boxes[:, 3])], expected, atol=1e-3)
