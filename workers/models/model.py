"""What a model is to the workers, whatever its source.

A source (built in, torchvision, timm, a user's factory) makes a `ClassifierModel`, a `DetectorModel` or an
`EmbedderModel`; `workers.models.registry` adds the job spec's settings and returns a `LoadedModel`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from typing import Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor, nn

from schemas.models import EncodedTexts, Origin, ResolvedModel
from schemas.tasks import CLASSIFY, DETECT, EMBED, TAG, ModelSpec, Task

ScoreType = Literal["softmax", "sigmoid", "none"]

Transform = Callable[[Tensor], Tensor]
"""Turns one image, uint8 RGB (3, height, width), into the model's input, float (3, h, w), on the same device.
The image is channels-last in memory: the channels of a pixel are adjacent."""


def as_is(image: Tensor) -> Tensor:
    """Returns the image unchanged: the transform of a module that takes uint8 images."""
    return image


@dataclass(frozen=True, kw_only=True)
class Model:
    """What all kinds of model have in common.

    Attributes:
        task: what it does.
        gives: names of what the module returns for a batch, one tensor or several; empty: a list.
        module: the network, float32.
        transform: one image to the module's input; a detector's keeps the image's size.
        categories: class names; a class id is an index into it.
        names: by a class map, the name of each class in the tables, None of one that is left out; empty: its
            category. A source leaves it empty.
        input_size: the size that the transform produces, as text: "224x224"; "": not stated.
        preprocessing: the transform as text; "" stands for its repr.
        mixes_shapes: whether images of different shapes can share a batch; if not, they are grouped by shape.
        channels_last: whether the module runs in channels-last layout. On a CPU that saves a third of
            the time of convolutional classifiers and of NanoDet, and nothing with torchvision's detectors.
        transform_on_device: whether the transform may be given a tensor on the GPU.
        files: further files that decide its answers, such as thresholds that its factory reads: paths or
            URLs. The run's fingerprint has the sha256 of each.
        network: the name of the submodule that another runtime may replace; "" is the module itself. It takes
            a batch, float (n, 3, h, w) of one size, does the same steps whatever its values are, and returns
            one tensor or several. None: torch runs the module.
        unordered: whether the rows of the network's outputs, (n, rows, ...), are a set: their order means
            nothing, as that of the queries which a detector chooses by their scores.
        licence: of the weights.
        quality: measured or published, with the data it was measured on.
    """

    task: ClassVar[Task]
    gives: ClassVar[tuple[str, ...]] = ()
    module: nn.Module
    transform: Transform
    categories: tuple[str, ...] = ()
    names: tuple[str | None, ...] = ()
    input_size: str = ""
    preprocessing: str = ""
    mixes_shapes: bool = True
    channels_last: bool = True
    transform_on_device: bool = True
    files: tuple[str | PathLike[str], ...] = ()
    network: str | None = None
    unordered: bool = False
    licence: str = "see the source"
    quality: str = "not stated"

    @property
    def known_as(self) -> tuple[str | None, ...]:
        """The name of each class in the tables, by class id; None of one that is left out."""
        return self.names or self.categories


@dataclass(frozen=True, kw_only=True)
class ClassifierModel(Model):
    """A classifier: the module takes a batch, float (n, 3, h, w), and returns logits (n, categories).

    Attributes:
        score_type: how its logits become scores, according to its training; "none": they are scores.
        exclusive: of a model whose answers are scores: whether an image has one of its classes, so that the
            scores of all add up to 1.
        with_features: the same network, which returns its pooled features as well: logits (n, categories) and
            features (n, width). None: it cannot be an embedder.
        width: of those features.
    """

    task = CLASSIFY
    gives = ("logits",)
    score_type: ScoreType = "softmax"
    exclusive: bool = False
    with_features: nn.Module | None = None
    width: int = 0


@dataclass(frozen=True, kw_only=True)
class ZeroShotModel(ClassifierModel):
    """A classifier whose classes are texts: the module returns features of images, float (n, width).

    It is the network of an embedder, which shares it, as do models with other labels.

    Attributes:
        head: makes logits, float32 (n, categories), of these features.
    """

    gives = ("features",)
    head: nn.Module


@dataclass(frozen=True, kw_only=True)
class DetectorModel(Model):
    """A detector with torchvision's interface: the module resizes, the transform keeps an image's size.

    The module takes a list of n images (3, height, width) from the transform, and returns a list of
    n dictionaries: "boxes" float (m, 4), [x1, y1, x2, y2] in pixels of the image, "scores" float (m,),
    "labels" int (m,), after its own non-maximum suppression. It raises FloatingPointError if its network
    returns NaN or infinity.

    A module with attributes of torchvision's names, `score_thresh`, `nms_thresh` and `detections_per_img`, on
    itself or on its `roi_heads`, gets the job's settings there. One with an attribute `nms_groups` gets the
    number of each class's name by a class map, int64 (classes,), -1 of one that is left out: then it
    suppresses boxes by these in place of classes, and drops those of -1, before it counts the boxes that it
    returns. None: there is no class map.
    """

    task = DETECT


@dataclass(frozen=True, kw_only=True)
class EmbedderModel(Model):
    """An embedder: the module takes a batch, float (n, 3, h, w), and returns features (n, width).

    Attributes:
        width: how many numbers an embedding has.
        takes_texts: whether the model that it is the half of encodes texts, too, in the same space.
        with_logits: the same network as a classifier's, which returns logits and features; None: it is no
            classifier's.
    """

    task = EMBED
    gives = ("features",)
    width: int
    takes_texts: bool = False
    with_logits: nn.Module | None = None


@dataclass(frozen=True, kw_only=True)
class SharedModel(Model):
    """A network that is computed once for classifiers and embedders: it returns logits and features."""

    gives = ("logits", "features")


def common_of(model: Model) -> dict[str, Any]:
    """What a model of the same network has in common with one; its submodule's name is none of another's."""
    common = {each.name: getattr(model, each.name) for each in fields(Model)}
    return {**common, "network": "" if model.network == "" else None}


KINDS: dict[Task, tuple[type[Model], ...]] = {
    CLASSIFY: (ClassifierModel,),
    DETECT: (DetectorModel,),
    EMBED: (EmbedderModel, ClassifierModel),
    TAG: (ClassifierModel,),
}
"""What a source makes for each task."""


def require_finite(tensors: Iterable[Tensor]) -> None:
    """Checks a network's raw outputs for NaN and infinity, which thresholds would drop without notice.

    Raises:
        FloatingPointError: there is NaN or infinity in them.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise FloatingPointError("the network answered with NaN or infinity")


