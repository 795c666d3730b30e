"""A labeller that takes its steps one after the other, to time each of them."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from schemas.errors import Stage
from schemas.exceptions import ImageError
from schemas.images import LoadedImage
from schemas.locations import Location
from schemas.prediction import Probed
from workers.batched import chunks
from workers.fetch.throttle import AdaptiveLimiter
from workers.label.labeller import Labeller
from workers.label.reader import File, ImageReader
from workers.label.settings import LabelSettings
from workers.label.stages import Image, cut_out
from workers.models.runner import Results, Runner
from workers.process.serve import StageCallback
from workers.process.steps import UNKNOWN, step

T = TypeVar("T")

MADE_UP = 256
"""Pixels of the sides of a made-up box, or the image's."""


@dataclass
class _Times:
    """Seconds that chunks have taken so far, what models got, and the errors of images."""

    decode_cpu_s: float = 0.0
    models: dict[str, float] = field(default_factory=dict)
    inputs: Counter[str] = field(default_factory=Counter)
    failed: list[ImageError] = field(default_factory=list)


class TimedLimiter(AdaptiveLimiter):
    """A limiter that tells each thread how long the limit of reads a second has made it wait."""

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
    """An image reader whose two steps are separate calls."""

    limiter = TimedLimiter
    _limiter: TimedLimiter

    def fetched(self, locations: Iterable[Location]) -> list[tuple[File, float]]:
        """Each file, and the seconds that reading it took, without those that `fetch.rate` made it wait."""
        return list(self._fetchers.map(self._timed_file, locations))

    def decoded(self, files: Iterable[File]) -> list[LoadedImage | ImageError]:
        """The pixels of some files."""
        decode_all = self._decoders.map if self._decoders else map
        return list(decode_all(self._load, files))

    def _timed_file(self, location: Location) -> tuple[File, float]:
        waited = self._limiter.waited()
        file, seconds = _timed(time.perf_counter, lambda: self._file(location))
        return file, seconds - (self._limiter.waited() - waited)


class Profiler(Labeller):
    """A labeller that fetches first, then decodes and labels a chunk at a time, and measures the times.

    As many of them at once as a run has actors meet the conditions of that run: cores that share caches and
    memory with others, and a storage that all of them read.
    """

    reader = SteppingReader
    _read: SteppingReader

    def __init__(self, settings: LabelSettings) -> None:
        super().__init__(settings)
        self._files: list[File] = []
        self._fetch_s: list[float] = []
        self._fetch_cpu_s = 0.0

    def fetch(self, locations: Sequence[Location]) -> None:
        """Fetches some images, with the concurrency of the job."""
        # CPU time of the process, not of a thread: a file system may work in threads of its own
        fetched, self._fetch_cpu_s = _timed(time.process_time, lambda: self._read.fetched(locations))
        self._files = [file for file, _ in fetched]
        # the first reads of each thread open its connections, which a run does once
        connecting = min(self._settings.fetch.reads(self._settings.device), len(fetched) // 2)
        self._fetch_s = [seconds for _, seconds in fetched[connecting:]]

    def profile(self, on_stage: StageCallback) -> Probed:
        """Decodes and labels the fetched images. The first chunk is done once more before, to warm up."""
        file_chunks = list(chunks(self._files, self._settings.chunk_size))
        for chunk in file_chunks[:1]:
            self._label(chunk, on_stage, _Times())
        times = _Times()
        began, cpu_began = time.perf_counter(), time.process_time()
        for chunk in file_chunks:
            self._label(chunk, on_stage, times)
        return Probed(
            images=len(self._files),
            failed=dict(Counter(error.code.value for error in times.failed)),
            example=str(times.failed[0]) if times.failed else "",
            fetch_s=sum(self._fetch_s) / max(len(self._fetch_s), 1),
            file_bytes=sum(len(file) for file in self._files if not isinstance(file, ImageError)),
            fetch_cpu_s=self._fetch_cpu_s,
            decode_cpu_s=times.decode_cpu_s,
            models=times.models,
            work_s=time.perf_counter() - began,
            work_cpu_s=time.process_time() - cpu_began,
            wrong=self._wrong(on_stage, times),
        )

    def _wrong(self, on_stage: StageCallback, times: _Times) -> str:
        """See `Probed.wrong`; nothing where the first image cannot be decoded."""
        untried = [runner for runner in self._stages.of_boxes if not times.inputs[runner.name]]
        images = self._read.decoded(self._files[:1]) if untried else []
        for image in images:
            if isinstance(image, ImageError):
                continue
            side = min(image.decoded.width, image.decoded.height, MADE_UP)
            crop = cut_out(image.decoded, [0, 0, side, side], 0)
            for runner in untried:
                (answer,) = self._predict(on_stage, _Times(), runner, [0], [crop])
                if isinstance(answer, ImageError):
                    return str(answer)
        return ""

    def _label(self, files: list[File], on_stage: StageCallback, times: _Times) -> None:
        on_stage(Stage.DECODE)
        images, seconds = _timed(time.process_time, lambda: self._read.decoded(files))
        times.decode_cpu_s += seconds
        inputs = {n: image.decoded for n, image in enumerate(images) if isinstance(image, LoadedImage)}
        found = self._stages(inputs, partial(self._predict, on_stage, times))
        times.failed += [image for image in images if isinstance(image, ImageError)]
        times.failed += [values for values in found.values() if isinstance(values, ImageError)]

    def _predict(
        self,
        on_stage: StageCallback,
        times: _Times,
        runner: Runner,
        _: Sequence[int],
        images: Sequence[Image],
    ) -> Sequence[Results | ImageError]:
        """Times a network on the images of a chunk, or on their objects."""
        on_stage(runner.stage)

        def watch(batch: Sequence[int]) -> contextlib.AbstractContextManager[None]:
            return step(runner.stage, [UNKNOWN] * len(batch))

        clock = time.process_time if self._settings.device == "cpu" else time.perf_counter
        results, seconds = _timed(clock, lambda: runner(images, watch))
        times.inputs[runner.name] += len(images)
        times.models[runner.name] = times.models.get(runner.name, 0.0) + seconds
        return results


def _timed(clock: Callable[[], float], work: Callable[[], T]) -> tuple[T, float]:
    """The result of some work, and the seconds that it took by a clock."""
    began = clock()
    result = work()
    return result, clock() - began
