"""Decodes PBM, PGM and PPM (Netpbm) as Pillow does, but not a value at a time."""

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from workers.decode.errors import decode_error, ends_early, too_many

MAX_COMMENTS = 100_000
"""Of a header, and among the values of a plain file."""

MAX_DIGITS = 10
"""Of a number."""

PIECE = 2**18
"""Bytes of a plain file that are read at once."""

_DIGITS, _SPACE = b"0123456789", b" \t\r\n\v\f"
_HEADER_PARTS = re.compile(rb"#[^\n\r]*[\n\r]?|\s+|[^\s#]{1,%d}" % (MAX_DIGITS + 1))
_COMMENT = re.compile(rb"#[^\n\r]*[\n\r]?")
_LINE_END = re.compile(rb"[\n\r]|\Z")
_NO_NUMBER = re.compile(rb"[^\d\s]")


class PnmHeader(NamedTuple):
    """The header of a file.

    Attributes:
        kind: 1 to 6, the digit of its magic.
        width: pixels across.
        height: pixels down.
        maximum: the value that is white; 1 of a PBM, in which 1 is black.
        end: where the values start.
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
    def samples(self) -> int:
        """Values of the picture."""
        return self.width * self.height * self.bands

    @property
    def mode(self) -> str:
        """Pillow's name of the mode."""
        if self.bands == 3:
            return "RGB"
        return "1" if self.kind in {1, 4} else "L" if self.maximum < 256 else "I"


def read_header(data: bytes) -> PnmHeader:
    """Reads the header.

    Raises:
        ImageError: TRUNCATED: it is cut. UNSUPPORTED: it is damaged, has over `MAX_COMMENTS` comments, or
            says that there are no pixels.
    """
    kind = data[1] - ord("0")
    numbers, end = _header_numbers(data, 2 if kind in {1, 4} else 3)
    width, height, maximum = [*numbers, 1][:3]
    if not width or not height or not 1 <= maximum <= 65_535:
        raise _damaged(f"it says {width} x {height} pixels, white is {maximum}")
    return PnmHeader(kind, width, height, maximum, end)


def _header_numbers(data: bytes, count: int) -> tuple[list[int], int]:
    """The numbers behind the magic, and the position behind the one white space that ends the last.

    As in Pillow a comment goes from "#" to the end of its line, which is no white space but part of it.
    """
    numbers: list[int] = []
    digits, comments = b"", 0
    for part in _HEADER_PARTS.finditer(data, 2):
        first = data[part.start()]  # a comment or a gap may be as long as the file: no copy
        if first == ord("#"):
            comments += 1
            _assert_few_comments(comments)
        elif first not in _SPACE:
            digits += part[0]
            if len(digits) > MAX_DIGITS or not digits.isdigit():
                raise _damaged("its header has no numbers")
        elif digits:
            numbers.append(int(digits))
            digits = b""
            if len(numbers) == count:
                return numbers, part.start() + 1
    raise ends_early("PPM", "within its header")


def _damaged(what: str) -> ImageError:
    return decode_error(ErrorCode.UNSUPPORTED, f"This PPM file is damaged: {what}.")


def _assert_few_comments(count: int) -> None:
    if count > MAX_COMMENTS:
        raise too_many("PPM", f"over {MAX_COMMENTS:,} comments", MAX_COMMENTS)


def decode_pixels(data: bytes, header: PnmHeader) -> NDArray[np.uint8]:
    """The pixels below a header: uint8 (height, width, 3), RGB.

    Raises:
        ImageError: TRUNCATED: there are fewer values than pixels. UNSUPPORTED: a plain file holds something
            other than numbers, a number above its maximum, or over `MAX_COMMENTS` comments. What follows the
            picture is not looked at.
    """
    read = _plain if header.kind <= 3 else _raw
    scaled = read(data, header).reshape(header.height, header.width, header.bands)
    return scaled if header.bands == 3 else np.repeat(scaled, 3, axis=2)