def versions(*libraries: str) -> str:
    """Libraries and versions, "timm 1.0.31, torchvision 0.29.1", without the suffix of a CPU or GPU build."""
    return ", ".join(f"{name} {_version(name).partition('+')[0]}" for name in libraries)


def _version(library: str) -> str:
    """The version of a library, or of what is installed in its place for GPUs."""
    try:
        return version(library)
    except PackageNotFoundError:
        return version(f"{library}-gpu")


M_co = TypeVar("M_co", bound=Model, covariant=True)
S_co = TypeVar("S_co", bound=ModelSpec, covariant=True)


@dataclass(frozen=True)
class Built(Generic[M_co]):
    """A model as its source built it, and the origin of its parts.

    Attributes:
        model: the model, on the CPU.
        source: where the code comes from.
        weights: the weights file or the official name, without credentials.
        weights_sha256: of the weights file; None if the library downloaded it.
        code: the library and its version, or the factory.
        parts: what pins a model that its weights file and code do not; see `schemas.models.ResolvedModel`.
        texts: of a zero-shot model: its labels, encoded.
    """

    model: M_co
    source: Origin
    weights: str
    weights_sha256: str | None
    code: str
    parts: dict[str, str] = field(default_factory=dict)
    texts: EncodedTexts | None = None


@dataclass(frozen=True)
class TextHalf:
    """The half of a model that encodes texts in the space of its images' features.

    Attributes:
        encode: some texts to vectors, float32 (n, width), each of length 1.
        weights_sha256: of the whole model, as `Built` has it.
        code: likewise.
        settings: which of the model's settings say the same of a half that is a file of its own.
    """

    encode: Callable[[Sequence[str]], Tensor]
    weights_sha256: str
    code: str
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedModel(Generic[M_co, S_co]):
    """A model with the job's settings, on the CPU, in eval mode.

    Attributes:
        model: the model; a detector's module has the lowest threshold and the NMS overlap set already.
        spec: its section of the job spec.
        resolved: its entry in run.json.
    """

    model: M_co
    spec: S_co
    resolved: ResolvedModel
