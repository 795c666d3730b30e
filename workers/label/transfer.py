"""Decoded images between a process and its child: what they are in a table, their data in an arena."""

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import pyarrow as pa

from schemas.tables import DECODED
from workers.process.shared_buffer import BufferAddress, SharedBuffer, attach

MAX_BYTES = 512 * 2**20
"""Of the images of a unit that are handed over; those behind them are left to whoever labels."""

ALIGNED = 4
"""Bytes: where the number of an input may begin."""

PLACED = pa.schema([pa.field("start", pa.int64()), pa.field("size", pa.int64()), *list(DECODED)[1:]])
"""As `schemas.tables.DECODED`, but the data are in an arena, from `start` on; null where there are none."""


@dataclass(frozen=True)
class SharedImages:
    """Images between a process and its child.

    Attributes:
        rows: under `PLACED`.
        buffer: which one their data are in.
    """

    rows: pa.Table
    buffer: BufferAddress

    def part(self, start: int, stop: int) -> "SharedImages":
        """Some of them, by their places."""
        return replace(self, rows=self.rows.slice(start, stop - start))


def new_buffer() -> SharedBuffer:
    """Room for the images of a unit."""
    return SharedBuffer(MAX_BYTES + 2**20)


def to_shared(decoded: pa.Table, buffer: SharedBuffer) -> SharedImages:
    """Puts the data of some images into an arena, in the place of what was there.

    Args:
        decoded: under `schemas.tables.DECODED`.
        buffer: of this process.
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
        end += -(-data.size // ALIGNED) * ALIGNED
    placed = [pa.array(column, pa.int64()) for column in (starts, sizes)]
    return SharedImages(pa.table([*placed, *decoded.columns[1:]], schema=PLACED), buffer.address)


def from_shared(images: SharedImages) -> pa.Table:
    """Images that a child put into its arena one behind another, without a copy: until it does the next.

    Returns:
        Under `schemas.tables.DECODED`.
    """
    sizes = images.rows["size"].to_pylist()
    offsets = pa.array(accumulate((size or 0 for size in sizes), initial=0), pa.int64())
    valid = pa.array([size is not None for size in sizes])
    buffers = [valid.buffers()[1], offsets.buffers()[1], pa.py_buffer(attach(images.buffer))]
    data = pa.Array.from_buffers(pa.large_binary(), len(sizes), buffers)
    return pa.table([data, *images.rows.columns[2:]], schema=DECODED)