def _scale(header: PnmHeader) -> NDArray[np.uint8]:
    """For each value that fits what it is of 255, rounded as Pillow does: uint8 (256 or 65,536,).

    A value above the maximum counts as the maximum.
    """
    values = np.minimum(np.arange(256 if header.maximum < 256 else 65_536), header.maximum)
    if header.mode == "1":
        return np.where(values, 0, 255).astype(np.uint8)
    if header.mode != "I":
        return np.rint(values / header.maximum * 255).astype(np.uint8)
    deep = np.rint(values / header.maximum * 65_535).astype(np.int64)
    return ((deep * 255 + 32_767) // 65_535).astype(np.uint8)


def _raw(data: bytes, header: PnmHeader) -> NDArray[np.uint8]:
    """The scaled values of a raw file."""
    if header.kind == 4:
        size = -(-header.width // 8)
        rows = np.frombuffer(_exactly(data, header.end, size * header.height), np.uint8)
        bits = np.unpackbits(rows.reshape(header.height, size), axis=1, count=header.width)
        return _scale(header)[bits]
    kind: np.dtype[np.unsignedinteger[Any]] = np.dtype(np.uint8 if header.maximum < 256 else ">u2")
    values = np.frombuffer(_exactly(data, header.end, header.samples * kind.itemsize), kind)
    return _scale(header)[values]


def _exactly(data: bytes, start: int, size: int) -> memoryview:
    if start + size > len(data):
        raise ends_early("PPM", f"it has {max(0, len(data) - start):,} bytes of {size:,}")
    return memoryview(data)[start : start + size]


def _plain(data: bytes, header: PnmHeader) -> NDArray[np.uint8]:
    """The scaled values of a plain file, of which no more is read than these."""
    # Each takes a byte of the file at least: no memory for more
    scaled, known = np.empty(min(header.samples, len(data)), np.uint8), 0
    scale = _scale(header)
    for values in _bits(data, header) if header.kind == 1 else _numbers(data, header):
        needed = values[: len(scaled) - known]
        if needed.max(initial=0) > header.maximum:
            raise _damaged("a value is above its maximum")
        scaled[known : known + len(needed)] = scale[needed]
        known += len(needed)
        if known == header.samples:
            return scaled
    raise ends_early("PPM", f"it has {known:,} values of {header.samples:,}")


def _bits(data: bytes, header: PnmHeader) -> Iterator[NDArray[np.uint8]]:
    """The values of a plain PBM: digits."""
    for text in _texts(data, header.end):
        yield np.frombuffer(text.translate(None, _SPACE), np.uint8) - np.uint8(ord("0"))


def _numbers(data: bytes, header: PnmHeader) -> Iterator[NDArray[np.int64]]:
    """The values of a plain PGM or PPM: decimal numbers."""
    cut = b""
    for text in chain(_texts(data, header.end), [b" "]):
        joined = cut + text
        sound = joined[: _end_of_numbers(joined)]
        whole = sound.rstrip(_DIGITS)
        cut = sound[len(whole) :]
        if whole.strip(_SPACE):
            yield np.fromstring(whole, np.int64, sep=" ")
        if len(sound) < len(joined):
            raise _damaged("a value is no number")
        if len(cut) > MAX_DIGITS:
            raise _damaged("a value is above its maximum")


def _end_of_numbers(text: bytes) -> int:
    damage = _NO_NUMBER.search(text)
    return damage.start() if damage else len(text)


def _texts(data: bytes, start: int) -> Iterator[bytes]:
    """The text from a position on, in pieces without comments."""
    comments = 0
    while start < len(data):
        piece = data[start : start + PIECE]
        start += PIECE
        if b"#" in piece:
            if _ends_in_comment(piece) and (end := _LINE_END.search(data, start)):
                start = end.end()
            piece, count = _COMMENT.subn(b"", piece)
            comments += count
            _assert_few_comments(comments)
        yield piece


def _ends_in_comment(piece: bytes) -> bool:
    return piece.rfind(b"#") > max(piece.rfind(b"\n"), piece.rfind(b"\r"))
