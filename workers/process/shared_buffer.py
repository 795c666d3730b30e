"""Memory that two processes share and use again and again.

What goes through a pipe, or into memory that is new, is copied several times and taken page by page: of a
photo's pixels that costs more than decoding them. An arena costs one copy.
"""

import functools
import mmap
import os
import secrets
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class BufferAddress(NamedTuple):
    """Where a process of the same user finds an arena.

    Attributes:
        path: to open.
        token: tells it from another one there, since pids are used again.
    """

    path: str
    token: str


class SharedBuffer:
    """Shared memory of this process; no more of it is taken than was written to.

    Args:
        size: how many bytes it may hold.

    Attributes:
        address: for `attach`.
        bytes: uint8 (size,), writable.
    """

    def __init__(self, size: int) -> None:
        file = os.memfd_create("raylabel")
        os.ftruncate(file, size)
        self.address = BufferAddress(f"/proc/{os.getpid()}/fd/{file}", secrets.token_hex(8))
        self.bytes = _mapped(file)


@functools.lru_cache(maxsize=1)
def attach(address: BufferAddress) -> Bytes:
    """The bytes of another process's arena, uint8 (size,), writable; they outlive that process.

    The last one stays attached: a process has one partner at a time.

    Raises:
        OSError: that process is gone.
    """
    file = os.open(address.path, os.O_RDWR)
    try:
        return _mapped(file)
    finally:
        os.close(file)


def _mapped(file: int) -> Bytes:
    return np.frombuffer(mmap.mmap(file, os.fstat(file).st_size), np.uint8)
