"""Decodes PBM, PGM and PPM (Netpbm) as Pillow does, but not a value at a time."""

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from workers.decode.errors import decode_error, ends_early, too_many

MAX_COMMENTS = 100_000
"""Of a plain file."""

_GAP = rb"(?:\s+|#[^\n\r]*[\n\r])+"
_NUMBER = rb"(\d{1,10})(?=\s|#|\Z)"
_HEADER = re.compile(rb"P([1-6])%b%b%b%b" % (_GAP, _NUMBER, _GAP, _NUMBER))
_MAXIMUM = re.compile(_GAP + _NUMBER)
_SPACE = b" \t\r\n\v\f"
_COMMENT = re.compile(rb"#[^\n\r]*")


class PnmHeader(NamedTuple):
    """The header of a file.

    Attributes:
        kind: 1 to 6, the digit of its magic.
        width: pixels across.
        height: pixels down.
        maximum: the value that is white; 1 of a PBM, in which 1 is black.
        end: where the header ends.
    """

    kind: int
    width: int
    height: int
    maximum: int
    end: int

    @property
    def bands(self) -> int:
        """Values of a pixel."""
        return 3 if self.kind in {3, 6} else 1

    @property
    def mode(self) -> str:
        """Pillow's name of the mode."""
        if self.bands == 3:
            return "RGB"
        return "1" if self.kind in {1, 4} else "L" if self.maximum < 256 else "I"


def read_header(data: bytes) -> PnmHeader:
    """Reads the header.

    Raises:
        ImageError: TRUNCATED: it is cut. UNSUPPORTED: it is damaged, or says that there are no pixels.
    """
    match = _HEADER.match(data)
    if not match:
        raise _damaged(data, 0)
    kind, width, height = (int(number) for number in match.groups())
    maximum, end = 1, match.end()
    if kind not in {1, 4}:
        match = _MAXIMUM.match(data, end)
        if not match:
            raise _damaged(data, end)
        maximum, end = int(match[1]), match.end()
    if not width or not height or not 1 <= maximum <= 65_535:
        message = f"This PPM file is damaged: it says {width} x {height} pixels, white is {maximum}."
        raise decode_error(ErrorCode.UNSUPPORTED, message)
    return PnmHeader(kind, width, height, maximum, end)


def _damaged(data: bytes, start: int) -> Exception:
    """The error of a header that is no header: one that ends, or one with something else in it."""
    rest = _COMMENT.sub(b"", data[start : start + 10_000])
    if rest.lstrip(b"P").strip(b"0123456789" + _SPACE) == b"":
        return ends_early("PPM", "within its header")
    return decode_error(ErrorCode.UNSUPPORTED, "This PPM file is damaged: its header has no numbers.")


def decode_pixels(data: bytes, header: PnmHeader) -> NDArray[np.uint8]:
    """The pixels below a header: uint8 (height, width, 3), RGB.

    Raises:
        ImageError: TRUNCATED: there are fewer values than pixels. UNSUPPORTED: a plain file holds something
            other than numbers, a number above its maximum, or over `MAX_COMMENTS` comments.
    """
    read = _plain if header.kind <= 3 else _raw
    scaled = _scale(header)[read(data, header)].reshape(header.height, header.width, header.bands)
    return scaled if header.bands == 3 else np.repeat(scaled, 3, axis=2)


def _scale(header: PnmHeader) -> NDArray[np.uint8]:
    """For each value what it is of 255, rounded as Pillow does: uint8 (maximum + 1,)."""
    values = np.arange(header.maximum + 1)
    if header.mode == "1":
        return np.array([255, 0], np.uint8)
    if header.mode != "I":
        return np.rint(values / header.maximum * 255).astype(np.uint8)
    deep = np.rint(values / header.maximum * 65_535).astype(np.int64)
    return ((deep * 255 + 32_767) // 65_535).astype(np.uint8)


def _raw(data: bytes, header: PnmHeader) -> NDArray[np.integer[Any]]:
    """The values of a raw file; one above the maximum counts as the maximum, as Pillow has it."""
    start = header.end + 1  # one white space character
    if header.kind == 4:
        size = -(-header.width // 8)
        rows = np.frombuffer(_exactly(data, start, size * header.height), np.uint8)
        return np.unpackbits(rows.reshape(header.height, size), axis=1)[:, : header.width].reshape(-1)
    kind: np.dtype[np.unsignedinteger[Any]] = np.dtype(np.uint8 if header.maximum < 256 else ">u2")
    count = header.width * header.height * header.bands
    values: NDArray[np.integer[Any]] = np.frombuffer(_exactly(data, start, count * kind.itemsize), kind)
    if header.maximum not in {255, 65_535}:
        values = np.minimum(values, header.maximum)
    return values


def _exactly(data: bytes, start: int, size: int) -> memoryview:
    if start + size > len(data):
        raise ends_early("PPM", f"it has {max(0, len(data) - start):,} bytes of {size:,}")
    return memoryview(data)[start : start + size]


def _plain(data: bytes, header: PnmHeader) -> NDArray[np.integer[Any]]:
    """The values of a plain file: decimal numbers, or, of a PBM, digits."""
    text = data[header.end :]
    if (comments := text.count(b"#")) > MAX_COMMENTS:
        raise too_many("PPM", f"{comments:,} comments", MAX_COMMENTS)
    if comments:
        text = _COMMENT.sub(b"\n", text)
    if header.kind == 1:
        values: NDArray[np.integer[Any]] = np.frombuffer(text.translate(None, _SPACE), np.uint8) - np.uint8(
            ord("0")
        )
    elif text.strip(b"0123456789" + _SPACE):
        raise decode_error(ErrorCode.UNSUPPORTED, "This PPM file is damaged: a value is no number.")
    else:
        values = np.fromstring(text, np.int64, sep=" ")
    count = header.width * header.height * header.bands
    values = values[:count]
    if values.size and values.max() > header.maximum:
        raise decode_error(ErrorCode.UNSUPPORTED, "This PPM file is damaged: a value is above its maximum.")
    if len(values) < count:
        raise ends_early("PPM", f"it has {len(values):,} values of {count:,}")
    return values
