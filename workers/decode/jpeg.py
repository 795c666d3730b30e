"""Reads the segments of a JPEG: what Pillow needs of them, and whether the picture is complete (ITU-T T.81).

Pillow refuses a picture for a short segment of metadata, and joins EXIF in time that grows with its square.
libjpeg decodes a cut file to a picture with grey or repeated parts, and reports its first warning only.
"""

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from PIL import JpegImagePlugin

from workers.decode.errors import ends_early, too_many

MAX_SEGMENTS = 20_000
"""Of a file; metadata of 256 MB are 4,096 of the largest."""

MAX_SCANS = 100
"""Of a progressive picture. Each makes a decoder go through all of it; encoders write ten."""

MAX_TABLES = 2**20
"""Bytes of segments before the first scan that are no metadata; encoders write under 2,000."""

# A marker that starts a segment or ends the image; no stuffed zero, fill byte, TEM, RSTn or SOI
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")
_SOS, _EOI, _APP0, _APP1, _APP14, _APP15, _COMMENT = 0xDA, 0xD9, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_ARITHMETIC = range(0xC9, 0xD0)
"""Frames of arithmetic coding."""

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

# Scan data that changes the picture wherever a decoder lacks data: at once, or behind any restart marker (the
# reason for eight copies). It does not begin with zero bits, because those are what libjpeg makes up itself
_FILLER = b"".join(bytes(range(0x55, 0xD0)) + b"\xff%c" % marker for marker in range(0xD0, 0xD8))


class _Segment(NamedTuple):
    """A marker segment: the second byte of its marker, where it begins and ends, its content."""

    marker: int
    start: int
    end: int
    payload: bytes


class Header(NamedTuple):
    """What comes before the first scan of a JPEG.

    Attributes:
        file: the beginning of a JPEG with what decides the pixels, up to the scan.
        scan: where the first scan begins in the original.
        arithmetic: whether the scans are coded arithmetically.
        exif: EXIF metadata; may be empty.
        xmp: XMP metadata; may be empty.
    """

    file: bytes
    scan: int
    arithmetic: bool
    exif: bytes
    xmp: bytes

    def whole(self, data: bytes) -> bytes:
        """The original without its metadata."""
        return self.file + data[self.scan :]


def read_header(data: bytes) -> Header:
    """Reads a JPEG up to its first scan.

    Raises:
        ImageError: TRUNCATED: it ends before its first scan. UNSUPPORTED: it has more segments or
            larger tables than `MAX_SEGMENTS` and `MAX_TABLES`.
    """
    kept = [data[:2]]
    exif: list[bytes] = []
    xmp, arithmetic = b"", False
    for segment in _segments(data):
        marker, payload = segment.marker, segment.payload
        if marker == _SOS:
            file = b"".join(kept)
            if len(file) > MAX_TABLES:
                raise too_many("JPEG", f"{len(file):,} bytes of tables", MAX_TABLES)
            return Header(file, segment.start, arithmetic, b"".join(exif), xmp)
        if marker == _EOI:
            break
        if marker == _APP1 and payload.startswith(_EXIF):
            exif.append(payload[len(_EXIF) :])
        elif marker == _APP1 and payload.startswith(_XMP):
            xmp = payload[len(_XMP) :]
        elif _decides_pixels(marker, payload):
            kept.append(data[segment.start : segment.end])
        arithmetic = arithmetic or marker in _ARITHMETIC
    raise ends_early("JPEG", "it has no scan")


def _decides_pixels(marker: int, payload: bytes) -> bool:
    """Whether libjpeg heeds a segment; of metadata it does two, which tell the colours, if they are whole."""
    if marker == _APP0:
        return len(payload) >= 14 and payload.startswith(b"JFIF\0")
    if marker == _APP14:
        return len(payload) >= 12 and payload.startswith(b"Adobe")
    return not (_APP0 <= marker <= _APP15 or marker == _COMMENT)


def has_every_scan(data: bytes, image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether the scans hold every coefficient of every component, to its last bit (ITU-T T.81, B.2.3).

    libjpeg fills in the coefficients of missing scans without a warning.

    Raises:
        ImageError: UNSUPPORTED: more than `MAX_SCANS` scans.
    """
    scans = 0
    progressive = "progressive" in image.info
    # A scan of a sequential JPEG has all 64 coefficients of a component; the first stands for all of them
    missing = {(layer[0], k) for layer in image.layer for k in range(64 if progressive else 1)}
    for segment in _segments(data):
        if segment.marker == _SOS:
            scans += 1
            components = segment.payload[1 : 1 + 2 * segment.payload[0] : 2]
            first, last, bits = segment.payload[-3:] if progressive else (0, 0, 0)
            if bits & 15 == 0:  # the low bits (Al): how many bits of the coefficients are still to come
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
        if scans == 1 and not missing:  # libjpeg reads no other
            return True
        if scans > MAX_SCANS:
            raise too_many("JPEG", f"over {MAX_SCANS} scans", MAX_SCANS)
    return not missing


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
    """The segments up to the end marker, which is the last unless the file is cut; scan data is skipped.

    A marker without a length that makes sense is passed over, like other bytes between segments.
    """
    position, count = 2, 0
    while match := _JPEG_MARKER.search(data, position):
        marker, length = match[1][0], int.from_bytes(data[match.end() : match.end() + 2])
        position = match.end() + length
        if marker == _EOI:
            yield _Segment(marker, match.start(), match.end(), b"")
            return
        if match.end() + 2 > len(data) or position > len(data):
            return
        if length < 2:
            position = match.end()
        else:
            yield _Segment(marker, match.start(), position, data[match.end() + 2 : position])
        count += 1
        if count > MAX_SEGMENTS:
            raise too_many("JPEG", f"over {MAX_SEGMENTS:,} segments", MAX_SEGMENTS)
