"""What all kinds of model have in common: batches, devices, precision, and handling of failures."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from schemas.errors import MESSAGE_LIMIT, ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage
from schemas.spec import Precision, Runtime
from schemas.tasks import Task
from workers.models.model import LoadedModel, Model
from workers.models.runtime import prepare_module

ResultT = TypeVar("ResultT")

_DEVICE_ERRORS: tuple[type[BaseException], ...] = (
    (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()  # since torch 2.8
)


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


BatchWatch = Callable[[Sequence[int]], AbstractContextManager[None]]
"""Called with the positions of a batch's images; what it returns is entered while they are computed."""


def _unwatched(_: Sequence[int]) -> AbstractContextManager[None]:
    return nullcontext()


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
            pixels = torch.from_numpy(image.pixels if image.pixels.flags.writeable else image.pixels.copy())
            planes = to_device(self._transform_device, pixels).permute(2, 0, 1)
            return ModelInput(to_device(self._device, self._transform(planes)), image.width, image.height)
        except _DEVICE_ERRORS:
            raise
        except Exception as error:  # a transform may raise anything; the image is the cause
            return image_error(self._stage, error)


class Predictor(ABC, Generic[ResultT]):
    """A model on its device.

    A bad image comes back as an `ImageError` value at its position; an exception is raised only if no image
    is the cause (a broken GPU). The module is moved to the device and to the model's layout, in place.

    Args:
        loaded: the model to run, with the job's settings.
        device: the device to run it on.
        batch_size: the most images in one pass.
        precision: of the network's arithmetic; "auto" is float32 on a CPU and bfloat16 on a GPU, or float16
            if the GPU has no bfloat16.
        runtime: computes the network; "auto" is ONNX Runtime in float32 on a CPU if it gives the same
            answers, else torch.

    Raises:
        ModelError: the runtime cannot run this model.
    """

    task: ClassVar[Task]
    inputs: ClassVar[type[Inputs]] = Inputs

    def __init__(
        self,
        loaded: LoadedModel[Any, Any],
        device: torch.device,
        batch_size: int,
        precision: Precision = "auto",
        runtime: Runtime = "auto",
    ) -> None:
        model = loaded.model
        self.stage = self.task.stage
        self.resolved = loaded.resolved
        self.device = device
        self.batch_size = batch_size
        self.dtype = autocast_dtype(device, precision)
        self._module = prepare_module(model, device, self.dtype, runtime)
        self.preprocess = self.inputs(model, device, self.stage)
        self._mixes_shapes = model.mixes_shapes

    def __call__(
        self, images: Sequence[DecodedImage | ModelInput], watch: BatchWatch = _unwatched
    ) -> list[ResultT | ImageError]:
        """One result for each image or input, in order.

        Inputs are made batch by batch, so that at most `batch_size` of them are in memory.

        Args:
            images: decoded images or inputs.
            watch: called with the positions of each batch; entered while it is computed.
        """
        results: dict[int, ResultT | ImageError] = {}
        shapes = [None if self._mixes_shapes else _shape(image) for image in images]
        for batch in batches(shapes, self.batch_size):
            with watch(batch):
                inputs = [self._input(images[i]) for i in batch]
                results.update(zip(batch, self.predict(inputs), strict=True))
        return [results[i] for i in range(len(images))]

    def predict(self, inputs: Sequence[ModelInput | ImageError]) -> list[ResultT | ImageError]:
        """One result for each input, in order; an `ImageError` is passed on.

        A batch that fails is repeated: in halves if memory ran out, else one by one, so that only images that
        fail alone become failed rows.
        """
        results: dict[int, ResultT | ImageError] = {}
        good: dict[int, ModelInput] = {}
        for index, value in enumerate(inputs):
            if isinstance(value, ImageError):
                results[index] = value
            else:
                good[index] = value
        indices = list(good)
        shapes = [None if self._mixes_shapes else good[i].tensor.shape for i in indices]
        for batch in batches(shapes, self.batch_size):
            members = [indices[i] for i in batch]
            results.update(zip(members, self._predict_batch([good[i] for i in members]), strict=True))
        return [results[i] for i in range(len(inputs))]

    @staticmethod
    @abstractmethod
    def apply(spec: Any, model: Any) -> dict[str, object]:
        """Applies a job spec's settings to a model that was built for it; returns those that decide rows.

        Raises:
            ModelError: a setting does not fit the model.
        """

    @abstractmethod
    def values(self, result: ResultT) -> dict[str, Any]:
        """An image's result as values of the columns that the task adds to the results of a unit."""

    def _input(self, image: DecodedImage | ModelInput) -> ModelInput | ImageError:
        if isinstance(image, DecodedImage):
            return self.preprocess(image)
        return replace(image, tensor=to_device(self.device, image.tensor))

    @abstractmethod
    def _run(self, batch: list[ModelInput]) -> list[ResultT | ImageError]:
        """The results of one batch. May raise; an image with an invalid answer becomes an ImageError."""

    def _predict_batch(self, batch: list[ModelInput]) -> list[ResultT | ImageError]:
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
            ):
                return self._run(batch)
        except _DEVICE_ERRORS:
            raise
        except Exception as error:  # a module may raise anything
            if len(batch) == 1:
                return [self._image_error(error)]
            size = (len(batch) + 1) // 2 if is_out_of_memory(error) else 1
        # After `except` the exception is gone, and with it the frames that hold the failed pass's tensors
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        parts = (batch[start : start + size] for start in range(0, len(batch), size))
        return [result for part in parts for result in self._predict_batch(part)]

    def _image_error(self, error: Exception) -> ImageError:
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


def _shape(image: DecodedImage | ModelInput) -> tuple[int, ...]:
    return tuple(image.pixels.shape if isinstance(image, DecodedImage) else image.tensor.shape)


def batches(keys: Sequence[Hashable], size: int) -> list[list[int]]:
    """Groups the positions of equal keys into batches of at most `size`, in order of appearance."""
    groups: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """The dtype of matrix products and convolutions; float32 switches autocast off."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU, where torch raises a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(
        text in str(error) for text in ("DefaultCPUAllocator", "Failed to allocate memory", "bad_alloc")
    )
