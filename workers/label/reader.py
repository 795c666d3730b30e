"""Images by location: fetched ahead and decoded, in order, each as pixels or as the reason there are none."""

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice, repeat
from typing import TypeVar

from schemas.errors import Stage
from schemas.exceptions import ImageError
from schemas.images import Content, LoadedImage
from schemas.locations import Location, ParquetCell
from schemas.spec import FetchSpec
from workers.batched import chunks
from workers.decode.decode import decode
from workers.decode.facts import facts_of_picture
from workers.decode.picture import Limits
from workers.fetch.large import large_file
from workers.fetch.locate import is_local, read_image
from workers.fetch.throttle import AdaptiveLimiter
from workers.label.usage import UsageMeter
from workers.process.steps import UNKNOWN, step

T = TypeVar("T")

File = Content | ImageError
"""The bytes of a file, or why there are none."""

ReadGroup = tuple[Location, ...]
"""Locations that one thread reads in sequence, as one task."""

PendingRead = Future[list[File]]
"""The files of a group, once they are read."""

LOCAL_GROUP = 8
"""Local files of a group on a CPU: to hand a task to a thread costs as much as to read one. Next to a GPU a
group is one file: its file system may be slow to answer, and there are cores to spare."""

MIN_GROUPS = 4
"""Groups that are read at once."""

AHEAD_BYTES = 256 * 2**20
"""Of files that are read ahead where images may be large, by the largest of late."""

PIECE = 2**24
"""Bytes of a file that are hashed at once."""

LATE = 256
"""Images by which it is told how large the next ones may be."""


