import numpy as np
import pytest

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage
from workers.decode.decode import decode

MAX_PIXELS = 50_000_000


def decoded(data: bytes) -> DecodedImage:
    return decode(data, max_pixels=MAX_PIXELS)


def fails(data: bytes, max_pixels: int = MAX_PIXELS, memory: int | None = None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels=max_pixels, memory=memory)
    assert (caught.value.stage, caught.value.attempts) == (Stage.DECODE, 1)
    assert len(caught.value.message) <= 500
    return caught.value


def unsupported(data: bytes) -> str:
    error = fails(data)
    assert error.code == ErrorCode.UNSUPPORTED
    return error.message


def same(got: DecodedImage, want: DecodedImage) -> None:
    assert (got.format, got.exif_orientation) == (want.format, want.exif_orientation)
    assert (got.source_mode, got.frame_count) == (want.source_mode, want.frame_count)
    assert got.pixels.dtype == np.uint8
    assert got.pixels.flags.c_contiguous
    assert got.pixels.flags.writeable  # torch.from_numpy warns of anything else
    np.testing.assert_array_equal(got.pixels, want.pixels, strict=True)
