"""Checks whether a JPEG is complete, which libjpeg does not always report.

libjpeg decodes a cut file to a picture with grey or repeated parts, and reports its first warning only.
"""

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from PIL import JpegImagePlugin

# A marker that starts a segment or ends the image; no stuffed zero, fill byte, TEM, RSTn or SOI
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")
_SOS, _EOI = 0xDA, 0xD9

# Scan data that changes the picture wherever a decoder lacks data: at once, or behind any restart marker (the
# reason for eight copies). It does not begin with zero bits, because those are what libjpeg makes up itself
_FILLER = b"".join(bytes(range(0x55, 0xD0)) + b"\xff%c" % marker for marker in range(0xD0, 0xD8))


class _Segment(NamedTuple):
    """A marker segment: the second byte of its marker, the marker's position, the segment's content."""

    marker: int
    start: int
    payload: bytes


def has_every_scan(data: bytes, image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether the scans hold every coefficient of every component, to its last bit (ITU-T T.81, B.2.3).

    libjpeg fills in the coefficients of missing scans without a warning.
    """
    progressive = "progressive" in image.info
    # A scan of a sequential JPEG has all 64 coefficients of a component; the first stands for all of them
    missing = {(layer[0], k) for layer in image.layer for k in range(64 if progressive else 1)}
    for segment in _segments(data):
        if segment.marker == _SOS:
            components = segment.payload[1 : 1 + 2 * segment.payload[0] : 2]
            first, last, bits = segment.payload[-3:] if progressive else (0, 0, 0)
            if bits & 15 == 0:  # the low bits (Al): how many bits of the coefficients are still to come
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
        if not missing:
            return True
    return False


def lacks_scan_data(data: bytes, image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether libjpeg ran out of scan data after a first warning about something else.

    It did if bytes inserted before the end marker change the picture: a complete picture does not need them.
    """
    *_, last = _segments(data)
    if last.marker != _EOI:
        return True
    longer = data[: last.start].rstrip(b"\xff") + _FILLER + data[last.start :]
    return image.tobytes() != JpegImagePlugin.JpegImageFile(io.BytesIO(longer)).tobytes()


def _segments(data: bytes) -> Iterator[_Segment]:
    """The segments up to the end marker, which is the last unless the file is cut; scan data is skipped."""
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        marker, length = match[1][0], int.from_bytes(data[match.end() : match.end() + 2])
        position = match.end() + length
        if marker != _EOI and not match.end() + 2 <= position <= len(data):
            return
        yield _Segment(marker, match.start(), data[match.end() + 2 : position])
        if marker == _EOI:
            return
