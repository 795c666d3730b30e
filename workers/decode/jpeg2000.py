"""What a JPEG 2000 takes to decode, by its headers (ITU-T T.800, Annexes A and I)."""

import contextlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from workers.decode.errors import too_many

MAX_BLOCKS = 2_000_000
"""Code blocks and packets; 120 megapixels in colour are 90,000 blocks of 64 x 64."""

MAX_SEGMENTS = 200_000
"""Boxes before the picture, and segments of its headers."""

MAX_STYLES = 1_000
"""Different ways in which components and tiles are coded; files have one."""

_CODESTREAM, _CODESTREAM_BOX = b"\xff\x4f\xff\x51", b"jp2c"
_SIZE, _STYLE, _COMPONENT_STYLE, _TILE, _DATA, _END = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_MARKERS = frozenset(
    {0xFF50, _SIZE, _STYLE, _COMPONENT_STYLE, 0xFF55, 0xFF57, 0xFF58, 0xFF59, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F}
    | {0xFF60, 0xFF61, 0xFF63, 0xFF64, 0xFF74, 0xFF75, 0xFF77, 0xFF78, _TILE, _DATA, _END}
)
"""Those that the decoder knows. From any other it searches for the next one, whatever length that has."""


class _Size(NamedTuple):
    """The picture's width and height, the number of tiles in a row and in a column, and of components."""

    width: int
    height: int
    across: int
    down: int
    components: int


class _Style(NamedTuple):
    """How components are coded: quality layers, and exponents of two of sizes.

    Attributes:
        layers: of each packet; 1 where the segment does not say.
        levels: of resolution, but for the smallest one.
        wide: the exponent of a code block's width.
        high: the exponent of a code block's height.
        precincts: for each level the exponents of a precinct, the height's in the upper four bits.
    """

    layers: int
    levels: int
    wide: int
    high: int
    precincts: bytes


def assert_few_blocks(data: bytes) -> None:
    """Refuses a picture that is cut into so many parts that to read them takes long, and much memory.

    Says nothing of a header that is damaged: the decoder does. Each tile counts as coded like the worst one.

    Raises:
        ImageError: UNSUPPORTED: more than `MAX_BLOCKS` parts, or more than `MAX_SEGMENTS` segments or boxes,
            or more than `MAX_STYLES` styles.
    """
    size: _Size | None = None
    styles: set[_Style] = set()
    with contextlib.suppress(struct.error, ZeroDivisionError):
        for count, (marker, position) in enumerate(_segments(data, _codestream(data))):
            if count >= MAX_SEGMENTS:
                raise too_many("JPEG 2000", f"over {MAX_SEGMENTS:,} header segments", MAX_SEGMENTS)
            if marker == _SIZE:
                size = size or _size(data, position)
            elif marker in {_STYLE, _COMPONENT_STYLE} and size:
                styles.add(_style(data, position, marker, size))
                if len(styles) > MAX_STYLES:
                    raise too_many("JPEG 2000", f"over {MAX_STYLES:,} coding styles", MAX_STYLES)
    layers = max((style.layers for style in styles), default=1)
    blocks = max((_parts(size, style, layers) for style in styles if size), default=0)
    if blocks > MAX_BLOCKS:
        raise too_many("JPEG 2000", f"{blocks:,} code blocks and packets", MAX_BLOCKS)


def _codestream(data: bytes) -> int:
    """The position of the picture, in the first box of its type; raises struct.error if there is none."""
    if data.startswith(_CODESTREAM):
        return 0
    position = 0
    for _ in range(MAX_SEGMENTS):
        length, name = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1:
            (length,), head = struct.unpack_from(">Q", data, position + 8), 16
        if name == _CODESTREAM_BOX:
            return position + head
        if length < head:
            raise struct.error("a box up to the end of the file, or a damaged one")
        position += length
    raise too_many("JPEG 2000", f"over {MAX_SEGMENTS:,} boxes", MAX_SEGMENTS)


def _segments(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """The marker of each segment of the picture's header and its tiles' headers, and the position behind it.

    Ends with the codestream; raises struct.error where it is cut or damaged.
    """
    position, tile, tile_length = start + 2, 0, 0
    while True:
        (marker,) = struct.unpack_from(">H", data, position)
        yield marker, position + 2
        if marker == _END or (marker == _DATA and tile + tile_length <= position):
            return
        if marker == _DATA:
            position = tile + tile_length
        elif marker not in _MARKERS:
            position += 2
        else:
            if marker == _TILE:
                tile, (tile_length,) = position, struct.unpack_from(">I", data, position + 6)
            (length,) = struct.unpack_from(">H", data, position + 2)
            position += 2 + max(length, 2)


def _size(data: bytes, position: int) -> _Size:
    right, bottom, left, top, wide, high, x, y, components = struct.unpack_from(">8IH", data, position + 4)
    return _Size(right - left, bottom - top, -(-(right - x) // wide), -(-(bottom - y) // high), components)


def _style(data: bytes, position: int, marker: int, size: _Size) -> _Style:
    """The style that a segment (COD or COC) sets for all components or for one."""
    if marker == _STYLE:
        flags, _, layers, _ = struct.unpack_from(">BBHB", data, position + 2)
        position += 7
    else:
        position += 3 if size.components < 257 else 4
        (flags,), layers = struct.unpack_from(">B", data, position), 1
        position += 1
    levels, wide, high, _ = struct.unpack_from(">4B", data, position)
    precincts = data[position + 4 : position + 5 + levels] if flags & 1 else b""
    return _Style(layers, levels, (wide & 15) + 2, (high & 15) + 2, precincts.ljust(levels + 1, b"\xff"))


def _parts(size: _Size, style: _Style, layers: int) -> int:
    """Code blocks and packets of a picture all of which has a style."""
    blocks = precincts = 0
    for level, exponents in enumerate(style.precincts):
        width, height = size.width >> style.levels - level, size.height >> style.levels - level
        wide, high = exponents & 15, exponents >> 4
        precincts += _cells(size, width >> wide, height >> high)
        # The smallest level is one band; any other has three bands of half its width and height
        bands, half = (3, 1) if level else (1, 0)
        wide, high = (
            half + min(style.wide, max(wide - half, 0)),
            half + min(style.high, max(high - half, 0)),
        )
        blocks += bands * _cells(size, width >> wide, height >> high)
    return size.components * (blocks + precincts * max(layers, 1))


def _cells(size: _Size, across: int, down: int) -> int:
    """The cells of a grid of so many whole ones, which the edges of the tiles cut."""
    return (across + size.across) * (down + size.down)
