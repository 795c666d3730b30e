"""The labelling actor: units in, results out. A plain callable that knows nothing of Ray."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from schemas.errors import MESSAGE_LIMIT, RowError
from schemas.exceptions import ImageError, ModelError, RaylabelError
from schemas.plan import Work
from schemas.spec import ClassifierSpec, ComputeSpec, DecodeSpec, DetectorSpec, FetchSpec
from workers.classifier import Classifier
from workers.detector import Detector
from workers.images import ImageReader, LoadedImage
from workers.manifest import Manifest, chunks
from workers.models.registry import load_classifier, load_detector
from workers.results import LabelledImage, ResultColumns, facts_of, results_table

AUTO_BATCH = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True)
class LabelSettings:
    """What a labelling actor needs of the job.

    Attributes:
        manifest: where the rows of a unit are read from.
        work: which rows of a unit are to be done.
        pending: units to do; the actor is given positions in it.
        classifier: None where none runs.
        detector: None where none runs.
        fingerprints: of the models, as the driver resolved them.
        fetch: how files are read.
        decode: how files become pixels.
        compute: batch size and precision.
        device: "cpu" or "cuda".
        threads: to compute with on a CPU, to decode with where a GPU computes.
    """

    manifest: Manifest
    work: Work
    pending: NDArray[np.int64]
    classifier: ClassifierSpec | None
    detector: DetectorSpec | None
    fingerprints: tuple[str, ...]
    fetch: FetchSpec
    decode: DecodeSpec
    compute: ComputeSpec
    device: str
    threads: int


class LabelUnits:
    """Fetches, decodes and labels whole units with both models, which stay loaded.

    What keeps the models from being loaded is raised by the first call: an exception of an actor's
    constructor would come back from Ray as text.
    """

    def __init__(self, settings: LabelSettings) -> None:
        self._settings = settings
        auto = settings.compute.batch_size == "auto"
        self._batch_size = AUTO_BATCH[settings.device] if auto else int(settings.compute.batch_size)
        decode_threads = settings.threads if settings.device == "cuda" else 1
        self._read = ImageReader(settings.fetch, settings.decode, decode_threads, self._batch_size)
        self._failure: RaylabelError | None = None
        try:
            self._load()
        except RaylabelError as error:
            self._failure = error

    def _load(self) -> None:
        settings = self._settings
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        device, precision = torch.device(settings.device), settings.compute.precision
        classifier = load_classifier(settings.classifier) if settings.classifier else None
        detector = load_detector(settings.detector) if settings.detector else None
        self._columns = ResultColumns(
            classifier.resolved if classifier else None,
            detector.resolved if detector else None,
            settings.manifest.carried,
        )
        assert_same_models(self._columns, settings.fingerprints)
        self._classifier = classifier and Classifier(classifier, device, self._batch_size, precision)
        self._detector = detector and Detector(detector, device, self._batch_size, precision)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The results of some units.

        Args:
            batch: column `id`, int64: positions in the pending units.

        Returns:
            One row a manifest row under `schemas.tables.results_schema`.

        Raises:
            ModelError: the models cannot be loaded here, or are not the ones that the driver resolved.
        """
        if self._failure:
            raise self._failure
        units = self._settings.pending[batch["id"].to_numpy()].tolist()
        return pa.concat_tables([self._label(unit) for unit in units])

    def _label(self, unit: int) -> pa.Table:
        manifest = self._settings.manifest
        rows = manifest.read(self._settings.work.rows_of_unit(unit))
        images = self._read(rows["location"].to_pylist())
        outcomes = [
            outcome for batch in chunks(images, self._batch_size) for outcome in self._outcomes(batch)
        ]
        return results_table(unit, rows, outcomes, self._columns)

    def _outcomes(self, batch: list[LoadedImage | ImageError]) -> Iterator[LabelledImage | RowError]:
        """What becomes of each image of a batch: labelled by every model, or failed at its first fault."""
        good = [image.decoded for image in batch if isinstance(image, LoadedImage)]
        labels = iter(self._classifier(good) if self._classifier else [None] * len(good))
        objects = iter(self._detector(good) if self._detector else [None] * len(good))
        now = datetime.now(UTC)
        for image in batch:
            if isinstance(image, ImageError):
                yield row_error(image, now)
                continue
            label, found = next(labels), next(objects)
            if isinstance(label, ImageError):
                yield row_error(label, now)
            elif isinstance(found, ImageError):
                yield row_error(found, now)
            else:
                yield LabelledImage(facts_of(image), label, found, now)


def assert_same_models(here: ResultColumns, there: tuple[str, ...]) -> None:
    """Refuses to label with other models than the run's.

    Raises:
        ModelError: a fingerprint differs.
    """
    fingerprints = tuple(model.fingerprint for model in (here.classifier, here.detector) if model)
    if fingerprints != there:
        raise ModelError(
            f"a worker built {fingerprints} where the driver resolved {there}: the weights or the installed "
            "libraries differ between machines, or changed during the run"
        )


def row_error(error: ImageError, at: datetime) -> RowError:
    """An image's exception as the value behind its errors row."""
    message = (
        error.message if len(error.message) <= MESSAGE_LIMIT else error.message[: MESSAGE_LIMIT - 1] + "…"
    )
    return RowError(error.stage, error.code, message, error.attempts, at)
