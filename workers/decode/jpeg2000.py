"""What a JPEG 2000 takes to decode, by its header (ITU-T T.800, Annex A)."""

import struct
from typing import NamedTuple

from workers.decode.errors import too_many

MAX_BLOCKS = 2_000_000
"""Code blocks and packets; 120 megapixels in colour are 90,000 blocks of 64 x 64."""

_START, _SIZE, _STYLE, _TILE = b"\xff\x4f\xff\x51", 0x51, 0x52, 0x90


class _Size(NamedTuple):
    """The picture's width and height, those of a tile, and the number of components."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    components: int


def assert_few_blocks(data: bytes) -> None:
    """Refuses a picture that is cut into so many parts that to read them takes long, and much memory.

    Says nothing of a header that is damaged: the decoder does.

    Raises:
        ImageError: UNSUPPORTED: more than `MAX_BLOCKS` parts.
    """
    start = data.find(_START)
    try:
        blocks = _blocks(data, start + 2) if start >= 0 else 0
    except (struct.error, ZeroDivisionError):
        return
    if blocks > MAX_BLOCKS:
        raise too_many("JPEG 2000", f"{blocks:,} code blocks and packets", MAX_BLOCKS)


def _blocks(data: bytes, position: int) -> int:
    """Code blocks and packets of the codestream whose first segment is at a position."""
    size = None
    while True:
        marker, length = struct.unpack_from(">xBH", data, position)
        if marker == _SIZE:
            right, bottom, left, top, wide, high, _, _, components = struct.unpack_from(
                ">8IH", data, position + 6
            )
            size = _Size(right - left, bottom - top, wide, high, components)
        elif marker == _STYLE and size:
            return _parts(data, position + 4, size)
        elif marker == _TILE:
            return 0
        position += 2 + max(length, 2)


def _parts(data: bytes, position: int, size: _Size) -> int:
    """Code blocks and packets by the segment of the coding style (COD)."""
    style, _, layers, _, levels, wide, high = struct.unpack_from(">BBHBBBB", data, position)
    area, pixels = 1 << int(wide + high + 4), size.width * size.height
    tiles = -(-size.width // size.tile_width) * -(-size.height // size.tile_height)
    precincts = 0
    for level in range(levels + 1):
        exponents = data[position + 10 + level] if style & 1 else 0xFF
        precinct = 1 << (exponents & 15) + (exponents >> 4)
        precincts += tiles + (pixels >> 2 * (levels - level)) // precinct
    return int(size.components * (pixels // area + tiles + precincts * max(layers, 1)))
