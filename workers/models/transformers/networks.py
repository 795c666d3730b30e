"""transformers' networks with the faces that raylabel's kinds of model have."""

import inspect
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from schemas.exceptions import ModelError
from workers.models.folding import grouped_nms
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
        network: of transformers', without its half for texts.
        vector: which of its outputs is the embedding.
    """

    def __init__(self, network: Any, vector: Vector) -> None:
        super().__init__()
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
        self.network: nn.Module = RawObjects(network)
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


class RawLabelledObjects(nn.Module):
    """The part of OWL-ViT or OWLv2 that is a network alone.

    Args:
        network: of transformers', without its half for texts.
        vectors: the labels, encoded, float32 (labels, width).
    """

    vectors: Tensor

    def __init__(self, network: Any, vectors: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("vectors", vectors)

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, labels, places) and boxes (n, 1, places, 4), [cx, cy, w, h] as shares of the input.

        Args:
            batch: float (n, 3, h, w).
        """
        maps, _ = self.network.image_embedder(pixel_values=batch)
        features = maps.flatten(1, 2)
        logits, _ = self.network.class_predictor(features, self.vectors[None].expand(len(batch), -1, -1))
        boxes = self.network.box_predictor(features, maps)
        return logits.transpose(1, 2), boxes[:, None]


class RawPhrases(nn.Module):
    """The part of Grounding DINO that is a network alone: it looks for one label after the other.

    Args:
        network: of transformers'; an `Encoded` is in place of its text backbone.
        vectors: of each label's tokens, float32 (tokens, width).
        tokens: their numbers, int64 (tokens,).
    """

    def __init__(self, network: Any, vectors: Sequence[Tensor], tokens: Sequence[Tensor]) -> None:
        super().__init__()
        self.network = network
        self._texts = list(zip(vectors, tokens, strict=True))
        backbone = network.model.backbone
        self._maps = backbone.conv_encoder = Once(backbone.conv_encoder)

    def forward(self, batch: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (n, labels, queries) and boxes (n, labels, queries, 4), as shares of the input.

        Args:
            batch: float (n, 3, h, w).
            mask: int64 (n, h, w), 0 where the input is padding; None: it has none.
        """
        mask = torch.ones_like(batch[:, 0], dtype=torch.int64) if mask is None else mask
        logits, boxes = [], []
        try:
            for vectors, tokens in self._texts:
                self.network.model.text_backbone.vectors = vectors.to(batch.device)
                numbers = tokens.to(batch.device).expand(len(batch), -1)
                output = self.network(pixel_values=batch, pixel_mask=mask, input_ids=numbers)
                logits.append(output.logits.amax(dim=-1))
                boxes.append(output.pred_boxes)
        finally:
            self._maps.forget()
        return torch.stack(logits, dim=1), torch.stack(boxes, dim=1)


class Once(nn.Module):
    """A module that computes an image's feature maps once, however often it is asked for them in a row.

    Args:
        module: takes pixels and a mask, and returns a list.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._seen: tuple[Tensor, Any] | None = None

    def forward(self, pixels: Tensor, mask: Tensor) -> list[Any]:
        """Its list, which the caller may add to."""
        if self._seen is None or self._seen[0] is not pixels:
            self._seen = pixels, self.module(pixels, mask)
        return list(self._seen[1])

    def forget(self) -> None:
        """Lets go of what was computed."""
        self._seen = None


class LabelledObjects(Objects):
    """A detector of what texts say, with the face of torchvision's: see `Objects`.

    As transformers' pipeline does it, a place is an object of each label whose score is high enough, and
    doubled boxes stay, unless `nms_thresh`, torchvision's name, is set: then those of a label that overlap
    more are one.

    Args:
        raw: a `RawLabelledObjects` or `RawPhrases`.
        processor: of the same folder.
    """

    def __init__(self, raw: nn.Module, processor: Processor) -> None:
        super().__init__(raw, processor)
        self.network = raw
        self.nms_thresh: float | None = None

    def _read(self, logits: Tensor, boxes: Tensor, image: Tensor) -> dict[str, Tensor]:
        """The objects in a network's answer for an image, boxes in its pixels."""
        size = torch.tensor([image.shape[-2:]], device=logits.device)
        sets = boxes.shape[1]
        flat = SimpleNamespace(
            logits=logits.new_ones(1, sets * boxes.shape[2], 1), pred_boxes=boxes.flatten(1, 2)
        )
        (all_of_them,) = self.processor.own.post_process_object_detection(flat, -1.0, size)
        corners = all_of_them["boxes"].view(sets, -1, 4).expand(logits.shape[1], -1, -1)
        scores = logits[0].sigmoid()
        labels, places = (scores > self.score_thresh).nonzero(as_tuple=True)
        found = {"boxes": corners[labels, places], "scores": scores[labels, places], "labels": labels}
        if self.nms_thresh is None:
            return found
        kept = grouped_nms(found["boxes"], found["scores"], labels, None, self.nms_thresh)
        return {name: values[kept] for name, values in found.items()}
