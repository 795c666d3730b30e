"""Rows of a unit to results: fetched, decoded, labelled by all models."""

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import pyarrow as pa
import torch

from schemas.errors import RowError, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage, LoadedImage
from schemas.metrics import Usage
from workers.batched import chunks
from workers.label.decoder import SharedImage, images_of
from workers.label.reader import ImageReader
from workers.label.settings import LabelSettings, UnitRequest
from workers.label.usage import UsageMeter
from workers.manifest.manifest import Rows
from workers.models.predictor import ModelInput, Predictor, ResultT
from workers.models.registry import load, predictor_of
from workers.process.serve import StageCallback
from workers.process.steps import step
from workers.tables.results import LabelledImage, facts_of, results_table, row_error

InputImage = LoadedImage | SharedImage
"""An image to label: decoded in this process, or in another one."""

_log = logging.getLogger(__name__)


class Labeller:
    """Fetches, decodes and labels rows of a unit with all models, which stay loaded.

    Raises:
        ModelError: the models cannot be loaded here, or are not the ones that the driver resolved.
    """

    reader: type[ImageReader] = ImageReader

    def __init__(self, settings: LabelSettings) -> None:
        began = time.monotonic()
        self._settings = settings
        self._read = self.reader(*settings.reading)
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        device = torch.device(settings.device)
        loaded = {name: load(spec) for name, spec in settings.models.items()}
        settings.assert_same_models(tuple(model.resolved.fingerprint for model in loaded.values()))
        options = (device, settings.batch_size, settings.compute.precision, settings.runtime)
        self._models = {name: predictor_of(model, *options) for name, model in loaded.items()}
        _log.info("models loaded in %.1f s", time.monotonic() - began)

    def __call__(self, request: UnitRequest, on_stage: StageCallback) -> tuple[pa.Table, Usage]:
        """Labels some rows.

        Args:
            request: the rows.
            on_stage: called as each stage begins.

        Returns:
            One row a manifest row under `schemas.tables.results_schema`, and the usage since the previous
            call, including that of files which were read ahead.
        """
        rows = self._settings.manifest.read(request.rows)
        on_stage(Stage.DECODE)
        images = self._images(rows, request)
        outcomes = [
            outcome
            for chunk in chunks(zip(request.rows, images, strict=True), self._settings.chunk_size)
            for outcome in self._outcomes(chunk, on_stage)
        ]
        results = results_table(request.unit, rows.for_results(), outcomes, self._settings.manifest.carried)
        return results, self._read.usage.take()

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

    def _outcomes(
        self, chunk: list[tuple[int, InputImage | ImageError]], on_stage: StageCallback
    ) -> Iterator[LabelledImage | RowError]:
        """The result of each row and image of a chunk: the labels of every model, or the first error."""
        inputs = {row: _input_of(image) for row, image in chunk if not isinstance(image, ImageError)}
        answers = [_predict(model, inputs, on_stage, self._read.usage) for model in self._models.values()]
        of_image = zip(*answers, strict=True)
        on_stage(Stage.DECODE)  # of the next chunk
        now = datetime.now(UTC)
        for _, image in chunk:
            if isinstance(image, ImageError):
                yield row_error(image, now)
                continue
            values: dict[str, Any] = {}
            for model, answer in zip(self._models.values(), next(of_image), strict=True):
                if isinstance(answer, ImageError):
                    yield row_error(answer, now)
                    break
                values |= model.values(answer)
            else:
                facts = image.facts if isinstance(image, SharedImage) else facts_of(image)
                yield LabelledImage(facts, values, now)


def _input_of(image: InputImage) -> DecodedImage | ModelInput:
    """The part of an image that the models take."""
    return image.image if isinstance(image, SharedImage) else image.decoded


def _predict(
    model: Predictor[ResultT],
    images: dict[int, DecodedImage | ModelInput],
    on_stage: StageCallback,
    usage: UsageMeter,
) -> Sequence[ResultT | ImageError]:
    """The predictions of a model for images by row."""
    on_stage(model.stage)
    rows = list(images)
    with usage.timing(model.stage):
        return model(list(images.values()), lambda batch: step(model.stage, [rows[n] for n in batch]))
