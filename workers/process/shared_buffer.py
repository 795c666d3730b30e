"""Memory that two processes share and reuse (Linux only: memfd and /proc).

A pipe, or memory mapped anew, costs several copies and a page fault for each 4 KB: for the pixels of a photo
that takes longer than decoding it. A buffer that is kept costs one copy.
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
    """Where another process of the same user can open a buffer.

    Attributes:
        path: the file to open, below /proc/PID/fd.
        token: random, unique for each buffer. Pids and file numbers are reused, so two buffers can have the
            same path; without the token `attach` would return the old mapping from its cache.
    """

    path: str
    token: str


class SharedBuffer:
    """Memory of this process that others can attach; pages take memory only once they are written to.

    Args:
        size: bytes.

    Attributes:
        address: what another process passes to `attach`.
        bytes: uint8 (size,), writable.
    """

    def __init__(self, size: int) -> None:
        # Stays open, so that /proc/PID/fd names it until this process exits; a crash leaves nothing on a disk
        file = self._file = os.memfd_create("raylabel")
        os.ftruncate(file, size)
        self.address = BufferAddress(f"/proc/{os.getpid()}/fd/{file}", secrets.token_hex(8))
        self.bytes = _mapped(file)

    def close(self) -> None:
        """From now on no other process can attach it; those that have keep their mapping."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


@functools.lru_cache(maxsize=1)
def attach(address: BufferAddress) -> Bytes:
    """Maps the buffer of another process: uint8 (size,), writable; the mapping outlives that process.

    The last buffer stays mapped, because a process exchanges images with one other process at a time.

    Raises:
        OSError: that process has exited.
    """
    file = os.open(address.path, os.O_RDWR)
    try:
        return _mapped(file)
    finally:
        os.close(file)


def _mapped(file: int) -> Bytes:
    return np.frombuffer(mmap.mmap(file, os.fstat(file).st_size), np.uint8)
