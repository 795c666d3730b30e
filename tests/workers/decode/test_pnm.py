import contextlib
import io
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from tests.workers.decode.checks import decoded, fails, unsupported
from workers.decode import pnm
from workers.decode.decode import decode

FIXED = 8_000_000
"""Bytes that any picture may take: a piece of the file and its values."""


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
    data = b"P2 3 1 255\n0 # one\n128 # two\r255#"
    assert decoded(data).pixels[0, :, 0].tolist() == [0, 128, 255]
    many = b"P2 1 1 255\n" + b"#\n" * 200_000 + b"7"
    assert unsupported(many).startswith("This PPM file has over 100,000 comments; allowed: 100,000.")


@pytest.mark.parametrize(
    "data",
    [
        b"P6 1 1 255#c\n \1\2\3",
        b"P6 1 1 255 #\1\2",
        b"P6 1 1 255#c\r\n\1\2\3",
        b"P5 1 1 25#c\n5 \1",
        b"P4 1#1\n 1\n\x80",
        b"P2 2 1 255\n1#c\n2 3",
        b"P1 4 1 0#c\n1 0#c\r\n1",
        b"P2 2 1 255\n1 2 no numbers",
    ],
)
def test_comments_are_cut_out_where_pillow_cuts_them_out(data: bytes) -> None:
    np.testing.assert_array_equal(decoded(data).pixels, pillows(data), strict=True)


def test_what_ends_a_number_wrongly_is_no_number() -> None:
    assert unsupported(b"P6 1 1 255#c\n\1\2\3") == (  # to Pillow "255" and these bytes are one word
        "This PPM file is damaged: its header has no numbers."
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 11])
def test_a_plain_file_is_the_same_picture_whatever_its_pieces_are(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pnm, "PIECE", size)
    grey = b"P2 6 1 999\n1 20\t300 # a comment # of words\r\n#\n 400   5#\n0 999 and more"
    np.testing.assert_array_equal(decoded(grey).pixels, pillows(grey), strict=True)
    bits = b"P1 4 2\n01 1\n#1 1\n0 0\n0#0\n11"
    np.testing.assert_array_equal(decoded(bits).pixels, pillows(bits), strict=True)
    assert fails(grey[:-12]).code == ErrorCode.TRUNCATED


SLOW_HEADERS = [b"P5 1" + b" " * 40 + b"x", b"P5 " + b"# \n" * 90_000 + b"x"]


@pytest.mark.parametrize("data", SLOW_HEADERS, ids=["spaces", "comments"])
def test_a_header_takes_no_longer_than_its_bytes(data: bytes) -> None:
    began = time.thread_time()
    assert unsupported(data) == "This PPM file is damaged: its header has no numbers."
    assert time.thread_time() - began < 1


def peak(data: bytes) -> int:
    """Bytes that decoding takes at its peak, whatever comes of it."""
    tracemalloc.start()
    try:
        with contextlib.suppress(ImageError):
            decode(data, max_pixels=10**9)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"P3 1500 1500 255\n" + b"7 " * 6_750_000,
        b"P2 1500 1500 65535\n" + b"7 " * 2_250_000,
        b"P1 1500 1500\n" + b"1" * 2_250_000,
        b"P4 1501 1500\n" + bytes(188 * 1500),
        b"P5 1500 1500 65000\n" + bytes(4_500_000),
        b"P6 1500 1500 254\n" + bytes(6_750_000),
        b"P6 1500 1500 65000\n" + bytes(13_500_000),
    ],
    ids=lambda data: data[:7].decode(),
)
def test_a_picture_takes_the_memory_that_is_counted(data: bytes) -> None:
    assert peak(data) < 5 * 1500 * 1500 + FIXED


@pytest.mark.parametrize(
    "data",
    [
        b"P3 1 1 255\n" + b"7 " * 10_000_000,
        b"P2 1 1 255\n" + b"7" * 20_000_000,
        b"P2 1 1 255\n#" + b" " * 20_000_000 + b"\n7 ",
        b"P3 9999 9999 255\n7 7 7",
        b"P5 " + b"#\n" * 2_000_000,
        b"P5 1" + b" " * 20_000_000 + b"1 255 1",
    ],
    ids=["values", "digits", "comment", "cut", "comments", "spaces"],
)
def test_what_is_around_the_values_takes_no_memory(data: bytes) -> None:
    assert peak(data) < FIXED


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
