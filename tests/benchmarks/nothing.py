"""Models that are none: they touch every pixel and answer at once, to measure what feeds the models."""

import torch
from torch import Tensor, nn

from workers.models.model import ClassifierModel, DetectorModel, as_is


def brightest(image: Tensor) -> Tensor:
    """The highest value of an image (3, height, width), as a model's input of one pixel."""
    return image.amax().float().expand(3, 1, 1)


def touch() -> ClassifierModel:
    """For `--classifier tests.benchmarks.nothing:touch`."""
    return ClassifierModel(
        module=nn.Flatten(), transform=brightest, categories=("red", "green", "blue"), score_type="sigmoid"
    )


class _Finds(nn.Module):
    """Finds nothing."""

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        for image in images:
            image.amax()
        nowhere = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}
        return [nowhere] * len(images)


def find() -> DetectorModel:
    """For `--detector tests.benchmarks.nothing:find`."""
    return DetectorModel(module=_Finds(), transform=as_is, categories=("nothing",))
