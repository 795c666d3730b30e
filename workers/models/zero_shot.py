"""Classes that are texts: how alike an image's features and the encoded labels are."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TextHead(nn.Module):
    """Logits of labels, as CLIP and SigLIP make them: scale x cosine + bias.

    It computes in float32, whatever the network does: times a scale of 100, a cosine of bfloat16 would be off
    by much more than a score may be.

    Args:
        texts: the labels, encoded, float32 (labels, width), each of length 1.
        scale: what cosines are multiplied by.
        bias: what is added.
    """

    texts: Tensor

    def __init__(self, texts: Tensor, scale: float, bias: float) -> None:
        super().__init__()
        self.register_buffer("texts", texts)
        self.scale, self.bias = scale, bias

    def forward(self, features: Tensor) -> Tensor:
        """Logits, float32 (n, labels), of the features of images, float (n, width)."""
        if self.texts.device != features.device:
            self.to(features.device)
        with torch.autocast(features.device.type, enabled=False):
            return unit(features.float()) @ self.texts.T * self.scale + self.bias


def unit(vectors: Tensor) -> Tensor:
    """Vectors, float (n, width), scaled to length 1."""
    scaled: Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return scaled


def put_into(templates: Sequence[str], label: str) -> list[str]:
    """A label in each template."""
    return [template.replace("{}", label) for template in templates]
