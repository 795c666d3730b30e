"""What a model is to the workers, wherever it comes from.

A source (built in, torchvision, timm, a user's factory) makes a `ClassifierModel` or a `DetectorModel`;
`workers.models.registry` adds the job spec's settings and hands out a `LoadedClassifier` or a
`LoadedDetector`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Generic, Literal, TypeVar

from torch import Tensor, nn

from schemas.models import ResolvedModel

Task = Literal["classifier", "detector"]

ScoreType = Literal["softmax", "sigmoid"]

Transform = Callable[[Tensor], Tensor]
"""From one image, uint8 RGB of shape (3, height, width), to the model's input, float of shape (3, h, w).
It runs on whatever device the tensor is on. In memory the channels of a pixel lie together."""


def as_is(image: Tensor) -> Tensor:
    """The transform of a module that takes uint8 images and does the rest itself."""
    return image


@dataclass(frozen=True, kw_only=True)
class _Model:
    """What the two kinds of model share.

    Attributes:
        module: the network, float32.
        transform: one image to the module's input; a detector's keeps the image's size.
        categories: class names; a class id is an index into it.
        input_size: what the transform makes of an image, for a person: "224x224".
        preprocessing: the transform written out; "" stands for its repr.
        mixes_shapes: whether images of different shapes can share a batch. Where this is False, images are
            grouped by their own shape.
        channels_last: whether the module runs in channels-last layout. On a CPU it takes a third off
            convolutional classifiers and NanoDet, and nothing off torchvision's detectors (measured).
        transform_on_device: whether the transform may be given a tensor on the GPU.
        network: the name of the submodule that another runtime may take the place of; "" is the module
            itself. It takes a batch, float (n, 3, h, w) of one size, does the same whatever the values in it
            are, and returns a tensor or several. None: torch runs the module.
        licence: of the weights.
        quality: measured or published, with the data it was measured on.
    """

    module: nn.Module
    transform: Transform
    categories: tuple[str, ...]
    input_size: str = "see the factory"
    preprocessing: str = ""
    mixes_shapes: bool = True
    channels_last: bool = True
    transform_on_device: bool = True
    network: str | None = None
    licence: str = "see the source"
    quality: str = "not stated"


@dataclass(frozen=True, kw_only=True)
class ClassifierModel(_Model):
    """A classifier: the module takes a batch, float (n, 3, h, w), and returns logits (n, categories).

    Attributes:
        score_type: how its logits become scores, as it was trained.
    """

    score_type: ScoreType = "softmax"


@dataclass(frozen=True, kw_only=True)
class DetectorModel(_Model):
    """A detector, with the face of torchvision's: the module resizes, the transform keeps an image's size.

    The module takes a list of n images (3, height, width) as the transform made them, and returns a list of
    n dictionaries: "boxes" float (m, 4), [x1, y1, x2, y2] in pixels of the image, "scores" float (m,),
    "labels" int (m,), after its own non-maximum suppression. It raises FloatingPointError where its network
    answers with NaN or infinity.
    """


def require_finite(tensors: Iterable[Tensor]) -> None:
    """Asks a network's raw answers to be numbers, before thresholds drop what is not.

    Raises:
        FloatingPointError: there is NaN or infinity among them.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise FloatingPointError("the network answered with NaN or infinity")


def versions(*libraries: str) -> str:
    """What built a model: "timm 1.0.31, torchvision 0.29.1", without the mark of a CPU or GPU build."""
    return ", ".join(f"{name} {version(name).partition('+')[0]}" for name in libraries)


M_co = TypeVar("M_co", bound=_Model, covariant=True)


@dataclass(frozen=True)
class Built(Generic[M_co]):
    """A model as its source made it, and where its parts come from.

    Attributes:
        model: the model, on the CPU.
        source: where the code comes from.
        weights: the file or the official name, without credentials.
        weights_sha256: of the weights file; None where the library fetched them itself.
        code: the library and its version, or the factory module's sha256.
    """

    model: M_co
    source: Literal["built in", "torchvision", "timm", "factory"]
    weights: str
    weights_sha256: str | None
    code: str


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier with the job's settings, on the CPU, in eval mode.

    Attributes:
        model: the model.
        top_k: classes kept of an image; never more than there are.
        score_type: how logits become scores.
        resolved: what run.json says of it.
    """

    model: ClassifierModel
    top_k: int
    score_type: ScoreType
    resolved: ResolvedModel


@dataclass(frozen=True)
class LoadedDetector:
    """A detector with the job's settings, on the CPU, in eval mode.

    Attributes:
        model: the model; its module already knows the lowest threshold and the NMS overlap.
        thresholds: for each class id, what a box must score more than.
        max_boxes: most boxes kept of an image, counted after the thresholds; None: the module's own limit.
        resolved: what run.json says of it.
    """

    model: DetectorModel
    thresholds: tuple[float, ...]
    max_boxes: int | None
    resolved: ResolvedModel
