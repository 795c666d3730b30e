"""How an image becomes an input: as OpenCV, Pillow and the makers' own code do it."""

import hashlib
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from schemas.exceptions import ImageError
from schemas.tasks import InputSpec
from workers.models.preprocess import Placement, Preprocess, resized_to, with_spec

SIZES = [
    ((40, 60), (23, 31)),
    ((40, 60), (20, 30)),
    ((31, 17), (64, 96)),
    ((1, 7), (9, 64)),
    ((200, 300), (64, 64)),
]
OPENCV = {
    ((40, 60), (23, 31)): "a49894755e0ecf8e",
    ((40, 60), (20, 30)): "f91091ff95a732fd",
    ((31, 17), (64, 96)): "590dd9b48254d23b",
    ((1, 7), (9, 64)): "cb6eeb749ca89b8b",
    ((200, 300), (64, 64)): "be20ab2bdc07f7d7",
}
"""The first digits of the sha256 of what OpenCV 5.0.0 makes of `picture`, by its sizes before and after."""


def picture(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def planes(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(picture(height, width)).permute(2, 0, 1)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_the_linear_resize_is_opencvs_bit_for_bit(before: tuple[int, int], after: tuple[int, int]) -> None:
    resized = resized_to(picture(*before), after, "linear")
    assert resized.shape == (*after, 3)
    assert hashlib.sha256(resized.tobytes()).hexdigest()[:16] == OPENCV[before, after]


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_the_linear_resize_is_that_of_the_opencv_that_is_installed(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    theirs = cv2.resize(picture(*before), after[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resized_to(picture(*before), after, "linear"), theirs)


@pytest.mark.parametrize("shape", [(300, 451), (451, 300), (224, 224), (90, 500)])
def test_a_short_side_and_a_crop_are_those_of_torchvision_with_pillow(shape: tuple[int, int]) -> None:
    image = Image.fromarray(picture(*shape))
    theirs = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(image)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours = Preprocess((256, 256), "short side", (224, 224), mean=mean, std=std)(planes(*shape))
    expected = (np.asarray(theirs).transpose(2, 0, 1) / 255 - np.array(mean)[:, None, None]) / np.array(std)[
        :, None, None
    ]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


def test_a_crop_of_a_smaller_image_is_black_around_it() -> None:
    ours = Preprocess((4, 4), "short side", (8, 8))(planes(4, 6))
    theirs = v2.CenterCrop(8)(torch.from_numpy(picture(4, 6)).permute(2, 0, 1)) / 255
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-6)


def test_a_letterbox_is_in_the_centre_with_the_padding_that_ultralytics_rounds() -> None:
    fit = Preprocess((64, 64), "center", interpolation="linear")
    assert fit.placement(100, 51) == Placement((0.64, 0.64), (0, 15))  # 33 of 64 rows: 15.5 above is 15
    values = fit(planes(51, 100))
    assert (values[:, :15] == 114 / 255).all()
    assert (values[:, 48:] == 114 / 255).all()
    inner = resized_to(picture(51, 100), (33, 64), "linear").transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_allclose(values[:, 15:48].numpy(), inner, atol=1e-6)


def test_yolox_gets_the_top_left_cut_to_whole_pixels_in_bgr_up_to_255() -> None:
    values = Preprocess((64, 64), "top-left", interpolation="linear", channels="bgr", scale=1)(
        planes(51, 100)
    )
    inner = resized_to(picture(51, 100), (32, 64), "linear")[:, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(values[:, :32].numpy(), inner)
    assert (values[:, 32:] == 114).all()


def test_a_square_is_padded_before_it_is_resized() -> None:
    fit = Preprocess((64, 64), "square", pad=0, interpolation="linear")
    canvas = np.zeros((100, 100, 3), np.uint8)
    canvas[:51] = picture(51, 100)
    np.testing.assert_allclose(
        fit(planes(51, 100)).numpy(),
        resized_to(canvas, (64, 64), "linear").transpose(2, 0, 1) / np.float32(255),
    )
    assert fit.placement(100, 51) == Placement((0.64, 0.64))


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("shape", [(3000, 40), (40, 3000), (2500, 2400), (77, 77), (30, 20)])
def test_a_square_is_resized_bit_for_bit_without_being_made(
    shape: tuple[int, int], interpolation: str
) -> None:
    side = max(shape)
    canvas = np.full((side, side, 3), 114, np.uint8)
    canvas[: shape[0], : shape[1]] = picture(*shape)
    fit = Preprocess((96, 64), "square", interpolation=interpolation, scale=1)
    found = fit(planes(*shape)).numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(found, resized_to(canvas, (96, 64), interpolation))


@pytest.mark.parametrize("interpolation", ["linear", "bilinear"])
@pytest.mark.parametrize("shape", [(15_000, 80), (80, 15_000)])
def test_a_long_image_takes_no_memory_of_its_square(shape: tuple[int, int], interpolation: str) -> None:
    image = planes(*shape)
    tracemalloc.start()
    try:
        Preprocess((64, 64), "square", interpolation=interpolation)(image)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 60e6  # the square has 675 MB


def test_a_strip_that_pillow_would_resize_for_minutes_fails_alone() -> None:
    with pytest.raises(ImageError, match="UNSUPPORTED: 15000x1 pixels: one side is over 200 times the other"):
        Preprocess((64, 64), "square")(planes(1, 15_000))
    assert Preprocess((64, 64), "square", interpolation="linear")(planes(1, 15_000)).shape == (3, 64, 64)


def test_a_spec_replaces_what_it_says_and_nothing_else() -> None:
    own = Preprocess((64, 96), "center", interpolation="linear")
    assert with_spec(own, None) == own
    spec = InputSpec(letterbox="top-left", pad=0, channels="bgr", scale=1, mean=[1, 2, 3], std=2)
    assert with_spec(own, spec) == Preprocess(
        *((64, 96), "top-left"),
        pad=0,
        interpolation="linear",
        channels="bgr",
        scale=1,
        mean=(1, 2, 3),
        std=(2, 2, 2),
    )
