"""Classes that are texts: how alike an image's features and the encoded labels are."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from schemas.exceptions import ModelError
from schemas.models import EncodedTexts
from workers.models.model import EmbedderModel, ZeroShotModel, common_of


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


def classifier_of_texts(
    features: EmbedderModel, texts: EncodedTexts, scale: float, bias: float, *, is_siglip: bool
) -> ZeroShotModel:
    """CLIP or SigLIP as a classifier: an image's features beside the labels, as its pipeline scores them.

    Args:
        features: its half for images.
        texts: the labels.
        scale: what cosines are multiplied by.
        bias: what is added.
        is_siglip: whether each label is scored by itself.

    Raises:
        ModelError: images and texts have vectors of two widths.
    """
    vectors = torch.from_numpy(np.stack(texts.vectors))
    assert_same_width(features.width, vectors.shape[1])
    return ZeroShotModel(
        **{**common_of(features), "categories": texts.labels},
        head=TextHead(vectors, scale, bias),
        score_type="sigmoid" if is_siglip else "softmax",
    )


def assert_same_width(images: int, texts: int) -> None:
    """Raises ModelError for vectors of images and of texts that are not of one space."""
    if images != texts:
        raise ModelError(
            f"the half for images gives {images} numbers and that for texts {texts}; allowed: the two halves "
            "of one model, with their projections into one space, and the config.json that belongs to them"
        )


def unit(vectors: Tensor) -> Tensor:
    """Vectors, float (n, width), scaled to length 1."""
    scaled: Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return scaled


def put_into(templates: Sequence[str], label: str) -> list[str]:
    """A label in each template."""
    return [template.replace("{}", label) for template in templates]
