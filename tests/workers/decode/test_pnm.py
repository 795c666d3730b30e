import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import ErrorCode
from tests.workers.decode.checks import decoded, fails, unsupported


def pillows(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        if image.mode != "I":
            return np.array(image.convert("RGB"))
        values = np.asarray(image).astype(np.int64)
    return np.repeat(((values * 255 + 32_767) // 65_535).astype(np.uint8)[:, :, None], 3, axis=2)


@given(
    st.sampled_from([1, 2, 3, 4, 5, 6]),
    st.sampled_from([1, 3, 7, 100, 254, 255, 256, 1000, 65535]),
    st.integers(1, 11),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_each_kind_equals_pillow(kind: int, maximum: int, width: int, height: int, random: object) -> None:
    maximum = 1 if kind in {1, 4} else maximum
    count = width * height * (3 if kind in {3, 6} else 1)
    values = [random.randint(0, maximum) for _ in range(count)]  # type: ignore[attr-defined]
    head = b"P%d # made\n%d %d\n" % (kind, width, height)
    if kind not in {1, 4}:
        head += b"# white\n%d\n" % maximum
    if kind <= 3:
        body = b"\n".join(b"%d" % value for value in values)
    elif kind == 4:
        body = np.packbits(np.array(values, np.uint8).reshape(height, width), axis=1).tobytes()
    else:
        body = np.array(values, ">u2" if maximum > 255 else np.uint8).tobytes()
    got = decoded(head + body)
    np.testing.assert_array_equal(got.pixels, pillows(head + body), strict=True)
    with Image.open(io.BytesIO(head + body)) as image:
        assert got.source_mode == image.mode


def test_comments_among_the_values_are_passed_over() -> None:
    data = b"P2 3 1 255\n0 # one\n128# two\r255#"
    assert decoded(data).pixels[0, :, 0].tolist() == [0, 128, 255]
    many = b"P2 1 1 255\n" + b"#\n" * 200_000 + b"7"
    assert unsupported(many).startswith("This PPM file has 200,000 comments; allowed: 100,000.")


@pytest.mark.parametrize(
    "data", [b"P6 2 2 255\n12345678901", b"P2 2 2 9\n1 2 3", b"P1 3 1\n01", b"P4 9 1\n1"]
)
def test_fewer_values_than_pixels_are_truncated(data: bytes) -> None:
    assert fails(data).code == ErrorCode.TRUNCATED


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"P2 2 1 9\n1 x", "a value is no number"),
        (b"P2 2 1 9\n1 10", "a value is above its maximum"),
        (b"P2 1 1 9\n" + b"1" * 500, "a value is above its maximum"),
        (b"P1 2 1\n1 2", "a value is above its maximum"),
        (b"P5 0 1 9\n1", "it says 0 x 1 pixels, white is 9"),
        (b"P5 1 1 65536\n1", "it says 1 x 1 pixels, white is 65536"),
        (b"P5 1 wide 9\n1", "its header has no numbers"),
    ],
)
def test_damage_is_named(data: bytes, what: str) -> None:
    assert unsupported(data) == f"This PPM file is damaged: {what}."
