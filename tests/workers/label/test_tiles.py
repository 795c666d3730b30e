"""Large images through the labeller: their time is counted by tile, and few are held at once."""

import dataclasses
import gc
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from schemas.exceptions import ImageError
from schemas.images import LoadedImage
from schemas.spec import ComputeSpec, DecodeSpec
from schemas.tasks import DetectorSpec, TilesSpec
from tests.workers.label.models import settings_of_models
from tests.workers.label.test_decoding import without_times
from tests.workers.label.test_labeller import ignore_stage
from tests.workers.label.test_supervise import settings_of
from workers.label import decoder
from workers.label.decoder import Decoder, images_of
from workers.label.labeller import Labeller
from workers.label.settings import LabelSettings, UnitRequest
from workers.label.supervise import LabelUnits

TILES = TilesSpec(size=256)


def of(folder: Path, names: list[str], **changes: Any) -> LabelSettings:
    models = settings_of_models(None, DetectorSpec(tiles=TILES, score_threshold=0.3))
    return dataclasses.replace(settings_of(folder, names), **models, **changes)


@pytest.fixture
def names(tmp_path: Path, photos: Path) -> list[str]:
    """Photos, two of them several tiles large."""
    found = []
    for path, size in (("china.jpg", (640, 427)), ("rocket.jpg", (200, 150)), ("astronaut.png", (600, 600))):
        Image.open(photos / path).convert("RGB").resize(size).save(tmp_path / f"{path}.png")
        found.append(f"{path}.png")
    return found


def test_a_unit_has_the_boxes_of_tiles_in_pixels_of_its_images(tmp_path: Path, names: list[str]) -> None:
    results, usage = Labeller(of(tmp_path, names))(UnitRequest(0, range(3)), ignore_stage)
    rows = results.to_pylist()
    assert [row["error"] for row in rows] == [None] * 3
    for row in rows:
        for box in row["rows of boxes"]:
            assert 0 <= box["x1"] < box["x2"] <= row["width"]
            assert 0 <= box["y1"] < box["y2"] <= row["height"]
    found = [box for row in rows for box in row["rows of boxes"]]
    assert any(box["x2"] > TILES.size for box in found)
    assert "detect" in usage.stage_s


def test_the_time_of_an_image_is_counted_for_each_tile(tmp_path: Path, names: list[str]) -> None:
    """A detector that takes 0.15 s a part: an image of 10 parts takes more than the second that one may."""
    slow = DetectorSpec(model="tests.poison:slow_detector", tiles=TILES)
    models, compute = settings_of_models(None, slow), ComputeSpec(timeout_s=1, batch_size=2)
    settings = dataclasses.replace(settings_of(tmp_path, names), **models, compute=compute)
    with closing(LabelUnits(settings)) as label:
        assert label(0)["error"].null_count == 3


def test_an_image_with_a_tile_that_takes_too_long_is_given_up_alone(tmp_path: Path, names: list[str]) -> None:
    Image.new("RGB", (600, 300), (77, 0, 0)).save(tmp_path / "endless.png")
    slow = DetectorSpec(model="tests.poison:slow_detector", tiles=TILES)
    models, compute = settings_of_models(None, slow), ComputeSpec(timeout_s=0.5, batch_size=2)
    settings = dataclasses.replace(
        settings_of(tmp_path, [names[1], "endless.png"]), **models, compute=compute
    )
    with closing(LabelUnits(settings)) as label:
        results = label(0).to_pylist()
    assert [row["error"] and row["error"]["code"] for row in results] == [None, "TIMEOUT"]
    assert results[1]["error"]["message"].startswith("took more than 1 s of processor time")  # a batch of two


class Held:
    """How many pixels of images are alive, looked at whenever one is decoded."""

    def __init__(self) -> None:
        self._images: list[tuple[weakref.ref[np.ndarray[Any, Any]], int]] = []
        self.most = 0

    def __call__(self, image: LoadedImage) -> None:
        pixels = image.decoded.pixels
        self._images.append((weakref.ref(pixels), pixels.size // 3))
        gc.collect()
        self.most = max(self.most, sum(size for alive, size in self._images if alive() is not None))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    from workers.label.reader import ImageReader

    counted, load = Held(), ImageReader._load

    def counting(self: ImageReader, file: Any, row: int) -> LoadedImage | ImageError:
        image = load(self, file, row)
        if isinstance(image, LoadedImage):
            counted(image)
        return image

    monkeypatch.setattr(ImageReader, "_load", counting)
    return counted


@pytest.mark.parametrize(("max_pixels", "most"), [(90_000, 90_000), (300_000, 180_000), (10**6, 540_000)])
def test_images_in_tiles_are_held_up_to_the_pixels_that_one_may_have(
    max_pixels: int, most: int, tmp_path: Path, held: Held
) -> None:
    for number in range(9):
        Image.new("RGB", (300, 300), (number, 0, 0)).save(tmp_path / f"{number}.png")
    models = settings_of_models(None, DetectorSpec(model="tests.poison:quick_detector", tiles=TILES))
    names, decode = [f"{n}.png" for n in range(9)], DecodeSpec(max_pixels=max_pixels)
    label = Labeller(dataclasses.replace(settings_of(tmp_path, names), **models, decode=decode))
    results, _ = label(UnitRequest(0, range(9)), ignore_stage)
    assert results["error"].null_count == 9
    assert held.most == most
    assert results["manifest_index"].to_pylist() == list(range(9))


def test_an_image_too_large_to_be_handed_over_is_decoded_only_where_it_is_labelled(
    tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "MAX_BYTES", 3 * 300 * 600)
    settings = of(tmp_path, names)
    decode = Decoder(settings)
    shared, _ = decode(UnitRequest(0, range(3)), ignore_stage)
    images = list(images_of(shared))
    assert [image is None for image in images] == [True, False, True]
    label = Labeller(settings)
    results, _ = label(UnitRequest(0, range(3), decoded=shared), ignore_stage)
    expected, _ = label(UnitRequest(0, range(3)), ignore_stage)
    assert without_times(results) == without_times(expected)
    assert results["error"].null_count == 3


def test_an_image_over_the_limit_says_what_to_set(tmp_path: Path, names: list[str]) -> None:
    settings = of(tmp_path, names, decode=DecodeSpec(max_pixels=300_000))
    results, _ = Labeller(settings)(UnitRequest(0, range(3)), ignore_stage)
    errors = [row and (row["code"], row["message"]) for row in results["error"].to_pylist()]
    assert errors == [
        None,
        None,
        (
            "TOO_LARGE",
            "600 x 600 = 360,000 pixels, over the limit of 300,000. In a new run set decode.max_pixels to "
            "360000 or more, if you trust the file.",
        ),
    ]
