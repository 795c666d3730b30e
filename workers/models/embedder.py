"""The embedder: turns an image into a vector, near to those of images that look alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from schemas.exceptions import ImageError, ModelError
from schemas.tasks import EMBED, EmbedderSpec
from workers.models.model import ClassifierModel, EmbedderModel, LoadedModel, common_of
from workers.models.predictor import ModelInput, Predictor
from workers.models.runtime import assert_same, noise_inputs
from workers.models.scores import finite
from workers.tables.results import embedding_values, embedding_values_of_objects

Embedding = NDArray[np.float32]
"""The vector of an image, float32 (width,)."""


class Embedder(Predictor[Embedding]):
    """An embedder; see `Predictor`."""

    task = EMBED

    def __init__(self, name: str, loaded: LoadedModel[EmbedderModel, EmbedderSpec]) -> None:
        super().__init__(name, loaded)
        self._width = loaded.model.width
        self._normalize = loaded.spec.normalize

    @staticmethod
    def apply(spec: EmbedderSpec, model: EmbedderModel) -> dict[str, object]:
        """See `Predictor.apply`."""
        return {"normalize": spec.normalize, "width": model.width}

    def values(self, result: Embedding) -> dict[str, Any]:
        """See `embedding_values`."""
        return embedding_values(result, self.resolved)

    def values_of_objects(self, results: Mapping[int, Embedding]) -> dict[str, Any]:
        """See `embedding_values_of_objects`."""
        return embedding_values_of_objects(results, self.resolved)

    def read(self, outputs: Any, batch: list[ModelInput]) -> list[Embedding | ImageError]:
        """See `Predictor.read`."""
        features, expected = outputs["features"], (len(batch), self._width)
        if not isinstance(features, Tensor) or features.shape != expected:
            answer = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"the embedder answered with {answer}, expected {expected}")
        features = features.float()
        vectors = normalize(features, dim=1) if self._normalize else features
        return [
            vector if ok else self.image_error(FloatingPointError("a number of the embedding is none"))
            for vector, ok in zip(vectors.cpu().numpy(), finite(features), strict=True)
        ]


class Features(nn.Module):
    """The pooled features of a classifier: what its last layer gets.

    Args:
        with_features: returns logits and features of a batch.
    """

    def __init__(self, with_features: nn.Module) -> None:
        super().__init__()
        self.both = with_features

    def forward(self, batch: Tensor) -> Tensor:
        """Features, float (n, width)."""
        _, features = self.both(batch)
        return features  # type: ignore[no-any-return]


class TimmFeatures(nn.Module):
    """A classifier of timm, with the features that its `forward_head(pre_logits=True)` gives."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, float (n, classes), and features, float (n, width)."""
        maps = self.classifier.forward_features(batch)
        return self.classifier.forward_head(maps), self.classifier.forward_head(maps, pre_logits=True)


class LastInput(nn.Module):
    """Any classifier, with what its last layer gets: the mean over the image where that is a map.

    Args:
        classifier: whose answers for a class come from one layer, linear or a convolution.

    Attributes:
        width: of the features.
        classes: for which that layer has an answer.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        layers = [layer for layer in classifier.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        self._last = layers[-1:]  # in a list, so that it does not count as a submodule twice
        last: Any = layers[-1]
        is_linear = isinstance(last, nn.Linear)
        self.width: int = last.in_features if is_linear else last.in_channels
        self.classes: int = last.out_features if is_linear else last.out_channels

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, float (n, classes), and features, float (n, width)."""
        seen: list[Tensor] = []
        hook = self._last[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self.classifier(batch)
        finally:
            hook.remove()
        (features,) = seen
        return logits, features.flatten(2).mean(dim=2) if features.ndim == 4 else features


def as_embedder(model: ClassifierModel, name: str) -> EmbedderModel:
    """A classifier as an embedder.

    Raises:
        ModelError: it does not say what its features are, or its `with_features` is another network.
    """
    if model.with_features is None:
        raise ModelError(
            f"{name} is a classifier that does not say what its features are; make an EmbedderModel of it, "
            "or name it under `classifier:`"
        )
    assert_width(model.width, name)
    _assert_same_network(model, model.with_features.eval(), name)
    own = {"module": Features(model.with_features), "categories": ()}
    return EmbedderModel(**{**common_of(model), **own}, width=model.width, with_logits=model.with_features)


def assert_width(width: object, name: str) -> None:
    """Raises ModelError for a width that no embedding has."""
    if not isinstance(width, int) or width < 1:
        raise ModelError(
            f"{name}: its width is {width}; allowed: how many numbers an embedding has, such as width=512"
        )


@torch.inference_mode()
def _assert_same_network(model: ClassifierModel, with_features: nn.Module, name: str) -> None:
    """Checks that logits next to features are the module's own: a classifier gets these where it shares.

    Raises:
        ModelError: they are not.
    """
    for image in noise_inputs(model):
        batch = image[None]
        try:
            answer = with_features(batch)
            if not isinstance(answer, tuple) or len(answer) != 2:
                raise ValueError("it returns no pair (logits, features)")
            assert_same((model.module(batch),), answer[0])
            if answer[1].shape != (1, model.width):
                raise ValueError(f"its features are {tuple(answer[1].shape)}, expected (1, {model.width})")
        except Exception as error:  # the user's code may raise anything
            raise ModelError(
                f"{name}: with_features must return the pair (logits, features), the logits those of its "
                f"module, the features as wide as its `width` says: {error}"
            ) from None
