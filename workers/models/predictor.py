"""What the classifier and the detector share: batches, devices, precision, and what to do when one fails."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from schemas.errors import MESSAGE_LIMIT, ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage
from schemas.spec import Precision, Runtime
from workers.models.model import ClassifierModel, DetectorModel
from workers.models.runtime import placed

ResultT = TypeVar("ResultT")

_DEVICE_FAULTS: tuple[type[BaseException], ...] = (
    (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()  # since torch 2.8
)


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One image as a model takes it.

    Attributes:
        tensor: (3, h, w), on the model's device, or on its way there.
        width: pixels across of the image it was made from.
        height: pixels down of the image it was made from.
    """

    tensor: Tensor
    width: int
    height: int


class Inputs:
    """Images to a model's inputs; needs the model's transform, not its network.

    Args:
        model: whose.
        device: that the network runs on.
        stage: which an image that the transform fails on has failed in.
    """

    def __init__(self, model: ClassifierModel | DetectorModel, device: torch.device, stage: Stage) -> None:
        self._stage = stage
        self._device = device
        self._transform = model.transform
        self._transform_device = device if model.transform_on_device else torch.device("cpu")

    @torch.inference_mode()
    def __call__(self, image: DecodedImage) -> ModelInput | ImageError:
        """One image to the model's input, on the device.

        A GPU gets the uint8 pixels (pinned, without waiting) and resizes and normalises them. May run in
        another thread than the model.
        """
        try:
            pixels = torch.from_numpy(image.pixels if image.pixels.flags.writeable else image.pixels.copy())
            placed = on(self._transform_device, pixels).permute(2, 0, 1)
            return ModelInput(on(self._device, self._transform(placed)), image.width, image.height)
        except _DEVICE_FAULTS:
            raise
        except Exception as error:  # a transform may raise anything; the image is at fault
            return image_error(self._stage, error)


class Predictor(ABC, Generic[ResultT]):
    """A model on its device.

    Bad images come back as `ImageError` values, in their places; only what is no image's fault (a broken GPU)
    is raised. The model's module is moved to the device and switched to the model's layout, in place.

    Args:
        model: what to run.
        device: where.
        batch_size: most images in one pass.
        precision: of the network's arithmetic; "auto" is float32 on a CPU and bfloat16 on a GPU, or float16
            where the GPU has no bfloat16.
        runtime: what computes the network; "auto" is ONNX Runtime in float32 on a CPU, where it gives the
            same answers, else torch.

    Raises:
        ModelError: the runtime cannot run this model.
    """

    stage: ClassVar[Stage]
    inputs: ClassVar[type[Inputs]] = Inputs

    def __init__(
        self,
        model: ClassifierModel | DetectorModel,
        device: torch.device,
        batch_size: int,
        precision: Precision,
        runtime: Runtime,
    ) -> None:
        self.device = device
        self.batch_size = batch_size
        self.dtype = autocast_dtype(device, precision)
        self._module = placed(model, device, self.dtype, runtime)
        self.preprocess = self.inputs(model, device, self.stage)
        self._mixes_shapes = model.mixes_shapes

    def __call__(self, images: Sequence[DecodedImage | ModelInput]) -> list[ResultT | ImageError]:
        """One result for each image or input, in order.

        Of the inputs that are made here, never more than `batch_size` are in memory.
        """
        results: dict[int, ResultT | ImageError] = {}
        shapes = [None if self._mixes_shapes else _shape(image) for image in images]
        for batch in batches(shapes, self.batch_size):
            inputs = [self._input(images[i]) for i in batch]
            results.update(zip(batch, self.predict(inputs), strict=True))
        return [results[i] for i in range(len(images))]

    def predict(self, inputs: Sequence[ModelInput | ImageError]) -> list[ResultT | ImageError]:
        """One result for each input, in order; an `ImageError` stays itself.

        A batch that fails is tried again: in halves where memory ran out, else one by one, so that only the
        images that fail alone are failed rows.
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

    def _input(self, image: DecodedImage | ModelInput) -> ModelInput | ImageError:
        if isinstance(image, DecodedImage):
            return self.preprocess(image)
        return replace(image, tensor=on(self.device, image.tensor))

    @abstractmethod
    def _run(self, batch: list[ModelInput]) -> list[ResultT | ImageError]:
        """The results of one batch. May raise; an image with a bad answer is an ImageError."""

    def _predict_batch(self, batch: list[ModelInput]) -> list[ResultT | ImageError]:
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
            ):
                return self._run(batch)
        except _DEVICE_FAULTS:
            raise
        except Exception as error:  # a module may raise anything
            if len(batch) == 1:
                return [self._image_error(error)]
            size = (len(batch) + 1) // 2 if is_out_of_memory(error) else 1
        # Here the exception is gone, and with it the frames that held the failed pass's tensors.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        parts = (batch[start : start + size] for start in range(0, len(batch), size))
        return [result for part in parts for result in self._predict_batch(part)]

    def _image_error(self, error: Exception) -> ImageError:
        return image_error(self.stage, error)


def image_error(stage: Stage, error: Exception) -> ImageError:
    """Why a model or its transform failed on one image, as a value."""
    if isinstance(error, ImageError):
        return error
    if is_out_of_memory(error):
        code = ErrorCode.OUT_OF_MEMORY
    elif isinstance(error, FloatingPointError):
        code = ErrorCode.NON_FINITE
    else:
        code = ErrorCode.MODEL_ERROR
    return ImageError(stage, code, f"{type(error).__name__}: {error}"[:MESSAGE_LIMIT])


def on(device: torch.device, tensor: Tensor) -> Tensor:
    """A tensor on a device; on its way to a GPU pinned and without waiting."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _shape(image: DecodedImage | ModelInput) -> tuple[int, ...]:
    return tuple(image.pixels.shape if isinstance(image, DecodedImage) else image.tensor.shape)


def batches(keys: Sequence[Hashable], size: int) -> list[list[int]]:
    """Positions in batches of at most `size`, each of one key; keys in the order they first appear."""
    groups: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """The type that matrix products and convolutions run in; float32 switches autocast off."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or (torch raises a plain RuntimeError there) on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(
        said in str(error) for said in ("DefaultCPUAllocator", "Failed to allocate memory", "bad_alloc")
    )
