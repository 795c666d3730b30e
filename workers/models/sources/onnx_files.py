"""ONNX files, by path or URL: detectors, classifiers and embedders, recognised by what is in them."""

from dataclasses import dataclass
from typing import Any

import onnxruntime
from torch import Tensor

from schemas.exceptions import ModelError
from schemas.models import ModelInfo
from schemas.tasks import CLASSIFY, DETECT, EMBED, DetectorSpec, InputSpec, ModelSpec, Task
from workers.models.model import (
    Built,
    ClassifierModel,
    DetectorModel,
    EmbedderModel,
    Model,
    as_is,
    require_finite,
    versions,
)
from workers.models.onnx.detector import OnnxDetector, assert_inputs, assert_task, layout_of
from workers.models.onnx.file import OnnxFile, read_onnx
from workers.models.onnx.layouts import Seen
from workers.models.onnx.metadata import Metadata, metadata_of
from workers.models.onnx.network import OnnxFileNetwork
from workers.models.onnx.scores import OneOutput, row_output, row_preprocess, score_type_in
from workers.models.preprocess import Preprocess, Size, pair, with_spec
from workers.models.scores import scores_of
from workers.models.settings import given_categories
from workers.models.source import Source

_CODE = tuple(
    f"workers.models.onnx.{name}" for name in ("detector", "file", "layouts", "metadata", "network", "scores")
)
"""The modules that answers depend on, beside this one."""


class OnnxFiles(Source):
    """Files that end in `.onnx`."""

    @property
    def modules(self) -> tuple[str, ...]:
        """See `Source.modules`."""
        return (*super().modules, *_CODE)

    def names(self, task: Task) -> list[str]:  # noqa: ARG002 - they are the user's
        """See `Source.names`."""
        return []

    def takes(self, spec: ModelSpec) -> bool:
        """See `Source.takes`."""
        return spec.is_onnx

    def input_keys(self, spec: ModelSpec) -> tuple[str, ...]:  # noqa: ARG002 - it looks itself
        """See `Source.input_keys`; which of them fit a file, its builder says."""
        return tuple(InputSpec.model_fields)

    def describe(self, name: str, task: Task) -> ModelInfo:
        """None is listed."""
        raise NotImplementedError

    def build(self, spec: ModelSpec) -> Built[Any]:
        """See `Source.build`."""
        return build(spec)


@dataclass(frozen=True)
class Opened:
    """A file that ONNX Runtime can compute.

    Attributes:
        file: the file.
        metadata: its metadata.
        network: computes it.
        size: that it is made for; None: any.
    """

    file: OnnxFile
    metadata: Metadata
    network: OnnxFileNetwork

    @property
    def size(self) -> Size | None:
        """Height and width that it is made for; None: any."""
        height, width = self.network.static_size
        return (height, width) if height and width else None

    def answers(self, size: Size) -> dict[str, Tensor]:
        """Its outputs for an image of noise.

        Raises:
            ModelError: it fails, or a number is none.
        """
        answers = self.network.answers(size)
        try:
            require_finite(answers.values())
        except FloatingPointError:
            raise ModelError(
                f"{self.file.name} answers with NaN or infinity for an image of noise: its weights are "
                "damaged, or "
                "numbers overflow in float16; export it again, in float32"
            ) from None
        return answers


def opened(spec: ModelSpec) -> Opened:
    """The file of a job spec.

    Raises:
        ModelError: it cannot be read or computed, or the spec has other weights for it.
    """
    if spec.weights is not None:
        raise ModelError(f"weights: found {spec.weights!r}, but an ONNX file has its own; leave weights out")
    file = read_onnx(spec.model, spec.sha256)
    return Opened(file, metadata_of(file), OnnxFileNetwork(file))


def build(spec: ModelSpec) -> Built[Any]:
    """The model of an ONNX file, for the task of its section.

    Raises:
        ModelError: the file cannot be read or computed, is not of that task, or does not say enough.
    """
    one = opened(spec)
    model: Model
    if isinstance(spec, DetectorSpec):
        model, parts = _detector(one, spec)
    elif spec.task == EMBED:
        model, parts = _embedder(one, spec)
    else:
        model, parts = _classifier(one, spec)
    runtime = f"onnxruntime {onnxruntime.__version__.partition('+')[0]}"
    code = f"raylabel, {runtime}, {versions('pillow', 'torchvision')}"
    return Built(model, "onnx", one.file.location, one.file.sha256, code, parts)


