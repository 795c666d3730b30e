"""The labeller with its steps taken one after the other, so that each can be timed."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from schemas.errors import Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage, LoadedImage
from schemas.locations import Location
from schemas.prediction import Probed
from workers.batched import chunks
from workers.fetch.throttle import AdaptiveLimiter
from workers.label.labeller import Labeller
from workers.label.reader import ImageReader
from workers.label.settings import LabelSettings
from workers.models.predictor import Predictor
from workers.process.serve import StageCallback

T = TypeVar("T")
File = bytes | ImageError


@dataclass
class _Times:
    """Seconds that chunks took so far, and what failed in them."""

    decode_cpu_s: float = 0.0
    models: dict[str, float] = field(default_factory=dict)
    failed: list[ImageError] = field(default_factory=list)


class TimedLimiter(AdaptiveLimiter):
    """A pace that tells each thread how long the limit to reads in a second made it wait."""

    def __init__(self, most: int, per_s: float | None = None) -> None:
        super().__init__(most, per_s)
        self._waited = threading.local()

    @contextlib.contextmanager
    def slot(self) -> Iterator[float]:
        """See `AdaptiveLimiter.slot`."""
        with super().slot() as wait:
            self._waited.seconds = self.waited() + wait
            yield wait

    def waited(self) -> float:
        """Seconds that this thread has waited so far."""
        return getattr(self._waited, "seconds", 0.0)


class SteppingReader(ImageReader):
    """An image reader whose two steps are taken apart."""

    limiter = TimedLimiter
    _limiter: TimedLimiter

    def fetched(self, locations: Iterable[Location]) -> list[tuple[File, float]]:
        """Each file, and the seconds from asking for it until it was read, but for waits by `fetch.rate`."""
        return list(self._fetchers.map(self._timed_bytes, locations))

    def decoded(self, files: Iterable[File]) -> list[LoadedImage | ImageError]:
        """The pixels of some files."""
        decode_all = self._decoders.map if self._decoders else map
        return list(decode_all(self._load, files))

    def _timed_bytes(self, location: Location) -> tuple[File, float]:
        waited = self._limiter.waited()
        file, seconds = _timed(time.perf_counter, lambda: self._bytes(location))
        return file, seconds - (self._limiter.waited() - waited)


class Prober(Labeller):
    """A labeller that fetches first, then decodes and labels a chunk at a time, and keeps the times.

    Where as many do so at once as a run has actors, each meets what it would meet there: cores that share
    caches and memory with others, a storage that is asked by all.
    """

    reader = SteppingReader
    _read: SteppingReader

    def __init__(self, settings: LabelSettings) -> None:
        super().__init__(settings)
        self._files: list[File] = []
        self._waits: list[float] = []
        self._fetch_cpu_s = 0.0

    def fetch(self, locations: Sequence[Location]) -> None:
        """Fetches some images, as many at once as the job says."""
        # the process's time: a file system may do its work in a thread of its own
        fetched, self._fetch_cpu_s = _timed(time.process_time, lambda: self._read.fetched(locations))
        self._files = [file for file, _ in fetched]
        connecting = min(self._settings.fetch.reads(self._settings.device), len(fetched) // 2)
        self._waits = [seconds for _, seconds in fetched[connecting:]]

    def probed(self, on_stage: StageCallback) -> Probed:
        """Decodes and labels what was fetched. The first chunk is done once before it counts, to warm up."""
        parts = list(chunks(self._files, self._settings.chunk_size))
        for part in parts[:1]:
            self._label(part, on_stage, _Times())
        times = _Times()
        began, cpu_began = time.perf_counter(), time.process_time()
        for part in parts:
            self._label(part, on_stage, times)
        return Probed(
            images=len(self._files),
            failed=dict(Counter(error.code.value for error in times.failed)),
            example=str(times.failed[0]) if times.failed else "",
            fetch_s=sum(self._waits) / max(len(self._waits), 1),
            file_bytes=sum(len(file) for file in self._files if isinstance(file, bytes)),
            fetch_cpu_s=self._fetch_cpu_s,
            decode_cpu_s=times.decode_cpu_s,
            models=times.models,
            work_s=time.perf_counter() - began,
            work_cpu_s=time.process_time() - cpu_began,
        )

    def _label(self, files: list[File], on_stage: StageCallback, times: _Times) -> None:
        on_stage(Stage.DECODE)
        images, seconds = _timed(time.process_time, lambda: self._read.decoded(files))
        times.decode_cpu_s += seconds
        good = [image.decoded for image in images if isinstance(image, LoadedImage)]
        refused: dict[int, ImageError] = {}  # by place: an image that both models fail on is one failed image
        for name, model in (("classifier", self._classifier), ("detector", self._detector)):
            if model is not None:
                refused = self._answer(name, model, good, on_stage, times) | refused
        times.failed += [image for image in images if isinstance(image, ImageError)]
        times.failed += refused.values()

    def _answer(
        self,
        name: str,
        model: Predictor[Any],
        images: list[DecodedImage],
        on_stage: StageCallback,
        times: _Times,
    ) -> dict[int, ImageError]:
        """Lets a model answer a chunk; gives the images that it fails on, by their places."""
        on_stage(model.stage)
        clock = time.process_time if self._settings.device == "cpu" else time.perf_counter
        results, seconds = _timed(clock, lambda: model(images))
        times.models[name] = times.models.get(name, 0.0) + seconds
        return {place: result for place, result in enumerate(results) if isinstance(result, ImageError)}


def _timed(clock: Callable[[], float], work: Callable[[], T]) -> tuple[T, float]:
    """What some work comes to, and how long it took by a clock."""
    began = clock()
    found = work()
    return found, clock() - began
