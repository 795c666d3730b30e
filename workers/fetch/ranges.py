"""Files that are read by parts: a local one as it is, any other by range requests as `fetch` makes them."""

import io
import sys
from typing import IO

from schemas.errors import Stage
from schemas.exceptions import ImageError
from schemas.spec import FetchSpec
from workers.fetch.fetch import code_of, fetch
from workers.storage.filesystem import file_system, with_fresh_credentials
from workers.storage.uris import clean_uri, is_local

MIN_AHEAD, MAX_AHEAD = 64 * 2**10, 8 * 2**20
"""Bytes that a file which is read ahead is asked for at once."""

WORTH_A_REQUEST = 2 * 2**20
"""Bytes that take as long to read as it takes to ask for others: 30 ms at 70 MB/s."""


class RangeFile(io.RawIOBase):
    """A file of which exactly what is asked for is read, one request each time.

    Args:
        uri: of the file.
        spec: attempts, and the time that each may take.

    Raises:
        ImageError: stage "fetch": its size cannot be told; of reading: see `workers.fetch.fetch.fetch`.
    """

    def __init__(self, uri: str, spec: FetchSpec) -> None:
        super().__init__()
        self._uri = uri
        self._spec = spec.model_copy(update={"max_bytes": sys.maxsize})  # a bound for images
        self.size = _size(uri)
        self._at = 0

    def read(self, size: int | None = -1) -> bytes:
        """Up to so many bytes from here on."""
        rest = max(self.size - self._at, 0)
        wanted = rest if size is None or size < 0 else min(size, rest)
        data = self._bytes(self._at, wanted) if wanted else b""
        self._at += len(data)
        return data

    def _bytes(self, start: int, size: int) -> bytes:
        return fetch(self._uri, self._spec, start, size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Where the next read begins."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True


class ReadAhead(RangeFile):
    """A file that is read in small parts from its beginning to its end, with gaps.

    Where the gaps are short it is read whole, in larger and larger requests; where they are long, what is in
    them is not asked for.
    """

    def __init__(self, uri: str, spec: FetchSpec) -> None:
        super().__init__(uri, spec)
        self._held, self._from = b"", 0
        self._ahead = MIN_AHEAD // 2

    def _bytes(self, start: int, size: int) -> bytes:
        end = self._from + len(self._held)
        if not (self._from <= start and start + size <= end):
            near = self._from <= start <= end + WORTH_A_REQUEST
            self._ahead = min(2 * self._ahead, MAX_AHEAD) if near else MIN_AHEAD
            self._held = super()._bytes(start, min(max(size, self._ahead), self.size - start))
            self._from = start
        return self._held[start - self._from : start - self._from + size]


def open_exactly(uri: str, spec: FetchSpec) -> IO[bytes] | RangeFile:
    """A file for somebody who knows which parts of it to read."""
    return _open_local(uri) or RangeFile(uri, spec)


def open_ahead(uri: str, spec: FetchSpec) -> IO[bytes] | RangeFile:
    """A file for somebody who goes through it in small steps."""
    return _open_local(uri) or ReadAhead(uri, spec)


def _open_local(uri: str) -> IO[bytes] | None:
    if not is_local(uri):
        return None
    try:
        return open(uri, "rb")
    except OSError as error:
        raise _failure(uri, error) from None


def _size(uri: str) -> int:
    try:
        fs, path = file_system(uri)
        size = with_fresh_credentials(fs, lambda: fs.size(path))
    except Exception as error:
        raise _failure(uri, error) from None
    if size is None:
        raise _failure(uri, ValueError("its server does not tell its size, so it cannot be read by parts"))
    return int(size)


def _failure(uri: str, error: Exception) -> ImageError:
    return ImageError(Stage.FETCH, code_of(error), f"{clean_uri(uri)}: {type(error).__name__}: {error}")
