"""Networks on a device: batches, precision, and handling of failures, the same for all kinds of model."""

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from schemas.exceptions import ImageError
from schemas.images import DecodedImage
from schemas.spec import Precision, Runtime
from schemas.tasks import BoxChoice
from workers.models.model import EmbedderModel, LoadedModel, Model, SharedModel, common_of
from workers.models.predictor import DEVICE_ERRORS, ModelInput, Predictor, is_out_of_memory, to_device
from workers.models.runtime import outputs_of, prepare_module

Results = tuple[Any, ...]
"""What the predictors of a network read of its answer for an image, one value each."""

BatchWatch = Callable[[Sequence[int]], AbstractContextManager[None]]
"""Called with the positions of a batch's images; what it returns is entered while they are computed."""


def unwatched(_: Sequence[int]) -> AbstractContextManager[None]:
    """Watches nothing."""
    return nullcontext()


@dataclass(frozen=True)
class RunnerOptions:
    """Where and how networks run.

    Attributes:
        device: the device to run them on.
        batch_size: the most images in one pass.
        precision: of their arithmetic; "auto" is float32 on a CPU and bfloat16 on a GPU, or float16 if the
            GPU has no bfloat16.
        runtime: computes them; "auto" is ONNX Runtime in float32 on a CPU if it gives the same answers, else
            torch.
    """

    device: torch.device
    batch_size: int
    precision: Precision = "auto"
    runtime: Runtime = "auto"


class Runner:
    """A network on its device, and the predictors that read its answers.

    A bad image comes back as an `ImageError` value at its position; an exception is raised only if no image
    is the cause (a broken GPU). The module is moved to the device and to the model's layout, in place.

    Args:
        model: whose network is run.
        predictors: of models that have this network, at least one.
        options: where and how.
        boxes: the boxes of an image that the models get; None: they get whole images.

    Attributes:
        predictors: see above.
        boxes: see above.
        name: of their models, "classifier + embedder".
        stage: in which it runs: the first predictor's.
        preprocess: makes the input of an image.

    Raises:
        ModelError: the runtime cannot run this model.
    """

    def __init__(
        self,
        model: Model,
        predictors: Sequence[Predictor[Any]],
        options: RunnerOptions,
        boxes: BoxChoice | None = None,
    ) -> None:
        self._model = model
        self.device = options.device
        self.batch_size = options.batch_size
        self.dtype = autocast_dtype(options.device, options.precision)
        self._read_by(predictors, boxes)
        self._module = prepare_module(model, options.device, self.dtype, options.runtime)
        self._gives = model.gives
        self._mixes_shapes = model.mixes_shapes

    def read_by(self, predictors: Sequence[Predictor[Any]], boxes: BoxChoice | None) -> Self:
        """The same network in the same memory for other models, which get other images."""
        other = copy.copy(self)
        other._read_by(predictors, boxes)
        return other

    def _read_by(self, predictors: Sequence[Predictor[Any]], boxes: BoxChoice | None) -> None:
        self.predictors = tuple(predictors)
        self.boxes = boxes
        self.name = " + ".join(dict.fromkeys(predictor.name for predictor in predictors))
        self.stage = predictors[0].stage
        self.preprocess = predictors[0].inputs(self._model, self.device, self.stage)

    def __call__(
        self, images: Sequence[DecodedImage | ModelInput], watch: BatchWatch = unwatched
    ) -> list[Results | ImageError]:
        """The results of each image or input, in order: one of each predictor, or an error.

        Inputs are made batch by batch, so that at most `batch_size` of them are in memory.

        Args:
            images: decoded images or inputs.
            watch: called with the positions of each batch; entered while it is computed.
        """
        results: dict[int, Results | ImageError] = {}
        shapes = [None if self._mixes_shapes else _shape(image) for image in images]
        for batch in batches(shapes, self.batch_size):
            with watch(batch):
                inputs = [self._input(images[i]) for i in batch]
                results.update(zip(batch, self.predict(inputs), strict=True))
        return [results[i] for i in range(len(images))]

    def predict(self, inputs: Sequence[ModelInput | ImageError]) -> list[Results | ImageError]:
        """The results of each input, in order; an `ImageError` is passed on.

        A batch that fails is repeated: in halves if memory ran out, else one by one, so that only images that
        fail alone become failed rows.
        """
        results: dict[int, Results | ImageError] = {}
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
        return replace(image, tensor=to_device(self.device, image.tensor))

    def _predict_batch(self, batch: list[ModelInput]) -> list[Results | ImageError]:
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
            ):
                return self._run(batch)
        except DEVICE_ERRORS:
            raise
        except Exception as error:  # a module may raise anything
            if len(batch) == 1:
                return [self.predictors[0].image_error(error)]
            size = (len(batch) + 1) // 2 if is_out_of_memory(error) else 1
        # After `except` the exception is gone, and with it the frames that hold the failed pass's tensors
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        parts = (batch[start : start + size] for start in range(0, len(batch), size))
        return [result for part in parts for result in self._predict_batch(part)]

    def _run(self, batch: list[ModelInput]) -> list[Results | ImageError]:
        """The results of one batch. May raise; an image with an invalid answer becomes an ImageError."""
        tensors = [x.tensor for x in batch]
        if self._gives:
            images = torch.stack(tensors).contiguous(memory_format=torch.channels_last)
            outputs: Any = dict(zip(self._gives, outputs_of(self._module(images)), strict=True))
        else:
            outputs = self._module(tensors)
        return [
            _whole(results)
            for results in zip(*(p.read(outputs, batch) for p in self.predictors), strict=True)
        ]


def by_network(models: Mapping[str, LoadedModel[Any, Any]]) -> list[dict[str, LoadedModel[Any, Any]]]:
    """Loaded models by name, those with the same network together."""
    groups: dict[object, dict[str, LoadedModel[Any, Any]]] = {}
    for name, loaded in models.items():
        groups.setdefault(loaded.resolved.network, {})[name] = loaded
    return list(groups.values())


def shared_model(models: list[Model]) -> Model:
    """The model whose network answers for several that have the same one."""
    embedder = next((model for model in models if isinstance(model, EmbedderModel)), None)
    if embedder is None or all(model.gives == embedder.gives for model in models):
        return models[0]
    return SharedModel(**{**common_of(embedder), "module": embedder.with_logits})


def _whole(results: tuple[Any, ...]) -> Results | ImageError:
    """An image's results, or the first error among them."""
    return next((result for result in results if isinstance(result, ImageError)), results)


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
