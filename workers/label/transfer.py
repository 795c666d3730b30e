"""Decoded images between a process and its child: facts in a table, pixels in a shared buffer.

A buffer holds the images of one call. The side that owns it overwrites them with those of the next, so the
other side must be done with them by then: one call at a time, and each is copied or consumed before the next.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import pyarrow as pa

from schemas.tables import DECODED
from workers.process.shared_buffer import BufferAddress, SharedBuffer, attach

MAX_BYTES = 512 * 2**20
"""Of a unit's images that are shared. The labeller fetches and decodes the ones that no longer fit."""

ALIGNMENT = 4
"""Bytes: a float32 of a model's input starts at a multiple of them."""

SHARED = pa.schema([pa.field("start", pa.int64()), pa.field("size", pa.int64()), *list(DECODED)[1:]])
"""As `schemas.tables.DECODED`, but with the position of the data in a shared buffer; null without data."""


@dataclass(frozen=True)
class SharedImages:
    """Images that one process decoded and another reads.

    Attributes:
        rows: their facts and positions, under `SHARED`.
        buffer: the address of the buffer with their data.
    """

    rows: pa.Table
    buffer: BufferAddress

    def part(self, start: int, stop: int) -> "SharedImages":
        """Some of them, by their positions in `rows`."""
        return replace(self, rows=self.rows.slice(start, stop - start))


def new_buffer() -> SharedBuffer:
    """A buffer for the images of a unit."""
    return SharedBuffer(MAX_BYTES + 2**20)


def to_shared(decoded: pa.Table, buffer: SharedBuffer) -> SharedImages:
    """Copies the data of some images into a buffer, over those of the previous call.

    Args:
        decoded: under `schemas.tables.DECODED`.
        buffer: of this process; the child must have answered the request that used it before.
    """
    starts: list[int | None] = []
    sizes: list[int | None] = []
    end = 0
    for value in decoded["data"]:
        if not value.is_valid:
            starts.append(None)
            sizes.append(None)
            continue
        data = np.frombuffer(value.as_buffer(), np.uint8)
        starts.append(end)
        sizes.append(data.size)
        buffer.bytes[end : end + data.size] = data
        end += -(-data.size // ALIGNMENT) * ALIGNMENT
    positions = [pa.array(column, pa.int64()) for column in (starts, sizes)]
    return SharedImages(pa.table([*positions, *decoded.columns[1:]], schema=SHARED), buffer.address)


def from_shared(images: SharedImages) -> pa.Table:
    """The images that a child wrote to its buffer without gaps; not copied, valid until its next call.

    Returns:
        Under `schemas.tables.DECODED`.
    """
    sizes = images.rows["size"].to_pylist()
    offsets = pa.array(accumulate((size or 0 for size in sizes), initial=0), pa.int64())
    valid = pa.array([size is not None for size in sizes])
    buffers = [valid.buffers()[1], offsets.buffers()[1], pa.py_buffer(attach(images.buffer))]
    data = pa.Array.from_buffers(pa.large_binary(), len(sizes), buffers)
    return pa.table([data, *images.rows.columns[2:]], schema=DECODED)
