"""Counts the frames of a GIF without decoding them (GIF89a specification)."""

import re

from workers.decode.errors import too_many
from workers.decode.picture import MAX_FRAMES

MAX_BLOCKS = 2_000_000
"""Blocks that are walked through; each has up to 255 bytes."""

_BLOCK = re.compile(rb"[,!;]")
"""What begins an image, an extension or the end; other bytes are stepped over, as in Pillow."""


def count_frames(data: bytes) -> int:
    """The frames that begin in a GIF, at most `MAX_FRAMES`; at least 1.

    Raises:
        ImageError: UNSUPPORTED: more than `MAX_BLOCKS` blocks come before the first frame ends.
    """
    frames, left = 0, MAX_BLOCKS
    position = 13 + _colours(data, 10)
    while frames < MAX_FRAMES and (begin := _BLOCK.search(data, position)) and begin[0] != b";":
        is_frame = begin[0] == b","
        if is_frame and begin.end() + 8 >= len(data):
            break
        # a frame: 8 bytes of its place, flags, colours, a byte for the size of LZW codes; else: a label
        behind = 10 + _colours(data, begin.end() + 8) if is_frame else 1
        position, left = _behind_data(data, begin.end() + behind, left - 1)
        if left < 0:
            break
        frames += is_frame
    if left < 0 and frames == 0:
        raise too_many("GIF", f"over {MAX_BLOCKS:,} blocks of data or comments", MAX_BLOCKS)
    return max(frames, 1)


def _behind_data(data: bytes, position: int, left: int) -> tuple[int, int]:
    """The position behind the data blocks at a position, and how many more blocks may follow (-1: none)."""
    while left >= 0 and position < len(data) and data[position]:
        position += data[position] + 1
        left -= 1
    return position + 1, left


def _colours(data: bytes, position: int) -> int:
    """Bytes of the colour table that the flags at a position announce."""
    flags = data[position] if position < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
