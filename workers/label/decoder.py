"""Rows of a unit to decoded images that are handed over, and what they are to the models."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage, LoadedImage
from schemas.metrics import Usage
from schemas.tables import FACTS
from workers.label.reader import ImageReader
from workers.label.settings import LabelSettings, Request
from workers.label.transfer import MAX_BYTES, PLACED, SharedImages, new_buffer
from workers.models.classifier import ClassifierInputs
from workers.models.predictor import Inputs, ModelInput
from workers.models.registry import load_classifier
from workers.process.serve import StageCallback
from workers.process.shared_buffer import attach
from workers.tables.results import error_values, facts_of, row_error

FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class SharedImage:
    """An image that another process decoded.

    Attributes:
        image: its pixels, or what the classifier takes; in an arena.
        facts: see `workers.tables.results.facts_of`.
    """

    image: DecodedImage | ModelInput
    facts: dict[str, Any]


class Decoder:
    """Fetches and decodes rows of a unit for others.

    Where nothing but a classifier runs, an image whose pixels are larger than the classifier's input becomes
    that here: 0.6 MB in place of 36 of a photo of 12 megapixels.

    Raises:
        ModelError: the classifier cannot be loaded here, or is not the one that the driver resolved.
    """

    def __init__(self, settings: LabelSettings) -> None:
        self._manifest = settings.manifest
        self._read = ImageReader(*settings.reading)
        torch.set_num_threads(settings.threads)
        self._buffer = new_buffer()
        self._inputs: Inputs | None = None
        if settings.classifier and not settings.detector:
            loaded = load_classifier(settings.classifier)
            settings.assert_same_models((loaded.resolved.fingerprint,))
            self._inputs = ClassifierInputs(loaded.model, torch.device("cpu"), Stage.CLASSIFY)

    def __call__(self, request: Request, on_stage: StageCallback) -> tuple[SharedImages, Usage]:
        """The images of some rows.

        Args:
            request: which rows.
            on_stage: is told of each stage that begins.

        Returns:
            The images, and what was spent on them. Data are in the arena one behind another.
        """
        on_stage(Stage.DECODE)
        locations = self._manifest.read(request.rows).locations
        rows: list[dict[str, Any]] = []
        end = 0
        for image in self._read(locations):
            data, facts = self._seen(image)
            if end + data.nbytes > MAX_BYTES:
                break
            if data.nbytes:
                facts |= {"start": end, "size": data.nbytes}
                self._buffer.bytes[end : end + data.nbytes] = data.view(np.uint8).reshape(-1)
                end += data.nbytes
            rows.append(facts)
        rows += [{}] * (len(locations) - len(rows))
        images = SharedImages(pa.Table.from_pylist(rows, PLACED), self._buffer.address)
        return images, self._read.usage.take()

    def _seen(self, image: LoadedImage | ImageError) -> tuple[NDArray[Any], dict[str, Any]]:
        """The data of an image and what is told of them; no data where it failed."""
        if isinstance(image, ImageError):
            return np.empty(0, np.uint8), {"error": error_values(row_error(image, datetime.now(UTC)))}
        pixels, facts = image.decoded.pixels, facts_of(image)
        found = self._inputs(image.decoded) if self._inputs else None
        if isinstance(found, ImageError):
            return self._seen(found)
        if found is None or pixels.nbytes <= found.tensor.numel() * FLOAT32:
            return pixels, facts
        values = found.tensor.float().contiguous().numpy()
        return values, {**facts, "input_shape": values.shape}


def images_of(images: SharedImages) -> Iterator[SharedImage | ImageError | None]:
    """The images that were handed over, in order; None of one that was left out."""
    memory = attach(images.buffer)
    for row in images.rows.to_pylist():
        if row["error"]:
            yield _error(**row["error"])
        elif row["start"] is None:
            yield None
        else:
            data = memory[row["start"] : row["start"] + row["size"]]
            yield SharedImage(_image(data, row), {fact.name: row[fact.name] for fact in FACTS})


def _error(stage: str, code: str, message: str, attempts: int, **_: object) -> ImageError:
    return ImageError(Stage(stage), ErrorCode(code), message, attempts)


def _image(data: NDArray[np.uint8], row: dict[str, Any]) -> DecodedImage | ModelInput:
    if row["input_shape"]:
        values = data.view(np.float32).reshape(row["input_shape"])
        return ModelInput(torch.from_numpy(values), row["width"], row["height"])
    pixels = data.reshape(row["height"], row["width"], 3)
    return DecodedImage(
        pixels, row["format"], row["exif_orientation"], row["source_mode"], row["frame_count"]
    )
