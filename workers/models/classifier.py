"""The classifier: says what an image shows, overall."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from schemas.images import Classification, DecodedImage
from schemas.spec import ClassifierSpec, Precision, Runtime
from schemas.tasks import CLASSIFY
from workers.models.model import ClassifierModel, LoadedModel, ScoreType
from workers.models.predictor import Inputs, ModelInput, Predictor
from workers.tables.results import label_values

MAX_ASPECT = 200
"""Longest ratio of sides: resizing the short side to 256 would turn a 1 x 20,000 image into gigabytes."""


class ClassifierInputs(Inputs):
    """Turns images into a classifier's inputs; refuses those with an extreme aspect ratio."""

    def __call__(self, image: DecodedImage) -> ModelInput | ImageError:
        """The model's input for one image, on the device; an ImageError if it cannot be made."""
        short, long = sorted((image.width, image.height))
        if long > MAX_ASPECT * short:
            message = f"{image.width}x{image.height} pixels: one side is over {MAX_ASPECT} times the other"
            return ImageError(self._stage, ErrorCode.UNSUPPORTED, message)
        return super().__call__(image)


class Classifier(Predictor[Classification]):
    """A classifier on its device; see `Predictor`."""

    task = CLASSIFY
    inputs: ClassVar[type[Inputs]] = ClassifierInputs

    def __init__(
        self,
        loaded: LoadedModel[ClassifierModel, ClassifierSpec],
        device: torch.device,
        batch_size: int,
        precision: Precision = "auto",
        runtime: Runtime = "auto",
    ) -> None:
        super().__init__(loaded, device, batch_size, precision, runtime)
        self._classes = len(loaded.model.categories)
        self._top_k = loaded.spec.top_k
        self._score_type = score_type_of(loaded.spec, loaded.model)

    @staticmethod
    def apply(spec: ClassifierSpec, model: ClassifierModel) -> dict[str, object]:
        """See `Predictor.apply`."""
        return {"top_k": spec.top_k, "score_type": score_type_of(spec, model)}

    def values(self, result: Classification) -> dict[str, Any]:
        """See `label_values`."""
        return label_values(result, self.resolved)

    def _run(self, batch: list[ModelInput]) -> list[Classification | ImageError]:
        images = torch.stack([x.tensor for x in batch]).contiguous(memory_format=torch.channels_last)
        logits = self._module(images)
        expected = (len(batch), self._classes)
        if not isinstance(logits, Tensor) or logits.shape != expected:
            answer = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"the classifier answered with {answer}, expected {expected}")
        finite = logits.isfinite().all(dim=1).tolist()
        label_ids, scores = top_k(logits, self._top_k, self._score_type)
        ids, values = label_ids.int().cpu().numpy(), scores.cpu().numpy()
        return [
            Classification(i, s) if ok else self._image_error(FloatingPointError("a logit is not a number"))
            for i, s, ok in zip(ids, values, finite, strict=True)
        ]


def score_type_of(spec: ClassifierSpec, model: ClassifierModel) -> ScoreType:
    """How logits become scores."""
    return spec.score_type or model.score_type


def top_k(logits: Tensor, k: int, score_type: ScoreType) -> tuple[Tensor, Tensor]:
    """The best classes of each image.

    Args:
        logits: float (n, classes).
        k: how many classes, at most.
        score_type: "softmax" scores sum to 1, "sigmoid" scores each class alone.

    Returns:
        Class ids, int64 (n, k), and scores, float32 (n, k), descending; equal scores by ascending id.
    """
    logits = logits.float()
    scores = logits.softmax(dim=1) if score_type == "softmax" else logits.sigmoid()
    ordered, ids = scores.sort(dim=1, descending=True, stable=True)
    return ids[:, :k], ordered[:, :k]
