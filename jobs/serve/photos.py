"""The photos of runs as the page shows them: read as the run read them, decoded in children, made small."""

import contextlib
import queue
import threading
import time
from functools import partial

from jobs.serve.images import Photo
from jobs.serve.kept import Gone, Kept, Lane, Latest
from jobs.serve.runs import ServedRun
from jobs.serve.thumbnail import Wanted, build_thumbnailer
from schemas.errors import SENTENCES, Stage
from schemas.exceptions import ImageError, ProcessDiedError
from workers.decode.picture import Limits
from workers.fetch.patience import within
from workers.process.child import Child
from workers.process.forkserver import ForkServer
from workers.process.memory import memory

SIDES = {"small": 480, "large": 1600}
"""Pixels of the longer side, by what the page calls a size."""

KEPT_BYTES = 128 * 2**20
"""Bytes of the small photos that are kept."""

READS, DECODES = 6, 2
"""Photos that are read, and of these decoded, at once."""

PATIENCE_S = 10.0
"""Seconds that reading a photo may take."""

MAX_FILE = 64 * 2**20
"""Bytes of a file that is shown, whatever the run's own bound."""

MEMORY_SHARE = 0.25
"""Of the machine's memory: what the child that decodes a photo may take."""

REFUSED_S, REFUSALS = 60, 1000
"""Seconds for which it is remembered why a photo cannot be shown, and of how many."""

MAX_LATE, LATE_S = 3, 15
"""Photos in a row that could not be read now, after which no other one is tried, for so many seconds."""


class NoPhotoError(Exception):
    """A photo cannot be shown.

    Args:
        reason: in words.
        status: of HTTP: 404 where it is gone or no photo, 503 where it may be there later.

    Attributes:
        reason: the same.
        status: the same.
    """

    def __init__(self, reason: str, status: int = 404) -> None:
        super().__init__(reason, status)
        self.reason, self.status = reason, status


class Photos:
    """Photos in small; for a `with` block."""

    def __init__(self) -> None:
        self._kept = Kept(KEPT_BYTES)
        self._reads, self._decodes = Lane("photos", READS), Lane("decode", DECODES)
        self._children = _Children()
        self._refused = Latest[tuple[str, int], tuple[float, NoPhotoError]](REFUSALS)
        self._late: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> "Photos":
        return self

    def __exit__(self, *_: object) -> None:
        self._reads.close()
        self._decodes.close()
        self._children.close()

    async def get(self, run: ServedRun, photo: Photo, size: str, gone: Gone) -> bytes:
        """A photo as a JPEG file.

        Args:
            run: of the photo.
            photo: as the index knows it.
            size: out of `SIDES`.
            gone: whether who asked does not wait any more.

        Raises:
            NoPhotoError: it cannot be shown.
            GaveUpError: who asked has gone.
        """
        key = run.name, photo.row
        refused = self._refused.get(key)
        if refused and time.monotonic() - refused[0] < REFUSED_S:
            raise NoPhotoError(refused[1].reason, refused[1].status)
        try:
            return await self._kept.get((*key, size), partial(self._make, run, photo, SIDES[size], gone))
        except NoPhotoError as error:
            self._refused[key] = time.monotonic(), error
            raise

    async def _make(self, run: ServedRun, photo: Photo, side: int, gone: Gone) -> bytes:
        if photo.byte_size > MAX_FILE:
            raise NoPhotoError(f"a file of {photo.byte_size:,} bytes is not shown; the bound is {MAX_FILE:,}")
        file = await self._reads.run(partial(self._read, run, photo), gone)
        wanted = Wanted(photo.row, file, photo.width, photo.height, side)
        return await self._decodes.run(partial(self._children.decode, run, wanted), gone)

    def _read(self, run: ServedRun, photo: Photo) -> bytes:
        """The bytes of a photo; a store that does not answer keeps only the first ones waiting."""
        late, since = self._late.get(run.name, (0, 0.0))
        if late >= MAX_LATE and time.monotonic() - since < LATE_S:
            raise NoPhotoError("the image was not tried, as those before it could not be read", 503)
        try:
            file = _read(run, photo)
        except NoPhotoError as error:
            if error.status == 503:
                self._late[run.name] = late + 1, time.monotonic()
            raise
        self._late.pop(run.name, None)
        return file


def _read(run: ServedRun, photo: Photo) -> bytes:
    """The bytes of a photo that were labelled."""
    try:
        file = within(PATIENCE_S, lambda: run.read(photo.uri))
    except FileNotFoundError:
        raise NoPhotoError("the image is not there any more") from None
    except TimeoutError as error:
        raise NoPhotoError(f"the image could not be read: {error}", 503) from None
    except ImageError as error:
        status = 503 if error.code.retryable else 404
        raise NoPhotoError(f"the image could not be read: {SENTENCES[error.code]}", status) from None
    if len(file) != photo.byte_size:
        raise NoPhotoError("the file has changed since it was labelled: its size is another")
    return file


class _Children:
    """Processes that decode photos, for each run its own, as each has its own bounds."""

    def __init__(self) -> None:
        self._free: dict[str, queue.SimpleQueue[Child]] = {}
        self._all: set[Child] = set()
        self._fork_server: ForkServer | None = None
        self._starting = threading.Lock()

    def close(self) -> None:
        """Ends them."""
        for child in list(self._all):
            child.end()
        if self._fork_server:
            self._fork_server.end()

    def decode(self, run: ServedRun, wanted: Wanted) -> bytes:
        """A photo as a JPEG file."""
        free = self._free.setdefault(run.name, queue.SimpleQueue())
        child = self._next(run, free)
        try:
            made = child(wanted)
        except ImageError as error:
            free.put(child)
            raise NoPhotoError(f"the image cannot be decoded: {SENTENCES[error.code]}") from None
        except ProcessDiedError as error:
            self._all.discard(child)
            child.end()
            raise NoPhotoError(f"the image cannot be decoded: {SENTENCES[error.code]}") from None
        free.put(child)
        if isinstance(made, str):
            raise NoPhotoError(made)
        return bytes(made)

    def _next(self, run: ServedRun, free: "queue.SimpleQueue[Child]") -> Child:
        """A child that has nothing to do."""
        with contextlib.suppress(queue.Empty):
            return free.get_nowait()
        limits = Limits(run.decode.max_pixels, int(MEMORY_SHARE * memory().limit))
        timeouts = {Stage.DECODE: run.decode.timeout_s}
        with self._starting:
            self._fork_server = self._fork_server or ForkServer("jobs.serve.thumbnail")
            address = self._fork_server.address
        child = Child(address, build_thumbnailer, limits, MEMORY_SHARE, timeouts)
        self._all.add(child)
        return child
