"""A model that is none: it touches every pixel and answers at once, to measure what feeds the models."""

from torch import Tensor, nn

from workers.models.model import ClassifierModel


def brightest(image: Tensor) -> Tensor:
    """The highest value of an image (3, height, width), as a model's input of one pixel."""
    return image.amax().float().expand(3, 1, 1)


def touch() -> ClassifierModel:
    """For `--classifier tests.benchmarks.nothing:touch`."""
    return ClassifierModel(
        module=nn.Flatten(), transform=brightest, categories=("red", "green", "blue"), score_type="sigmoid"
    )
