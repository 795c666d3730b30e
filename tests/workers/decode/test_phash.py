from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.workers.decode.checks import decoded
from workers.decode.phash import phash

imagehash = pytest.importorskip("imagehash")
PHOTOS = sorted((Path(__file__).parents[3] / "infra/demo/photos").glob("*.*g"))


def by_imagehash(pixels: NDArray[np.uint8]) -> int:
    """The hash of imagehash as 64 bits in two's complement."""
    return int.from_bytes(bytes.fromhex(str(imagehash.phash(Image.fromarray(pixels)))), signed=True)


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.name)
def test_the_hash_of_a_photo_is_that_of_imagehash(photo: Path) -> None:
    pixels = decoded(photo.read_bytes()).pixels
    assert phash(pixels) == by_imagehash(pixels)


def test_the_hash_of_any_picture_is_that_of_imagehash_also_where_frequencies_are_nothing_but_rounding() -> (
    None
):
    random = np.random.default_rng(0)
    for number in range(150):
        height, width = random.integers(1, 90, 2)
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        match number % 5:
            case 1:
                pixels[:] = random.integers(0, 256, 3)
            case 2:
                pixels = np.concatenate([pixels, pixels[:, ::-1]], 1)
            case 3:
                pixels = np.concatenate([pixels, pixels[::-1]])
            case 4:
                pixels[:] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
        assert phash(pixels) == by_imagehash(pixels), number


def test_a_copy_made_smaller_has_nearly_the_same_hash_and_another_photo_has_not() -> None:
    cat, rocket = (
        decoded((PHOTOS[0].parent / name).read_bytes()).pixels for name in ("chelsea.png", "rocket.jpg")
    )
    small = np.array(Image.fromarray(cat).resize((200, 133)))
    assert (phash(cat) ^ phash(small)).bit_count() <= 4
    assert ((phash(cat) ^ phash(rocket)) & 2**64 - 1).bit_count() > 16
