"""Copies of photos next to their annotations, in the orientation that the boxes are of."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image

from jobs.exports.base import Sample
from workers.decode.decode import decode

AT_ONCE = 8
"""Photos that are read at once."""

JPEG_QUALITY = 95


def copy_photos(
    samples: Iterator[Sample],
    into: Path,
    open_image: Callable[[str], bytes],
    max_pixels: int,
    left_out: Callable[[str], None],
) -> Iterator[Sample]:
    """Yields samples whose photo was copied, in their order; a photo with an EXIF turn is written upright.

    Args:
        samples: the images, each with the folder of its copy.
        into: the export's folder.
        open_image: returns the bytes of a `uri` of the tables, in any thread; any exception leaves it out.
        max_pixels: as in the job's spec.
        left_out: called with the URI and the reason for each image that is left out, as its photo is
            unreadable now or has changed.
    """

    def content(sample: Sample) -> bytes:
        return _content(sample, open_image(sample.image.uri), max_pixels)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting: deque[tuple[Sample, Future[bytes]]] = deque()

        def begin(number: int) -> None:
            waiting.extend((sample, pool.submit(content, sample)) for sample in islice(samples, number))

        begin(2 * AT_ONCE)
        while waiting:
            sample, read = waiting.popleft()
            begin(1)
            try:
                data = read.result()
            except Exception as error:  # every store has exceptions of its own
                left_out(f"{sample.image.uri}: {error or type(error).__name__}")
                continue
            (into / sample.path).write_bytes(data)
            yield sample


def _content(sample: Sample, data: bytes, max_pixels: int) -> bytes:
    """A photo's file as it is, or upright where it has a turn."""
    if hashlib.sha256(data).digest() != sample.image.sha256:
        raise ValueError("the file has changed since it was labelled")
    if sample.image.exif_orientation == 1:
        return data
    upright, file = Image.fromarray(decode(data, max_pixels=max_pixels).pixels), BytesIO()
    if sample.image.format == "JPEG":
        upright.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        upright.save(file, "PNG")
    return file.getvalue()
