"""A large TIFF of this machine that is read in parts, so that it is not in memory beside its pixels."""

import os
import re

from schemas.exceptions import StorageError
from schemas.locations import Location
from workers.fetch.fetch import failure_of
from workers.fetch.local import open_local
from workers.storage.filesystem import local_path
from workers.storage.uris import is_local

LARGE = 2**26
"""Bytes from which on a file is read in parts."""

_TIFF = re.compile(rb"II[*+]\0|MM\0[*+]")
"""How files begin that are decoded in parts: see `workers.decode.bands`."""


class LargeFile:
    """The bytes of a local file, each part of them read when it is asked for.

    Args:
        path: of the file.

    Attributes:
        is_tiff: whether it looks like a TIFF.

    Raises:
        ValueError: it is no file.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with open_local(path) as file:
            self._file = os.dup(file.fileno())
        self._size = os.fstat(self._file).st_size
        self.is_tiff = _TIFF.match(self[:4]) is not None

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        """Some bytes, fewer where the file has become shorter.

        Raises:
            ImageError: stage "fetch": they cannot be read.
        """
        start, stop, _ = part.indices(self._size)
        pieces = []
        try:
            while start < stop and (piece := os.pread(self._file, stop - start, start)):
                pieces.append(piece)
                start += len(piece)
        except OSError as error:
            raise failure_of(error, self._path) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def large_file(location: Location, most: int) -> LargeFile | None:
    """A file that is to be read in parts; None of any other, or where it cannot be opened.

    Args:
        location: of an image.
        most: bytes that it may have.
    """
    if not isinstance(location, str):
        return None
    try:
        path = location if is_local(location) else local_path(location)
        if not path or not LARGE <= os.path.getsize(path) <= most:
            return None
        file = LargeFile(path)
    except (ValueError, OSError, StorageError):
        return None
    return file if file.is_tiff else None
