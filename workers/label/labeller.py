"""Rows of a unit to results: fetched, decoded, labelled by all models."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from itertools import repeat

import pyarrow as pa
import torch

from schemas.errors import RowError, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage, LoadedImage
from schemas.metrics import Usage
from workers.label.decoder import SharedImage, images_of
from workers.label.reader import ImageReader
from workers.label.settings import LabelSettings, UnitRequest
from workers.label.stages import Image, Stages
from workers.label.usage import UsageMeter
from workers.manifest.manifest import Rows
from workers.models.registry import load_all, runners_of
from workers.models.runner import Results, Runner, RunnerOptions
from workers.process.serve import StageCallback
from workers.process.steps import step
from workers.tables.results import LabelledImage, facts_of, results_table, row_error

InputImage = LoadedImage | SharedImage
"""An image to label: decoded in this process, or in another one."""

Chunk = list[tuple[int, InputImage | ImageError]]
"""Rows, each with its image, that go through one network after the other."""

_log = logging.getLogger(__name__)


class Labeller:
    """Fetches, decodes and labels rows of a unit with all models, which stay loaded.

    Raises:
        ModelError: the models cannot be loaded here, or are not the ones that the driver resolved.
    """

    reader: type[ImageReader] = ImageReader

    def __init__(self, settings: LabelSettings) -> None:
        began = time.monotonic()
        settings.assert_same_decoders()
        self._settings = settings
        self._read = self.reader(*settings.reading)
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        device = torch.device(settings.device)
        loaded = load_all(settings.models, settings.texts)
        settings.assert_same_models(tuple(model.resolved.fingerprint for model in loaded.values()))
        precision = settings.compute.precision
        options = RunnerOptions(device, settings.batch_size, precision, settings.runtime)
        self._stages = Stages(runners_of(loaded, options))
        _log.info("models loaded in %.1f s", time.monotonic() - began)

    def __call__(self, request: UnitRequest, on_stage: StageCallback) -> tuple[pa.Table, Usage]:
        """Labels some rows.

        Args:
            request: the rows.
            on_stage: called as each stage begins.

        Returns:
            One row a manifest row under `schemas.tables.RunTables.results`, and the usage since the previous
            call, including that of files which were read ahead.
        """
        rows = self._settings.manifest.read(request.rows)
        on_stage(Stage.DECODE)
        images = self._images(rows, request)
        outcomes: list[LabelledImage | RowError] = []
        for chunk in self._chunks(request.rows, images):
            outcomes += self._outcomes(chunk, on_stage)
            chunk.clear()  # its pixels go before the next ones come
        results = results_table(request.unit, rows.for_results(), outcomes, self._settings.tables)
        return results, self._read.usage.take()

    def _chunks(self, rows: Sequence[int], images: Iterator[InputImage | ImageError]) -> Iterator[Chunk]:
        """Rows and images in chunks: so many, or, where images may be large, until half of what may be held.

        The borders of chunks by number stay where they are, see `workers.label.supervise.split_point`.
        """
        chunk: Chunk = []
        held, most = 0, self._settings.held_pixels
        for number, row in enumerate(rows, start=1):
            chunk.append((row, next(images)))
            held += _pixels_of(chunk[-1][1])
            is_full = number % self._settings.chunk_size == 0 or (most is not None and 2 * held >= most)
            if is_full or number == len(rows):
                yield chunk
                chunk, held = [], 0

    def _images(self, rows: Rows, request: UnitRequest) -> Iterator[InputImage | ImageError]:
        """The images of some rows in order: the shared ones, and the others fetched and decoded here."""
        shared: Iterator[SharedImage | ImageError | None]
        shared = images_of(request.decoded) if request.decoded else repeat(None)
        known = [request.failed.get(row, image) for row, image in zip(request.rows, shared, strict=False)]
        others = [n for n, image in enumerate(known) if image is None]
        read = self._read(
            [rows.locations[n] for n in others],
            self._settings.manifest.read(request.prefetch).locations,
            [request.rows[n] for n in others],
        )
        return (next(read) if image is None else image for image in known)

    def _outcomes(self, chunk: Chunk, on_stage: StageCallback) -> Iterator[LabelledImage | RowError]:
        """The result of each row and image of a chunk: the labels of every model, or the first error."""
        inputs = {row: _input_of(image) for row, image in chunk if not isinstance(image, ImageError)}
        found = self._stages(inputs, partial(_predict, on_stage, self._read.usage))
        on_stage(Stage.DECODE)  # of the next chunk
        now = datetime.now(UTC)
        for row, image in chunk:
            if isinstance(image, ImageError):
                yield row_error(image, now)
            elif isinstance(values := found[row], ImageError):
                yield row_error(values, now)
            else:
                facts = image.facts if isinstance(image, SharedImage) else facts_of(image)
                yield LabelledImage(facts, values, now)


def _pixels_of(image: InputImage | ImageError) -> int:
    """The pixels of an image that are held."""
    decoded = None if isinstance(image, ImageError) else _input_of(image)
    return decoded.width * decoded.height if isinstance(decoded, DecodedImage) else 0


def _input_of(image: InputImage) -> Image:
    """The part of an image that the models take."""
    return image.image if isinstance(image, SharedImage) else image.decoded


def _predict(
    on_stage: StageCallback, usage: UsageMeter, runner: Runner, rows: Sequence[int], images: Sequence[Image]
) -> Sequence[Results | ImageError]:
    """What a network's models say of the images of some rows."""
    on_stage(runner.stage)

    def watch(batch: Sequence[int]) -> AbstractContextManager[None]:
        if runner.boxes is not None and batch[0]:
            on_stage(runner.stage)  # a chunk may have any number of objects: this process is not hung
        return step(runner.stage, [rows[n] for n in batch])

    with usage.timing(runner.stage):
        return runner(images, watch)
