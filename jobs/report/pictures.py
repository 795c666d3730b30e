"""The pictures of a report: photos of the run, read again, made small, with their boxes beside the pixels."""

import base64
import io
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.report.examples import Example
from jobs.results.draw import class_colour, pixels_of
from jobs.results.images import Box, ImageRow
from schemas.exceptions import ImageError
from workers.fetch.patience import within

LONG_SIDE = 400
"""Pixels of the long side of a picture; smaller photos stay as they are."""

MAX_BYTES, QUALITIES = 24_000, (80, 65, 50, 35, 20, 10)
"""Bytes of a picture at most, and the JPEG qualities that are tried for it; the last may need more."""

MAX_PIXELS, MAX_FILE = 50_000_000, 64 * 2**20
"""Larger photos are not read, whatever the run's own bounds: to decode them takes half a gigabyte."""

MAX_DRAWN = 40
"""Boxes on a picture, the best scores first."""

CONTEXT, LEAST_SIDE, SHAPE = 2.2, 96, 4 / 3
"""A cut-out is so many times as large as its box, at least so many pixels wide, this wide by its height."""

PATIENCE_S = 30.0
"""Seconds for reading all photos of a report."""

MAX_REFUSALS = 3
"""Photos in a row that cannot be read for a reason that may pass: the others are not tried then."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A box on a picture: corner and extent in pixels of the picture.

    Attributes:
        name: its class.
        colour: of the class, as CSS has it.
    """

    name: str
    score: float
    colour: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A photo, or a part of it, in small.

    Attributes:
        uri: the JPEG file as a data: URI.
        width: pixels.
        height: pixels.
        outlines: of boxes, the best score last, so that it is on top; at most `MAX_DRAWN`.
    """

    uri: str
    width: int
    height: int
    outlines: tuple[Outline, ...]


LATE, REFUSED = "not read in time", "not tried, as those before it could not be read"
NOW = "cannot be read now"
"""Why there is no picture where its photo may be all right; `NOW` is the beginning of it."""

Taken = dict[Example, Picture | str]
"""The picture of each example, or why there is none; "" where none was asked for."""


def take_pictures(
    examples: Iterable[Example],
    images: dict[int, ImageRow],
    read: Callable[[str], bytes],
    max_pixels: int,
    patience_s: float = PATIENCE_S,
) -> Taken:
    """Makes the pictures of examples; each photo is read once, one after the other.

    A photo that does not arrive in a third of the time ends the reading: a store that does not answer would
    keep the report waiting. So do `MAX_REFUSALS` photos in a row that the store does not give now.

    Args:
        examples: taken in the order of rows, as a file that holds many images is read best.
        images: by manifest_index, with their boxes.
        read: returns the bytes of a URI of the tables; any exception of it leaves the photo out.
        max_pixels: as in the job's spec.
        patience_s: seconds for all of them.
    """
    of_image: dict[int, list[Example]] = {}
    for example in sorted(examples, key=lambda one: one.manifest_index):
        of_image.setdefault(example.manifest_index, []).append(example)
    taken: Taken = {}
    ends, refusals = time.monotonic() + patience_s, 0
    for index, its in of_image.items():
        left_s = min(ends - time.monotonic(), patience_s / 3)
        if left_s <= 0 or refusals == MAX_REFUSALS:
            taken |= dict.fromkeys(its, LATE if refusals < MAX_REFUSALS else REFUSED)
            continue
        try:
            pixels = _pixels(images[index], read, max_pixels, left_s)
            taken |= {one: picture_of(pixels, images[index], one.object_index) for one in its}
            refusals = 0
        except Exception as error:  # every store has exceptions of its own
            ends = 0 if isinstance(error, TimeoutError) else ends
            refusals = refusals + 1 if isinstance(error, ImageError) and error.code.retryable else 0
            taken |= dict.fromkeys(its, _why(error))
    return taken


def picture_of(pixels: NDArray[np.uint8], image: ImageRow, object_index: int | None = None) -> Picture:
    """A photo in small with its boxes, or one box of it with what is around.

    Args:
        pixels: uint8 (height, width, 3), RGB, upright.
        image: with boxes in pixels of `pixels`.
        object_index: the box; None: the whole photo with all of them.
    """
    boxes = image.boxes if object_index is None else (image.boxes[object_index],)
    height, width = pixels.shape[:2]
    left, top, right, bottom = (
        (0, 0, width, height) if object_index is None else around(boxes[0], width, height)
    )
    scale = min(1.0, LONG_SIDE / max(right - left, bottom - top))
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    small = Image.fromarray(pixels[top:bottom, left:right])
    if scale < 1:
        small = small.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    ranked = sorted(boxes, key=lambda box: box.score)[-MAX_DRAWN:]
    factors = size[0] / (right - left), size[1] / (bottom - top)
    return Picture(_data_uri(small), *size, tuple(_outline(box, left, top, *factors) for box in ranked))


def around(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The part of a photo around a box: [x1, y1, x2, y2], half-open, in whole pixels, within the photo."""
    across = max((box.x2 - box.x1) * CONTEXT, (box.y2 - box.y1) * CONTEXT * SHAPE, LEAST_SIDE)
    wide = min(width, round(across))
    high = min(height, round(across / SHAPE))
    left = min(max(0, round((box.x1 + box.x2 - wide) / 2)), width - wide)
    top = min(max(0, round((box.y1 + box.y2 - high) / 2)), height - high)
    return left, top, left + wide, top + high


def _pixels(
    image: ImageRow, read: Callable[[str], bytes], max_pixels: int, timeout_s: float
) -> NDArray[np.uint8]:
    if image.width * image.height > MAX_PIXELS or image.byte_size > MAX_FILE:
        raise ValueError("too large for a report")
    data = within(timeout_s, lambda: read(image.uri))
    return pixels_of(data, image, max_pixels)


def _why(error: Exception) -> str:
    """Why there is no picture: an error's code, or its words, which are ours where there is no code."""
    match error:
        case TimeoutError():
            return LATE
        case ImageError():
            return f"{NOW if error.code.retryable else 'cannot be read'} ({error.code})"
        case ValueError() | FileNotFoundError():
            return str(error)
        case _:
            return f"{NOW} ({type(error).__name__})"


def may_pass(reason: str) -> bool:
    """Whether a photo that is not shown for a reason may be shown another time."""
    return reason in (LATE, REFUSED) or reason.startswith(NOW)


def _outline(box: Box, left: int, top: int, across: float, down: float) -> Outline:
    red, green, blue = class_colour(box.class_id)
    return Outline(
        *(box.class_name, box.score, f"#{red:02x}{green:02x}{blue:02x}"),
        *((box.x1 - left) * across, (box.y1 - top) * down),
        *((box.x2 - box.x1) * across, (box.y2 - box.y1) * down),
    )


def _data_uri(picture: Image.Image) -> str:
    """A JPEG file of a few kilobytes, with nothing of the photo's own metadata."""
    for quality in QUALITIES:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= MAX_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