def _detector(one: Opened, spec: DetectorSpec) -> tuple[DetectorModel, dict[str, str]]:
    assert_task(one.metadata, "detect", DETECT.name)
    assert_inputs(one.network, one.file.name)
    size = _detector_size(one, spec)
    shapes = {name: tuple(answer.shape) for name, answer in one.answers(size).items()}
    given = given_categories(spec)
    names = given or one.metadata.names()
    taken = layout_of(spec, Seen(one.file, one.metadata, size, shapes, len(names) if names else None))
    categories = _named_classes(one.file.name, names, taken.layout.classes(shapes), given is not None)
    preprocess = with_spec(taken.layout.preprocess(size), spec.input)
    model = DetectorModel(
        module=OnnxDetector(one.network, taken.layout, preprocess, len(categories)),
        transform=as_is,
        categories=categories,
        input_size=_text(size),
        preprocessing=repr(preprocess),
        channels_last=False,
        licence=_licence(one.metadata),
    )
    return model, {"layout": taken.layout.names[0]}


def _classifier(one: Opened, spec: ModelSpec) -> tuple[ClassifierModel, dict[str, str]]:
    assert_task(one.metadata, "classify", CLASSIFY.name)
    preprocess, output, numbers = _row(one, spec, CLASSIFY.name)
    given = given_categories(spec)
    names = given or one.metadata.names()
    score_type = score_type_in(one.file, output, spec)
    try:
        scores_of(numbers, score_type)
    except ValueError as error:
        raise ModelError(f"{one.file.name}: {error}") from None
    model = ClassifierModel(
        module=OneOutput(one.network, output),
        transform=preprocess,
        categories=_named_classes(one.file.name, names, numbers.shape[1], given is not None),
        score_type=score_type,
        input_size=_text(preprocess.output_size),
        licence=_licence(one.metadata),
    )
    return model, {"layout": f"classes of {output}"}


def _embedder(one: Opened, spec: ModelSpec) -> tuple[EmbedderModel, dict[str, str]]:
    preprocess, output, numbers = _row(one, spec, EMBED.name)
    model = EmbedderModel(
        module=OneOutput(one.network, output),
        transform=preprocess,
        width=numbers.shape[1],
        input_size=_text(preprocess.output_size),
        licence=_licence(one.metadata),
    )
    return model, {"layout": f"features of {output}"}


def _row(one: Opened, spec: ModelSpec, section: str) -> tuple[Preprocess, str, Tensor]:
    """The preprocessing of a classifier or embedder, its output's name, and that for an image of noise."""
    if one.network.others:
        raise ModelError(
            f"{one.file.name} wants more than images: its input {', '.join(map(str, one.network.others))}; "
            "allowed: "
            "one input"
        )
    preprocess = with_spec(row_preprocess(one.metadata, spec, one.size, section), spec.input)
    answers = one.answers(preprocess.output_size)
    output = row_output(one.file.name, answers, section)
    return preprocess, output, answers[output].flatten(1)


def _detector_size(one: Opened, spec: DetectorSpec) -> Size:
    """The size of a detector's input: the file's own, the spec's, or the metadata's.

    Raises:
        ModelError: none is known, or the spec's is not the file's.
    """
    given = pair(spec.input.size) if spec.input and spec.input.size else None
    if spec.input and spec.input.crop:
        raise ModelError(
            "input.crop: found for a detector; allowed: for a classifier, a tagger or an embedder"
        )
    if one.size and given and one.size != given:
        raise ModelError(
            f"input.size: found {_text(given)}, but {one.file.name} is made for {_text(one.size)} (height "
            "x width); "
            "leave it out, or export the file for another size"
        )
    size = one.size or given or one.metadata.size
    if size is None:
        raise ModelError(
            f"{one.file.name} takes images of any size and does not say which it was trained for; add "
            "`input: {size: 640}`, with its own number"
        )
    return size


def _named_classes(
    name: str, names: tuple[str, ...] | None, classes: int | None, stated: bool
) -> tuple[str, ...]:
    """The class names of a network that tells so many classes apart.

    Raises:
        ModelError: there are none, or another number of them.
    """
    where = "categories" if stated else "its metadata `names`"
    if names is None:
        count = f"its {classes} classes" if classes else "its classes"
        raise ModelError(
            f"{name} does not say how {count} are called; add `categories: names.txt`, a text file with "
            "one name a "
            "line in the network's order, or a list"
        )
    if classes is not None and len(names) != classes:
        raise ModelError(f"{where}: found {len(names)} class names, but {name} has {classes} classes")
    return names


def _licence(metadata: Metadata) -> str:
    return metadata.entries.get("license", "")[:200] or "of the file: not known"


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