class _Largest:
    """The largest of the last sizes that were seen."""

    def __init__(self) -> None:
        self._sizes: deque[int] = deque(maxlen=LATE)

    def saw(self, size: int) -> None:
        """Takes note of a size."""
        self._sizes.append(size)

    def fit_in(self, room: int, most: int) -> int:
        """How many of the largest fit, up to so many; none where no size is known yet."""
        largest = max(self._sizes.copy(), default=room + 1)
        return min(most, room // max(largest, 1))


class ImageReader:
    """Fetches and decodes images ahead of the caller that takes them, in the order of their locations.

    As many threads as `fetch.concurrency` read ahead; one thread reads the cells of a Parquet column, in
    their order. With a GPU, threads decode ahead too. On a CPU the caller's thread decodes: another one would
    only compete with it for the core.

    Args:
        fetch: how files are read.
        limits: of each image; with one for all together, files are read ahead by their size as well.
        device: of the models, "cpu" or "cuda".
        threads: that decode, with a GPU.
        decode_ahead: images that these threads decode before they are taken.
        facts: what is to be told of each image; see `schemas.tables.FACTS_OF`.

    Attributes:
        usage: adds up what fetching and decoding take.
    """

    limiter: type[AdaptiveLimiter] = AdaptiveLimiter

    def __init__(  # noqa: PLR0913, PLR0917 - settings of an actor, which each stand for themselves
        self,
        fetch: FetchSpec,
        limits: Limits,
        device: str,
        threads: int,
        decode_ahead: int,
        facts: Collection[str] = (),
    ) -> None:
        self.usage = UsageMeter()
        self._fetch = fetch
        self._limits = limits
        self._facts = facts
        self._concurrency = fetch.reads(device)
        self._limiter = self.limiter(self._concurrency, fetch.rate)
        self._decode_ahead = decode_ahead
        self._largest_file, self._largest_image = _Largest(), _Largest()
        self._fetchers = ThreadPoolExecutor(self._concurrency, "fetch")
        self._in_order = ThreadPoolExecutor(1, "fetch-in-order")
        self._decoders = ThreadPoolExecutor(threads, "decode") if device == "cuda" else None
        self._prefetched: dict[ReadGroup, PendingRead] = {}

    def __call__(
        self, locations: Sequence[Location], prefetch: Sequence[Location] = (), rows: Sequence[int] = ()
    ) -> Iterator[LoadedImage | ImageError]:
        """The images of some locations, in their order.

        Args:
            locations: of the images.
            prefetch: those of the next call, probably: read as soon as a read of each of `locations` has
                started.
            rows: the manifest row of each location, where they are known.
        """
        files, numbers = self._fetched(locations, prefetch), iter(rows or repeat(UNKNOWN))
        if self._decoders is None:
            for _ in locations:  # no variable, as what is large is let go of before the next is read
                yield self._load(next(files), next(numbers))
        else:
            decoders = self._decoders
            loading = (decoders.submit(self._load, next(files), next(numbers)) for _ in locations)
            yield from _with_lookahead(loading, self._images_ahead)

    def _images_ahead(self) -> int:
        """How many images threads may decode before they are taken."""
        if self._limits.together is None:
            return self._decode_ahead
        return self._largest_image.fit_in(self._limits.together, self._decode_ahead)

    def _fetched(self, locations: Sequence[Location], prefetch: Sequence[Location]) -> Iterator[File]:
        """The files in order, while the next ones are read."""
        is_grouped = (
            self._decoders is None and self._limits.together is None and all(map(is_local, locations))
        )
        size = LOCAL_GROUP if is_grouped else 1
        lookahead = max(MIN_GROUPS, -(-self._concurrency // size))

        def ahead() -> int:
            return (
                lookahead
                if self._limits.together is None
                else self._largest_file.fit_in(AHEAD_BYTES, lookahead)
            )

        # Half of what is read ahead within a unit: enough to start the next unit, and less to lose if another
        # one is requested.
        next_groups = islice(_groups(prefetch, size), ahead() // 2)
        for files in _with_lookahead(self._reads(_groups(locations, size), next_groups), ahead):
            while files:
                yield files.pop(0)

    def _reads(self, groups: Iterator[ReadGroup], prefetch: Iterator[ReadGroup]) -> Iterator[PendingRead]:
        """Starts to read groups in order, then those of the prefetch; yields the reads of the former."""
        # The previous call's prefetch becomes this one's start. A group is its own key: only one of the same
        # locations is found again, so a wrong guess costs a read and never gives a wrong file.
        earlier, self._prefetched = self._prefetched, {}
        for group in groups:
            yield earlier.pop(group) if group in earlier else self._submit(group)
        # Here every group of this call has been started. What is left of the earlier prefetch was a wrong
        # guess: cancelled if it waits for a thread, dropped if it runs.
        for read in earlier.values():
            read.cancel()
        # Not yielded, so that the lookahead never waits for a read of the next call.
        for group in prefetch:
            if group not in self._prefetched:
                self._prefetched[group] = self._submit(group)

    def _submit(self, group: ReadGroup) -> PendingRead:
        # A column is read forwards: a cell out of order would read its row group again from the start.
        in_order = any(isinstance(location, ParquetCell) for location in group)
        return (self._in_order if in_order else self._fetchers).submit(self._files, group)

    def _files(self, group: ReadGroup) -> list[File]:
        return [self._file(location) for location in group]

    def _file(self, location: Location) -> File:
        try:
            with self.usage.timing(Stage.FETCH):
                data = large_file(location, self._fetch.max_bytes) or read_image(
                    location, self._fetch, self._limiter
                )
        except ImageError as error:
            return error
        self.usage.fetched(len(data))
        self._largest_file.saw(len(data))
        return data

    def _load(self, file: File, row: int = UNKNOWN) -> LoadedImage | ImageError:
        if isinstance(file, ImageError):
            return file
        try:
            with self.usage.timing(Stage.DECODE), step(Stage.DECODE, [row]):
                decoded = decode(file, max_pixels=self._limits.pixels, memory=self._limits.memory)
                self._largest_image.saw(decoded.width * decoded.height)
                facts = facts_of_picture(decoded, self._facts)
                decoded = replace(decoded, exif=b"")
                return LoadedImage(decoded, len(file), _sha256(file), facts)
        except ImageError as error:
            return error


def _sha256(file: Content) -> bytes:
    """The SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    for start in range(0, len(file), PIECE):
        digest.update(file[start : start + PIECE])
    return digest.digest()


def _groups(locations: Sequence[Location], size: int) -> Iterator[ReadGroup]:
    """Locations in groups of so many, the last one smaller."""
    return map(tuple, chunks(locations, size))


def _with_lookahead(futures: Iterator[Future[T]], ahead: Callable[[], int]) -> Iterator[T]:
    """The results of futures in order, each when up to so many more behind it have been started."""
    started: deque[Future[T]] = deque()
    for _ in map(started.append, futures):  # no variable, as what is large is let go of when it is taken
        while len(started) > ahead():
            yield started.popleft().result()
    while started:
        yield started.popleft().result()
