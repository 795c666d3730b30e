"""transformers' networks with the faces that raylabel's kinds of model have."""

import inspect
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from schemas.exceptions import ModelError
from workers.models.model import require_finite
from workers.models.runner import batches
from workers.models.transformers.processor import Processor

Vector = Literal["get_image_features", "image_embeds", "pooler_output", "first token"]
"""Which of a network's outputs is the embedding of an image."""

VECTORS: dict[Vector, str] = {
    "get_image_features": "what get_image_features gives: with texts in one space",
    "image_embeds": "image_embeds: with texts in one space",
    "pooler_output": "pooler_output",
    "first token": "the first token of last_hidden_state (CLS): the folder has no pooler",
}


class Logits(nn.Module):
    """A classifier of transformers', as `ClassifierModel` wants it.

    Args:
        network: a ...ForImageClassification.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> Tensor:
        """Logits, float (n, classes), of a batch, float (n, 3, h, w)."""
        logits: Tensor = self.network(pixel_values=batch.contiguous()).logits
        return logits


class ImageFeatures(nn.Module):
    """A network of image features, as `EmbedderModel` wants it.

    Args:
        network: of transformers'; what it has for texts is dropped, as it is not computed.
        vector: which of its outputs is the embedding.
    """

    def __init__(self, network: Any, vector: Vector) -> None:
        super().__init__()
        for part in ("text_model", "text_projection"):
            network._modules.pop(part, None)
        self.network = network
        self.vector = vector

    def forward(self, batch: Tensor) -> Tensor:
        """Features, float (n, width), of a batch, float (n, 3, h, w)."""
        batch = batch.contiguous()
        if self.vector == "get_image_features":
            output = self.network.get_image_features(pixel_values=batch)
            return output if isinstance(output, Tensor) else output.pooler_output.flatten(1)
        output = self.network(pixel_values=batch)
        features: Tensor = (
            output.last_hidden_state[:, 0] if self.vector == "first token" else output[self.vector].flatten(1)
        )
        return features


@torch.inference_mode()
def vector_of(network: Any, example: Tensor, *, without_pooler: bool) -> Vector:
    """Which output of a network is the embedding.

    Args:
        network: of transformers'.
        example: an input, float (1, 3, h, w).
        without_pooler: whether its files have no tensors of a pooler, which it might have.

    Raises:
        ModelError: it gives no vector for an image.
    """
    if hasattr(network, "get_image_features"):
        return "get_image_features"
    output = network(pixel_values=example)
    for name in ("image_embeds", "pooler_output"):
        if output.get(name) is not None:
            return name
    if without_pooler:
        return "first token"
    raise ModelError(
        f"{type(network).__name__} gives no vector for an image ({', '.join(output)}); allowed: networks "
        "with get_image_features, image_embeds or pooler_output"
    )


class RawObjects(nn.Module):
    """The part of a detector that is a network alone.

    Args:
        network: a ...ForObjectDetection of transformers'.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self._takes_mask = "pixel_mask" in inspect.signature(network.forward).parameters

    def forward(self, batch: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (n, queries, classes) and boxes (n, queries, 4), [cx, cy, w, h] as shares of the input.

        Args:
            batch: float (n, 3, h, w).
            mask: int64 (n, h, w), 0 where the input is padding; None: it has none.
        """
        masks = {"pixel_mask": mask} if self._takes_mask and mask is not None else {}
        output = self.network(pixel_values=batch, **masks)
        return output.logits, output.pred_boxes


class Objects(nn.Module):
    """A detector of transformers' with the face of torchvision's: see `DetectorModel`.

    Each image is prepared and read by itself, by the folder's image processor; a pass of the network has
    those whose inputs have one shape, without padding, so that no image's answer depends on its neighbours.
    `score_thresh` is torchvision's name.

    Args:
        network: a ...ForObjectDetection.
        processor: of the same folder.
    """

    def __init__(self, network: nn.Module, processor: Processor) -> None:
        super().__init__()
        self.score_thresh = 0.5
        self.network = RawObjects(network)
        self.processor = processor

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """The objects of each image, uint8 RGB (3, height, width).

        Raises:
            FloatingPointError: the network returned NaN or infinity.
        """
        inputs = [self.processor.with_mask(image) for image in images]
        answers: dict[int, dict[str, Tensor]] = {}
        # those of one shape together; those with padding alone
        shapes = [tuple(pixels.shape) if mask is None else i for i, (pixels, mask) in enumerate(inputs)]
        for members in batches(shapes, len(inputs)):
            batch = torch.stack([inputs[i][0] for i in members]).contiguous()
            mask = inputs[members[0]][1]
            outputs = self.network(batch) if mask is None else self.network(batch, mask[None])
            require_finite(outputs)
            logits, boxes = (output.float() for output in outputs)
            for place, i in enumerate(members):
                answers[i] = self._read(logits[place : place + 1], boxes[place : place + 1], images[i])
        return [answers[i] for i in range(len(images))]

    def _read(self, logits: Tensor, boxes: Tensor, image: Tensor) -> dict[str, Tensor]:
        """The objects in a network's answer for an image, boxes in its pixels."""
        size = torch.tensor([image.shape[-2:]], device=logits.device)
        answer = SimpleNamespace(logits=logits, pred_boxes=boxes)
        (objects,) = self.processor.own.post_process_object_detection(answer, self.score_thresh, size)
        return {name: objects[name] for name in ("boxes", "scores", "labels")}
