"""Reads which way up a picture is, from EXIF or XMP, and turns it."""

import re
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.images import Content

ORIENTATION = 0x0112
"""The tag of EXIF and TIFF (Exif 2.32, 4.6.4)."""

MAX_ENTRIES = 65_535
"""Of a directory that are looked at."""

_INTEGERS = {3: "H", 4: "I", 8: "h", 9: "i"}
"""Types of a tag's value, as `struct` names them; one of another type is passed over."""

_EXIF_NAME = re.compile(rb"(Exif\0\0){1,2}")
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


class Layout(NamedTuple):
    """How a TIFF or EXIF block writes its numbers.

    Attributes:
        order: "<" or ">", as `struct` names it.
        number: format of the number of a directory's entries.
        offset: format of an offset.
        entry: format of an entry: tag, type, count, value.
    """

    order: str
    number: str
    offset: str
    entry: str

    def read(self, kind: str, data: Content, position: int) -> tuple[Any, ...]:
        """Values at a position; raises struct.error where the data end before them."""
        if position > len(data):
            raise struct.error(f"position {position} of {len(data)}")
        form = self.order + kind
        return struct.unpack(form, data[position : position + struct.calcsize(form)])


def tiff_of(exif: Content) -> Content:
    """EXIF without "Exif" and two zero bytes before it, which may be there once or twice."""
    name = _EXIF_NAME.match(exif[:12])
    return exif[name.end() :] if name else exif


def layout_of(data: Content) -> Layout | None:
    """The layout by the first four bytes of a TIFF; None if they are none."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 4:
        return None
    match struct.unpack(order + "H", data[2:4])[0]:
        case 42:
            return Layout(order, "H", "I", "HHI4s")
        case 43:
            return Layout(order, "Q", "Q", "HHQ8s")
    return None


def first_directory(data: Content, layout: Layout) -> int:
    """The position of the first directory; raises struct.error where the header is cut."""
    return int(layout.read(layout.offset, data, 4 if layout.offset == "I" else 8)[0])


def places_of_entries(data: Content, layout: Layout, position: int, most: int) -> range:
    """The positions of a directory's first entries, of those that are whole.

    Raises:
        struct.error: the directory lies behind the end.
    """
    (count,) = layout.read(layout.number, data, position)
    size = struct.calcsize(layout.order + layout.entry)
    first = position + struct.calcsize(layout.order + layout.number)
    return range(first, min(first + min(count, most) * size, len(data) - size + 1), size)


def orientation_of(exif: Content, xmp: bytes) -> int:
    """The orientation that metadata tell, 1 to 8; 1 if they tell none, or are damaged.

    As `PIL.ImageOps.exif_transpose` reads it: XMP counts only where EXIF has no such tag.

    Args:
        exif: a TIFF, perhaps with "Exif" and two zero bytes before it; may be empty.
        xmp: an XMP packet; may be empty.
    """
    try:
        value = _exif_value(tiff_of(exif))
    except struct.error:
        value = None
    if value is None and (match := _XMP_ORIENTATION.search(xmp)):
        value = int(match[1])
    return value if value is not None and 1 <= value <= 8 else 1


def _exif_value(tiff: Content) -> int | None:
    """The value of the first directory's orientation; 0 if it is no integer, None if there is none."""
    layout = layout_of(tiff)
    if layout is None:
        return None
    for position in places_of_entries(tiff, layout, first_directory(tiff, layout), MAX_ENTRIES):
        if layout.read("H", tiff, position)[0] == ORIENTATION:
            return _integer(tiff, layout, position)
    return None


def _integer(tiff: Content, layout: Layout, position: int) -> int:
    """The first value of an entry; 0 if it is no integer or lies elsewhere."""
    _, kind, count, inline = layout.read(layout.entry, tiff, position)
    number = _INTEGERS.get(kind)
    size = struct.calcsize(f"={number}") if number else 0
    if not number or not 1 <= count <= len(inline) // size:
        return 0
    return int(layout.read(number, inline, 0)[0])


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Applies an EXIF orientation, so that the pixels are upright; C-contiguous.

    Args:
        pixels: uint8 (height, width, 3).
        orientation: 1 to 8.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
