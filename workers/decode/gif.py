"""Counts the frames of a GIF without decoding them (GIF89a specification)."""

from workers.decode.errors import too_many
from workers.decode.picture import MAX_FRAMES

MAX_BLOCKS = 2_000_000
"""Data blocks that are walked through; each has up to 255 bytes."""

_IMAGE, _EXTENSION = 0x2C, 0x21


def count_frames(data: bytes) -> int:
    """The frames that begin in a GIF, at most `MAX_FRAMES`; at least 1.

    Raises:
        ImageError: UNSUPPORTED: more than `MAX_BLOCKS` blocks come before the first frame ends.
    """
    frames, blocks = 0, 0
    position = 13 + _colours(data, 10)
    while frames < MAX_FRAMES and position + 9 < len(data) and data[position] in {_IMAGE, _EXTENSION}:
        if data[position] == _IMAGE:
            frames += 1
            position += 11 + _colours(data, position + 9)  # and a byte for the size of LZW codes
        else:
            position += 2
        while position < len(data) and data[position]:
            position += data[position] + 1
            blocks += 1
            if blocks > MAX_BLOCKS:
                if frames <= 1:
                    raise too_many("GIF", f"over {MAX_BLOCKS:,} blocks of data or comments", MAX_BLOCKS)
                return frames
        position += 1
    return max(frames, 1)


def _colours(data: bytes, position: int) -> int:
    """Bytes of the colour table that the flags at a position announce."""
    flags = data[position] if position < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
