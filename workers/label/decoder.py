"""Rows of a unit to decoded images in a shared buffer, and those back to inputs of the models."""

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
from schemas.tables import ALL_FACTS
from schemas.tasks import DETECT
from workers.label.reader import ImageReader
from workers.label.settings import LabelSettings, UnitRequest
from workers.label.transfer import MAX_BYTES, SHARED, SharedImages, new_buffer
from workers.models.predictor import CroppedInputs, Inputs, ModelInput
from workers.models.registry import load_all
from workers.models.runner import by_network
from workers.process.serve import StageCallback
from workers.process.shared_buffer import attach
from workers.process.steps import step
from workers.tables.results import error_values, facts_of, row_error

FLOAT32 = 4
"""Bytes."""

CHANNELS = 3
"""Bytes of a pixel."""


@dataclass(frozen=True, slots=True)
class SharedImage:
    """An image that another process decoded.

    Attributes:
        image: its pixels, or the input of the models; in a shared buffer.
        facts: as of `workers.tables.results.facts_of`.
    """

    image: DecodedImage | ModelInput
    facts: dict[str, Any]


class Decoder:
    """Fetches and decodes rows of a unit for a labelling actor.

    Where all models have one network that takes inputs of one size, an image is made its input here, if that
    is smaller than its pixels: 0.6 MB instead of the 36 MB of a photo of 12 megapixels.

    Raises:
        ModelError: the models cannot be loaded here, or are not the ones that the driver resolved.
    """

    def __init__(self, settings: LabelSettings) -> None:
        settings.assert_same_decoders()
        self._manifest = settings.manifest
        torch.set_num_threads(settings.threads)
        self._buffer = new_buffer()
        self._stage = Stage.DECODE
        self._inputs: Inputs | None = None
        if all(model.task != DETECT for model in settings.models.values()):
            loaded = load_all(settings.models, settings.texts)
            settings.assert_same_models(tuple(model.resolved.fingerprint for model in loaded.values()))
            if len(by_network(loaded)) == 1:
                first = next(iter(loaded.values()))
                self._stage = first.spec.task.stage
                self._inputs = CroppedInputs(first.model, torch.device("cpu"), self._stage)
        fetch, limits, device, threads, ahead, facts = settings.reading
        fitting = MAX_BYTES // CHANNELS
        self._leaves_larger = self._inputs is None and limits.pixels > fitting
        if self._leaves_larger:  # pixels that could not be shared are not decoded here
            limits = limits._replace(pixels=fitting)
        self._read = ImageReader(fetch, limits, device, threads, ahead, facts)

    def __call__(self, request: UnitRequest, on_stage: StageCallback) -> tuple[SharedImages, Usage]:
        """Decodes some rows.

        Args:
            request: the rows.
            on_stage: called as each stage begins.

        Returns:
            The images, their data in this process's buffer without gaps, and the usage. The next call
            overwrites the data: the parent reads them before it sends another request.
        """
        on_stage(Stage.DECODE)
        locations = self._manifest.read(request.rows).locations
        wanted = [
            (row, location)
            for row, location in zip(request.rows, locations, strict=True)
            if row not in request.failed
        ]
        read = self._read([location for _, location in wanted], (), [row for row, _ in wanted])
        rows: list[dict[str, Any]] = []
        end = 0
        for row in request.rows:
            image: LoadedImage | ImageError
            image = request.failed[row] if row in request.failed else next(read)
            if self._is_left_to_labeller(image):
                rows.append({})
                continue
            with step(self._stage, [row]):
                data, facts = self._data_and_facts(image)
            if end + data.nbytes > MAX_BYTES:  # the labeller decodes this image and all behind it
                break
            if data.nbytes:
                facts |= {"start": end, "size": data.nbytes}
                self._buffer.bytes[end : end + data.nbytes] = data.view(np.uint8).reshape(-1)
                end += data.nbytes
            rows.append(facts)
        rows += [{}] * (len(locations) - len(rows))
        images = SharedImages(pa.Table.from_pylist(rows, SHARED), self._buffer.address)
        return images, self._read.usage.take()

    def _is_left_to_labeller(self, image: LoadedImage | ImageError) -> bool:
        """Whether an image was not decoded as its pixels could not be shared, or take too much memory."""
        if not self._leaves_larger or not isinstance(image, ImageError):
            return False
        return (image.stage, image.code) == (Stage.DECODE, ErrorCode.TOO_LARGE)

    def _data_and_facts(self, image: LoadedImage | ImageError) -> tuple[NDArray[Any], dict[str, Any]]:
        """The data of an image, and its row under `SHARED` but for their position; no data if it failed."""
        if isinstance(image, ImageError):
            return np.empty(0, np.uint8), {"error": error_values(row_error(image, datetime.now(UTC)))}
        pixels, facts = image.decoded.pixels, facts_of(image)
        inputs = self._inputs(image.decoded) if self._inputs else None
        if isinstance(inputs, ImageError):
            return self._data_and_facts(inputs)
        if inputs is None or pixels.nbytes <= inputs.tensor.numel() * FLOAT32:
            return pixels, facts
        values = inputs.tensor.float().contiguous().numpy()
        return values, {**facts, "input_shape": values.shape}


def images_of(images: SharedImages) -> Iterator[SharedImage | ImageError | None]:
    """The shared images in order; None for one that is not shared, as it did not fit."""
    memory = attach(images.buffer)
    for row in images.rows.to_pylist():
        if row["error"]:
            yield _error(**row["error"])
        elif row["start"] is None:
            yield None
        else:
            data = memory[row["start"] : row["start"] + row["size"]]
            yield SharedImage(_image(data, row), {fact.name: row[fact.name] for fact in ALL_FACTS})


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
