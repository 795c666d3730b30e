"""Whether a JPEG holds all of its picture, which libjpeg does not always tell."""

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from PIL import JpegImagePlugin

# The next marker that starts a segment or ends the image: not a stuffed zero, a fill byte, TEM, RSTn or SOI.
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")
_SOS, _EOI = 0xDA, 0xD9

# Scan data that means something wherever a decoder wants more: at once, or behind any restart marker. It does
# not begin with zero bits, as those are what libjpeg makes up itself.
_FILLER = b"".join(bytes(range(0x55, 0xD0)) + b"\xff%c" % marker for marker in range(0xD0, 0xD8))


class _Segment(NamedTuple):
    """One marker segment of a JPEG: its marker's second byte, where the marker starts, what it holds."""

    marker: int
    start: int
    payload: bytes


def has_every_scan(data: bytes, image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether the scans bring every coefficient of every component, to its last bit (ITU-T T.81, B.2.3).

    libjpeg fills in what missing scans would have brought, without a warning.
    """
    progressive = "progressive" in image.info
    # a scan of a sequential JPEG brings all 64 coefficients of a component: the first stands for them
    missing = {(layer[0], k) for layer in image.layer for k in range(64 if progressive else 1)}
    for segment in _segments(data):
        if segment.marker == _SOS:
            components = segment.payload[1 : 1 + 2 * segment.payload[0] : 2]
            first, last, bits = segment.payload[-3:] if progressive else (0, 0, 0)
            if bits & 15 == 0:
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
        if not missing:
            return True
    return False


def lacks_scan_data(data: bytes, image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether libjpeg, which tells its first warning only, ran out of scan data after another one.

    It did if bytes put before the end marker change the picture: a whole picture has no use for them.
    """
    *_, last = _segments(data)
    if last.marker != _EOI:
        return True
    longer = data[: last.start].rstrip(b"\xff") + _FILLER + data[last.start :]
    return image.tobytes() != JpegImagePlugin.JpegImageFile(io.BytesIO(longer)).tobytes()


def _segments(data: bytes) -> Iterator[_Segment]:
    """Walks a JPEG's segments up to the end marker, which comes last; scan data lies between them."""
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        marker, length = found[1][0], int.from_bytes(data[found.end() : found.end() + 2])
        at = found.end() + length
        if marker != _EOI and not found.end() + 2 <= at <= len(data):
            return
        yield _Segment(marker, found.start(), data[found.end() + 2 : at])
        if marker == _EOI:
            return
