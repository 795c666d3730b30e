"""What a picture may take, and the first picture of a file without all that could spoil it or cost time."""

from typing import NamedTuple

from schemas.images import Content
from workers.decode.bands import Bands

MAX_FRAMES = 65_536
"""Frames or pages that are counted; a file with more says this many."""


class Limits(NamedTuple):
    """What pictures may take.

    Attributes:
        pixels: of one.
        memory: bytes while one is decoded; None: any number.
        together: pixels of all that are decoded before they are needed; None: their number alone counts.
    """

    pixels: int
    memory: int | None = None
    together: int | None = None


class Picture(NamedTuple):
    """The first picture of a file.

    Attributes:
        file: a file of the same format without other pictures and without metadata.
        orientation: EXIF orientation, 1 to 8; not in `file` any more.
        frames: pictures in the original file, at most `MAX_FRAMES`.
        is_cut: whether the bytes end within the picture's data, which may be whole all the same.
        exif: EXIF of the original: see `schemas.images.DecodedImage`.
        bands: what it is decoded in, in place of `file`, which is empty; None: `file` is.
    """

    file: bytes
    orientation: int
    frames: int
    is_cut: bool = False
    exif: Content = b""
    bands: Bands | None = None
