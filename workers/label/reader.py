"""Images by location: fetched ahead and decoded, in order, each as pixels or as the reason there are none."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from schemas.errors import Stage
from schemas.exceptions import ImageError
from schemas.images import LoadedImage
from schemas.locations import Location, ParquetCell
from schemas.spec import DecodeSpec, FetchSpec
from workers.batched import chunks
from workers.decode.decode import decode
from workers.fetch.locate import is_local, read_image
from workers.fetch.throttle import AdaptiveLimiter
from workers.label.usage import UsageMeter

T = TypeVar("T")

Run = tuple[Location, ...]
Fetching = Future[list[bytes | ImageError]]

LOCAL_RUN = 8
"""Local files that a thread reads one after another for a CPU: handing over one costs what reading it does.
(A GPU may be fed from a file system that is slow to answer, and has cores to spare.)"""

MIN_RUNS = 4
"""Runs that are read at once."""


class ImageReader:
    """Fetch and decode, ahead of whoever takes the images.

    Bytes are read ahead by as many threads as `fetch.concurrency`, values of a Parquet column by one thread
    in their order. Beside a GPU, threads decode ahead too; on a CPU images are decoded by whoever takes them,
    who would otherwise wait for the same core. The order is the order of the locations.

    Args:
        fetch: how files are read.
        decode: the bound on pixels.
        device: that the models run on, "cpu" or "cuda".
        threads: that decode beside a GPU.
        decode_ahead: images that they decode before they are taken.

    Attributes:
        usage: what fetching and decoding take is added here.
    """

    limiter: type[AdaptiveLimiter] = AdaptiveLimiter

    def __init__(
        self, fetch: FetchSpec, decode: DecodeSpec, device: str, threads: int, decode_ahead: int
    ) -> None:
        self.usage = UsageMeter()
        self._fetch = fetch
        self._decode = decode
        self._reads = fetch.reads(device)
        self._limiter = self.limiter(self._reads, fetch.rate)
        self._ahead = decode_ahead
        self._fetchers = ThreadPoolExecutor(self._reads, "fetch")
        self._in_order = ThreadPoolExecutor(1, "fetch-in-order")
        self._decoders = ThreadPoolExecutor(threads, "decode") if device == "cuda" else None
        self._begun: dict[Run, Fetching] = {}

    def __call__(
        self, locations: Sequence[Location], prefetch: Sequence[Location] = ()
    ) -> Iterator[LoadedImage | ImageError]:
        """The images of some locations, in their order.

        Args:
            locations: of the images.
            prefetch: probably asked for next: reading it begins when all the locations are being read.
        """
        if self._decoders is None:
            yield from map(self._load, self._fetched(locations, prefetch))
        else:
            loading = (self._decoders.submit(self._load, data) for data in self._fetched(locations, prefetch))
            for future in _ahead(loading, self._ahead):
                yield future.result()

    def _fetched(
        self, locations: Sequence[Location], prefetch: Sequence[Location]
    ) -> Iterator[bytes | ImageError]:
        """Each file, the next ones being read meanwhile."""
        size = LOCAL_RUN if self._decoders is None and all(map(is_local, locations)) else 1
        most = max(MIN_RUNS, -(-self._reads // size))
        next_runs = islice(_runs(prefetch, size), most // 2)
        for future in _ahead(self._fetching(_runs(locations, size), next_runs), most):
            yield from future.result()

    def _fetching(self, runs: Iterator[Run], prefetch: Iterator[Run]) -> Iterator[Fetching]:
        """Begins to read runs one after another, those that were begun before excepted, and then the next."""
        begun, self._begun = self._begun, {}
        for run in runs:
            yield begun.pop(run) if run in begun else self._submit(run)
        for needless in begun.values():
            needless.cancel()
        for run in prefetch:
            if run not in self._begun:
                self._begun[run] = self._submit(run)

    def _submit(self, run: Run) -> Fetching:
        in_order = any(isinstance(location, ParquetCell) for location in run)
        return (self._in_order if in_order else self._fetchers).submit(self._files, run)

    def _files(self, locations: Run) -> list[bytes | ImageError]:
        return [self._bytes(location) for location in locations]

    def _bytes(self, location: Location) -> bytes | ImageError:
        try:
            with self.usage.timing(Stage.FETCH):
                data = read_image(location, self._fetch, self._limiter)
        except ImageError as error:
            return error
        self.usage.fetched(len(data))
        return data

    def _load(self, data: bytes | ImageError) -> LoadedImage | ImageError:
        if isinstance(data, ImageError):
            return data
        try:
            with self.usage.timing(Stage.DECODE):
                decoded = decode(data, max_pixels=self._decode.max_pixels)
                return LoadedImage(decoded, len(data), hashlib.sha256(data).digest())
        except ImageError as error:
            return error


def _runs(locations: Sequence[Location], size: int) -> Iterator[Run]:
    """Locations that one thread reads one after another."""
    return map(tuple, chunks(locations, size))


def _ahead(futures: Iterator[Future[T]], most: int) -> Iterator[Future[T]]:
    """The same futures in the same order, with up to `most` more already started behind each."""
    started: deque[Future[T]] = deque()
    for future in futures:
        started.append(future)
        if len(started) > most:
            yield started.popleft()
    yield from started
