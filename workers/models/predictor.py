"""What a model is to the labelling process: inputs for its network, and results read from the answers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from schemas.errors import MESSAGE_LIMIT, ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage
from schemas.tasks import Task
from workers.models.model import LoadedModel, Model
from workers.models.preprocess import assert_no_strip

ResultT = TypeVar("ResultT")

DEVICE_ERRORS: tuple[type[BaseException], ...] = (
    (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()  # since torch 2.8
)
"""What no image is the cause of."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One image as the input of a model.

    Attributes:
        tensor: (3, h, w), on the model's device; the copy to a GPU may still be under way.
        width: pixels across of the image it was made from.
        height: pixels down of the image it was made from.
    """

    tensor: Tensor
    width: int
    height: int


class Inputs:
    """Turns images into a model's inputs; uses the model's transform, not its network.

    Args:
        model: the model.
        device: the device that the network runs on.
        stage: the stage of the error if the transform fails on an image.
    """

    def __init__(self, model: Model, device: torch.device, stage: Stage) -> None:
        self._stage = stage
        self._device = device
        self._transform = model.transform
        self._transform_device = device if model.transform_on_device else torch.device("cpu")

    @torch.inference_mode()
    def __call__(self, image: DecodedImage) -> ModelInput | ImageError:
        """The model's input for one image, on the device; an ImageError if the transform fails.

        The uint8 pixels go to a GPU (pinned, asynchronously), which resizes and normalises them. May be
        called from another thread than the model.
        """
        try:
            # a crop is a view of its image, with gaps between its rows; a model gets pixels without any
            pixels = torch.from_numpy(np.require(image.pixels, requirements=["C", "W"]))
            planes = to_device(self._transform_device, pixels).permute(2, 0, 1)
            return ModelInput(to_device(self._device, self._transform(planes)), image.width, image.height)
        except DEVICE_ERRORS:
            raise
        except Exception as error:  # a transform may raise anything; the image is the cause
            return image_error(self._stage, error)


class CroppedInputs(Inputs):
    """The inputs of a model that resizes by the short side; refuses images with an extreme aspect ratio."""

    def __call__(self, image: DecodedImage) -> ModelInput | ImageError:
        """The model's input for one image, on the device; an ImageError if it cannot be made."""
        try:
            assert_no_strip(self._stage, image.width, image.height)
        except ImageError as error:
            return error
        return super().__call__(image)


class Predictor(ABC, Generic[ResultT]):
    """A model of a job: reads its results from a network's answers, and fills columns with them.

    Args:
        name: of the model, its key in the job spec.
        loaded: the model, with the job's settings.

    Attributes:
        task: of the models.
        inputs: turns images into their inputs.
    """

    task: ClassVar[Task]
    inputs: ClassVar[type[Inputs]] = CroppedInputs

    def __init__(self, name: str, loaded: LoadedModel[Any, Any]) -> None:
        self.name = name
        self.stage = self.task.stage
        self.resolved = loaded.resolved

    @staticmethod
    @abstractmethod
    def apply(spec: Any, model: Any) -> dict[str, object]:
        """Applies a job spec's settings to a model that was built for it; returns those that decide rows.

        Raises:
            ModelError: a setting does not fit the model.
        """

    @abstractmethod
    def read(self, outputs: Any, batch: list[ModelInput]) -> list[ResultT | ImageError]:
        """The result of each image of a batch, or an ImageError where the answer for it is invalid.

        Args:
            outputs: what the module gave for the batch: tensors by the names in `Model.gives`, or a list.
            batch: the inputs.

        Raises:
            ValueError: it is no answer to such a batch.
        """

    @abstractmethod
    def values(self, result: ResultT) -> dict[str, Any]:
        """An image's result as values of columns of results; lists of rows are added to those of others."""

    def values_of_objects(self, results: Mapping[int, ResultT]) -> dict[str, Any]:
        """The results of an image's objects, by their number in it, as `values` has the image's own."""
        raise NotImplementedError(f"{self.name} gets whole images")

    def image_error(self, error: Exception) -> ImageError:
        """An exception on one image as an ImageError."""
        return image_error(self.stage, error)


def image_error(stage: Stage, error: Exception) -> ImageError:
    """An exception of a model or its transform on one image, as an ImageError."""
    if isinstance(error, ImageError):
        return error
    if is_out_of_memory(error):
        code = ErrorCode.OUT_OF_MEMORY
    elif isinstance(error, FloatingPointError):
        code = ErrorCode.NON_FINITE
    else:
        code = ErrorCode.MODEL_ERROR
    return ImageError(stage, code, f"{type(error).__name__}: {error}"[:MESSAGE_LIMIT])


def to_device(device: torch.device, tensor: Tensor) -> Tensor:
    """Copies a tensor to a device; to a GPU from pinned memory, asynchronously."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU, where torch raises a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(
        text in str(error) for text in ("DefaultCPUAllocator", "Failed to allocate memory", "bad_alloc")
    )
