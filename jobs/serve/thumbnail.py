"""Photos in small, made in a process of its own: a file may make a decoder crash, or take long."""

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from schemas.errors import Stage
from workers.decode.decode import decode
from workers.decode.picture import Limits
from workers.process.serve import StageCallback
from workers.process.steps import step

QUALITY = 82
"""Of the JPEG files that are sent."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A photo to make small.

    Attributes:
        row: in the manifest.
        file: its bytes.
        width: pixels across that it had when it was labelled, upright.
        height: and down.
        side: pixels of the longer side of what is made; a smaller photo stays as it is.
    """

    row: int
    file: bytes
    width: int
    height: int
    side: int


def build_thumbnailer(limits: Limits) -> Callable[[Wanted, StageCallback], bytes | str]:
    """What makes JPEG files of photos within a run's bounds, or says why there is none."""

    def make(wanted: Wanted, on_stage: StageCallback) -> bytes | str:
        on_stage(Stage.DECODE)
        with step(Stage.DECODE, [wanted.row]):
            pixels = decode(wanted.file, max_pixels=limits.pixels, memory=limits.memory).pixels
            height, width = pixels.shape[:2]
            if (width, height) != (wanted.width, wanted.height):
                return f"the file has changed since it was labelled: it has {width} x {height} pixels"
            return _jpeg(Image.fromarray(pixels), wanted.side)

    return make


def _jpeg(photo: Image.Image, side: int) -> bytes:
    """A photo in small, with nothing of the file's own metadata."""
    scale = side / max(photo.size)
    if scale < 1:
        size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
        photo = photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
