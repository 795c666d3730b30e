"""Rows of a unit to results: fetched, decoded, labelled by both models."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import torch

from schemas.errors import RowError, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage, LoadedImage
from schemas.metrics import Usage
from workers.batched import chunks
from workers.label.decoder import SharedImage, images_of
from workers.label.reader import ImageReader
from workers.label.settings import LabelSettings, Request
from workers.label.usage import UsageMeter
from workers.manifest.manifest import Rows
from workers.models.classifier import Classifier
from workers.models.detector import Detector
from workers.models.predictor import ModelInput, Predictor, ResultT
from workers.models.registry import load_classifier, load_detector
from workers.process.serve import StageCallback
from workers.tables.results import LabelledImage, ResultColumns, facts_of, results_table, row_error

Image = LoadedImage | SharedImage


class Labeller:
    """Fetches, decodes and labels rows of a unit with both models, which stay loaded.

    Raises:
        ModelError: the models cannot be loaded here, or are not the ones that the driver resolved.
    """

    reader: type[ImageReader] = ImageReader

    def __init__(self, settings: LabelSettings) -> None:
        self._settings = settings
        self._read = self.reader(*settings.reading)
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        device = torch.device(settings.device)
        classifier = load_classifier(settings.classifier) if settings.classifier else None
        detector = load_detector(settings.detector) if settings.detector else None
        self._columns = ResultColumns(
            classifier.resolved if classifier else None,
            detector.resolved if detector else None,
            settings.manifest.carried,
        )
        loaded = (classifier, detector)
        settings.assert_same_models(tuple(model.resolved.fingerprint for model in loaded if model))
        how = (device, settings.batch_size, settings.compute.precision, settings.runtime)
        self._classifier = Classifier(classifier, *how) if classifier else None
        self._detector = Detector(detector, *how) if detector else None

    def __call__(self, request: Request, on_stage: StageCallback) -> tuple[pa.Table, Usage]:
        """The results of some rows.

        Args:
            request: which rows.
            on_stage: is told of each stage that begins.

        Returns:
            One row a manifest row under `schemas.tables.results_schema`, and what was spent since the last
            call, on files that were read ahead too.
        """
        rows = self._settings.manifest.read(request.rows)
        on_stage(Stage.DECODE)
        images = self._images(rows, request)
        outcomes = [
            outcome
            for chunk in chunks(images, self._settings.chunk_size)
            for outcome in self._outcomes(chunk, on_stage)
        ]
        results = results_table(request.unit, rows.table, outcomes, self._columns)
        return results, self._read.usage.take()

    def _images(self, rows: Rows, request: Request) -> Iterator[Image | ImageError]:
        """The images of some rows: those that were handed over, and the others fetched and decoded here."""
        if request.decoded is None:
            prefetch = self._settings.manifest.read(request.prefetch)
            return self._read(rows.locations, prefetch.locations)
        given = list(images_of(request.decoded))
        left = self._read([place for place, image in zip(rows.locations, given, strict=True) if not image])
        return (image or next(left) for image in given)

    def _outcomes(
        self, chunk: list[Image | ImageError], on_stage: StageCallback
    ) -> Iterator[LabelledImage | RowError]:
        """What becomes of each image of a chunk: labelled by every model, or failed at its first fault."""
        good = [_taken(image) for image in chunk if not isinstance(image, ImageError)]
        labels = _noted(self._classifier, good, on_stage, self._read.usage)
        objects = _noted(self._detector, good, on_stage, self._read.usage)
        answers = zip(labels, objects, strict=True)
        on_stage(Stage.DECODE)  # of the next chunk
        now = datetime.now(UTC)
        for image in chunk:
            if isinstance(image, ImageError):
                yield row_error(image, now)
                continue
            label, found = next(answers)
            if isinstance(label, ImageError):
                yield row_error(label, now)
            elif isinstance(found, ImageError):
                yield row_error(found, now)
            else:
                facts = image.facts if isinstance(image, SharedImage) else facts_of(image)
                yield LabelledImage(facts, label, found, now)


def _taken(image: Image) -> DecodedImage | ModelInput:
    """What the models take of an image."""
    return image.image if isinstance(image, SharedImage) else image.decoded


def _noted(
    model: Predictor[ResultT] | None,
    images: list[DecodedImage | ModelInput],
    on_stage: StageCallback,
    usage: UsageMeter,
) -> Sequence[ResultT | ImageError | None]:
    """What a model says of some images; None of each where there is no model."""
    if model is None:
        return [None] * len(images)
    on_stage(model.stage)
    with usage.timing(model.stage):
        return model(images)
