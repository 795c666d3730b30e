"""Files that are read in parts: local files directly, all others by range requests through `fetch`."""

import io
import math
import sys
import time
from typing import IO, Any

from schemas.exceptions import ImageError
from schemas.spec import FetchSpec
from workers.fetch.fetch import failure_of, fetch, persist
from workers.fetch.local import open_local
from workers.fetch.patience import within
from workers.storage.answers import COMPRESSED, NotPartialError
from workers.storage.filesystem import file_system, with_fresh_credentials
from workers.storage.uris import clean_uri, is_local

MIN_AHEAD, MAX_AHEAD = 64 * 2**10, 8 * 2**20
"""Smallest and largest request of a file that is read ahead, in bytes."""

SKIP_BYTES = 2 * 2**20
"""Gap in bytes above which a new request is faster than reading on: they take as long as a request does,
30 ms at 70 MB/s."""


ASK_AGAIN_S = 60
"""Seconds for which a file that did not answer is not asked for again: its images are read one after
another, and would wait for it each."""

_unanswered: dict[str, tuple[float, tuple[Any, ...]]] = {}
"""When a file did not answer, and what its `ImageError` is made of: one that is raised again would grow."""


class RangeFile(io.RawIOBase):
    """A file object; each read is one request for exactly these bytes.

    Args:
        uri: of the file.
        spec: attempts and timeouts of a request.
        size: its bytes, where they are known; None: the store is asked.

    Raises:
        ImageError: stage "fetch": its size is not known; reads raise as `workers.fetch.fetch.fetch` does.
    """

    def __init__(self, uri: str, spec: FetchSpec, size: int | None = None) -> None:
        super().__init__()
        self._uri = uri
        self._spec = spec.model_copy(
            update={"max_bytes": sys.maxsize}
        )  # that limit is for images, not for parts of a file
        self.size = _size(uri, self._spec) if size is None else size
        self._position = 0

    def read(self, size: int | None = -1) -> bytes:
        """Reads up to `size` bytes from the position; None or a negative number reads to the end."""
        rest = max(self.size - self._position, 0)
        wanted = rest if size is None or size < 0 else min(size, rest)
        data = self._bytes(self._position, wanted) if wanted else b""
        self._position += len(data)
        return data

    def _bytes(self, start: int, size: int) -> bytes:
        return fetch(self._uri, self._spec, start, size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position; returns it."""
        self._position = (
            offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        )
        return self._position

    def tell(self) -> int:
        """The position: where the next read begins."""
        return self._position

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True


class ReadAhead(RangeFile):
    """A file object for small reads from the beginning to the end, with gaps between them.

    If the gaps are short the file is read whole, in growing requests; long gaps are skipped.
    """

    def __init__(self, uri: str, spec: FetchSpec) -> None:
        super().__init__(uri, spec)
        self._buffer, self._buffer_start = b"", 0
        self._ahead = MIN_AHEAD // 2

    def _bytes(self, start: int, size: int) -> bytes:
        end = self._buffer_start + len(self._buffer)
        if not (self._buffer_start <= start and start + size <= end):
            # Each read near the last one doubles the request; a jump starts again with a small one
            near = self._buffer_start <= start <= end + SKIP_BYTES
            self._ahead = min(2 * self._ahead, MAX_AHEAD) if near else MIN_AHEAD
            self._buffer = super()._bytes(start, min(max(size, self._ahead), self.size - start))
            self._buffer_start = start
        return self._buffer[start - self._buffer_start : start - self._buffer_start + size]


def open_exactly(uri: str, spec: FetchSpec) -> IO[bytes] | RangeFile:
    """Opens a file for a reader that knows which parts it needs: each read is one request."""
    return _open_local(uri) or RangeFile(uri, spec)


def open_ahead(uri: str, spec: FetchSpec) -> IO[bytes] | RangeFile:
    """Opens a file for a reader that goes through it in small steps: it is read ahead."""
    return _open_local(uri) or ReadAhead(uri, spec)


def _open_local(uri: str) -> IO[bytes] | None:
    if not is_local(uri):
        return None
    try:
        return open_local(uri)
    except (OSError, ValueError) as error:
        raise failure_of(error, uri) from None


def _size(uri: str, spec: FetchSpec) -> int:
    """The bytes of a file; asked for as often, and for as long, as an image."""

    def size() -> int | None:
        fs, path = file_system(uri, spec.timeout_s)
        info = with_fresh_credentials(fs, lambda: fs.info(path))
        if info.get("encoded"):
            raise NotPartialError(f"{COMPRESSED}. Download it and name the copy")
        return info["size"]  # type: ignore[no-any-return]

    failed_at, failure = _unanswered.get(uri, (-math.inf, ()))
    if time.monotonic() - failed_at < ASK_AGAIN_S:
        raise ImageError(*failure)
    try:
        known, _ = persist(clean_uri(uri), spec, lambda: within(spec.timeout_s, size), uri)
    except ImageError as error:
        if error.code.retryable:
            _unanswered[uri] = (time.monotonic(), error.args)
        raise
    if known is None:
        why = "its server does not tell its size, so it cannot be read in parts"
        raise failure_of(ValueError(why), uri)
    return known
