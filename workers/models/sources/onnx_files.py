"""ONNX files, by path or URL: detectors, classifiers and embedders, recognised by what is in them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from torch import Tensor

from schemas.exceptions import ModelError
from schemas.models import EncodedTexts, Explanation, ModelInfo
from schemas.tasks import (
    CLASSIFY,
    DETECT,
    EMBED,
    ClassesSpec,
    ClassifierSpec,
    DetectorSpec,
    EmbedderSpec,
    InputSpec,
    ModelSpec,
    PairSpec,
    Task,
    has_labels,
)
from schemas.words import with_article
from workers.models.model import (
    Built,
    ClassifierModel,
    DetectorModel,
    EmbedderModel,
    Model,
    TextHalf,
    ZeroShotModel,
    as_is,
    require_finite,
    versions,
)
from workers.models.onnx.detector import (
    OnnxDetector,
    Taken,
    assert_inputs,
    assert_task,
    layout_of,
    outputs_text,
)
from workers.models.onnx.file import OnnxFile, UnstatedError, read_onnx
from workers.models.onnx.layouts import LAYOUTS, Seen, Shape
from workers.models.onnx.metadata import Metadata, metadata_of
from workers.models.onnx.network import OnnxFileNetwork
from workers.models.onnx.pairs import (
    IMAGES,
    classifier_of,
    encoded_labels,
    image_features,
    scoring_of,
    text_files,
    without_labels,
)
from workers.models.onnx.scores import (
    OneOutput,
    add_up,
    is_exclusive,
    is_row,
    no_row,
    row_output,
    row_preprocess,
    score_type_in,
    scores_in,
)
from workers.models.preprocess import CLASSIFIER_KEYS, Preprocess, Size, assert_usable, pair, with_spec
from workers.models.scores import scores_of
from workers.models.settings import given_categories
from workers.models.source import Source, no_labels
from workers.printable import short_line
from workers.storage.uris import clean_uri

_CODE = (
    *(f"workers.models.onnx.{name}" for name in ("detector", "file", "layouts", "metadata", "network")),
    *(f"workers.models.onnx.{name}" for name in ("pairs", "scores")),
    *("workers.models.transformers.texts", "workers.models.zero_shot"),
)
"""The modules that answers depend on, beside this one."""


class OnnxFiles(Source):
    """Files that end in `.onnx`."""

    takes_layout = True
    takes_labels = True

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
        return build(opened(spec), spec)

    def build_with(self, spec: ModelSpec, texts: EncodedTexts) -> Built[Any]:
        """See `Source.build_with`."""
        return build(opened(spec), spec, texts)

    def text_half(self, spec: ModelSpec) -> TextHalf:
        """See `Source.text_half`."""
        if not (isinstance(spec, PairSpec) and spec.text_model):
            return super().text_half(spec)
        files = text_files(spec)
        return TextHalf(files.encode, read_onnx(spec.model, spec.sha256).sha256, _code(), files.settings)

    def explain(self, spec: ModelSpec) -> Explanation:
        """See `Source.explain`."""
        return explain(spec.model)


@dataclass(frozen=True)
class Opened:
    """A file that ONNX Runtime can compute.

    Attributes:
        file: the file.
        metadata: its metadata.
        network: computes it.
    """

    file: OnnxFile
    metadata: Metadata
    network: OnnxFileNetwork

    @property
    def size(self) -> Size | None:
        """Height and width that it is made for; None: any."""
        height, width = self.network.static_size
        return (height, width) if height and width else None

    @property
    def usual_size(self) -> Size:
        """The same, or one that networks for any size can take."""
        return self.size or self.metadata.size or (224, 224)

    def usual_shapes(self) -> dict[str, Shape]:
        """The shapes of its outputs for an image of that size, by name; none where it fails."""
        try:
            return {name: tuple(it.shape) for name, it in self.network.answers(self.usual_size).items()}
        except ModelError:
            return {}

    def answers(self, size: Size, seed: int = 0) -> dict[str, Tensor]:
        """Its outputs for an image of noise.

        Raises:
            ModelError: it fails, or a number is none.
        """
        answers = self.network.answers(size, seed)
        try:
            require_finite(answers.values())
        except FloatingPointError:
            raise ModelError(
                f"{self.file.name} answers with NaN or infinity for an image of noise: its weights are "
                "damaged, or numbers overflow in float16; export it again, in float32"
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


def build(one: Opened, spec: ModelSpec, texts: EncodedTexts | None = None) -> Built[Any]:
    """The model of an ONNX file, for the task of its section.

    Args:
        one: the file.
        spec: its section.
        texts: where it is a half for images, what was encoded by that for texts; None: it is yet to be.

    Raises:
        ModelError: the file cannot be read or computed, is not of that task, or does not say enough.
    """
    model: Model
    try:
        if isinstance(spec, PairSpec) and spec.text_model:
            model, parts, texts = _half(one, spec, texts)
        elif has_labels(spec):
            raise ModelError(no_labels(one.file.name))
        elif isinstance(spec, DetectorSpec):
            model, parts = _detector(one, spec)
        elif spec.task == EMBED:
            model, parts = _embedder(one, spec)
        else:
            model, parts = _classifier(one, spec)
    except ModelError:
        _assert_section(one, spec)  # that it is of another kind goes before what it lacks
        raise
    return Built(model, "onnx", one.file.location, one.file.sha256, _code(), parts, texts)


def _code() -> str:
    """What computes a file and prepares images for it."""
    return f"raylabel, {versions('onnxruntime', 'pillow', 'torchvision')}"


def _assert_section(one: Opened, spec: ModelSpec) -> None:
    """Refuses a file whose outputs are those of another kind of model than its section is for.

    Raises:
        ModelError: they are; the message names the right section.
    """
    shapes = one.usual_shapes()
    rows = [is_row(shape) for shape in shapes.values()]
    if isinstance(spec, DetectorSpec):
        if rows and all(rows):
            raise ModelError(
                f"{one.file.name} is no detector: found {outputs_text(shapes)}, numbers for the image as a "
                "whole; name it under `classifier:`, `embedder:` or in `taggers:`"
            )
        return
    seen = Seen(one.file, one.metadata, one.usual_size, shapes)
    matches = {layout.names[0]: match for layout in LAYOUTS if (match := layout.match(seen))}
    certain = [name for name, match in matches.items() if match.certain]
    if rows and (certain or not any(rows)):
        section = EMBED.name if spec.task == EMBED else CLASSIFY.name
        raise no_row(one.file.name, shapes, section, " or ".join(certain or matches))


def _detector(one: Opened, spec: DetectorSpec) -> tuple[DetectorModel, dict[str, str]]:
    assert_task(one.metadata, "detect", DETECT.name)
    assert_inputs(one.network, one.file.name)
    size = _detector_size(one, spec)
    taken = layout_in(one, spec)
    given = given_categories(spec)
    names = given or one.metadata.names()
    categories = _named_classes(one.file.name, names, taken.classes, given is not None)
    preprocess = _as_stated(one, taken.layout.preprocess(size), spec)
    model = DetectorModel(
        module=OnnxDetector(one.network, taken.layout, preprocess, len(categories)),
        transform=as_is,
        categories=categories,
        input_size=_text(size),
        preprocessing=str(preprocess),
        channels_last=False,
        licence=_licence(one.metadata),
    )
    return model, {"layout": taken.layout.names[0]}


def layout_in(one: Opened, spec: DetectorSpec) -> Taken:
    """What a file is taken for as a detector.

    Raises:
        ModelError: it is none, or not certain.
    """
    size = _detector_size(one, spec)
    shapes = {name: tuple(answer.shape) for name, answer in one.answers(size).items()}
    return layout_of(spec, Seen(one.file, one.metadata, size, shapes))


def _classifier(one: Opened, spec: ModelSpec) -> tuple[ClassifierModel, dict[str, str]]:
    assert_task(one.metadata, "classify", CLASSIFY.name)
    given = given_categories(spec)
    preprocess, output, numbers = _row(one, spec, CLASSIFY.name, len(given) if given else None)
    names = given or one.metadata.names()
    if add_up(numbers):  # by chance, perhaps
        more = (one.answers(preprocess.output_size, seed)[output] for seed in (1, 2))
        numbers = torch.cat([numbers, *(answer.flatten(1) for answer in more)])
    score_type = score_type_in(one.file, output, spec, numbers)
    try:
        scores_of(numbers, score_type)
    except ValueError as error:
        raise ModelError(f"{one.file.name}: {error}") from None
    model = ClassifierModel(
        module=OneOutput(one.network, output),
        transform=preprocess,
        preprocessing=str(preprocess),
        categories=_named_classes(one.file.name, names, numbers.shape[1], given is not None),
        score_type=score_type,
        exclusive=is_exclusive(one.file, output, numbers),
        input_size=_text(preprocess.output_size),
        licence=_licence(one.metadata),
    )
    return model, {"layout": f"classes of {output}"}


def _embedder(one: Opened, spec: ModelSpec) -> tuple[EmbedderModel, dict[str, str]]:
    preprocess, output, numbers = _row(one, spec, EMBED.name)
    model = EmbedderModel(
        module=OneOutput(one.network, output),
        transform=preprocess,
        preprocessing=str(preprocess),
        width=numbers.shape[1],
        input_size=_text(preprocess.output_size),
        licence=_licence(one.metadata),
    )
    return model, {"layout": f"features of {output}"}


def _half(
    one: Opened, spec: PairSpec, texts: EncodedTexts | None
) -> tuple[EmbedderModel | ZeroShotModel, dict[str, str], EncodedTexts]:
    """The half for images of a CLIP or SigLIP: an embedder, or a classifier of labels."""
    assert_usable(spec, (*CLASSIFIER_KEYS, "channels"))
    preprocess = _as_stated(one, row_preprocess(one.metadata, spec, one.size, spec.task.name), spec)
    scoring = scoring_of(spec, one.file.name) if isinstance(spec, ClassesSpec) else None
    is_projected = scoring is not None and not scoring.is_siglip
    module, width = image_features(one.network, preprocess.output_size, is_projected=is_projected)
    features = EmbedderModel(
        module=module,
        transform=preprocess,
        preprocessing=str(preprocess),
        width=width,
        takes_texts=True,
        input_size=_text(preprocess.output_size),
        licence=_licence(one.metadata),
    )
    parts = {"layout": f"features of {module.name}"}
    if texts is None:
        files = text_files(spec, is_projected=is_projected)
        if scoring is not None and isinstance(spec, ClassesSpec):
            texts = encoded_labels(spec, files.encode, files.tokenizer_sha256, scoring)
            texts = replace(texts, settings=files.settings | dict(texts.settings))
        else:
            texts = without_labels(files, width)
    return classifier_of(features, texts, scoring) if scoring else features, parts, texts


def _row(
    one: Opened, spec: ModelSpec, section: str, classes: int | None = None
) -> tuple[Preprocess, str, Tensor]:
    """The preprocessing of a classifier or embedder, its output's name, and that for an image of noise."""
    if one.network.others:
        raise ModelError(
            f"{one.file.name} wants more than images: its input {', '.join(map(str, one.network.others))}; "
            "allowed: one input"
        )
    assert_usable(spec, (*CLASSIFIER_KEYS, "channels"))  # what keeps an image's shape is for boxes
    preprocess = _as_stated(one, row_preprocess(one.metadata, spec, one.size, section), spec)
    answers = one.answers(preprocess.output_size)
    output = row_output(one.file, answers, section, classes)
    return preprocess, output, answers[output].flatten(1)


def _as_stated(one: Opened, usual: Preprocess, spec: ModelSpec) -> Preprocess:
    """The usual preprocessing with what the spec says; whole numbers stay 0 to 255.

    Raises:
        ModelError: the file takes whole numbers, and the spec makes others of them.
    """
    if one.network.image.dtype != "uint8":
        return with_spec(usual, spec.input)
    plain = replace(usual, scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    preprocess = with_spec(plain, spec.input)
    if (preprocess.scale, preprocess.mean, preprocess.std) != (plain.scale, plain.mean, plain.std):
        raise ModelError(
            f"input: makes fractions, but {one.file.name} takes whole numbers from 0 to 255; write `scale: "
            "1`, and leave mean and std out"
        )
    return preprocess


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
            "x width); leave it out, or export the file for another size"
        )
    size = one.size or given or one.metadata.size
    if size is None:
        raise UnstatedError(
            f"{one.file.name} takes images of any size and does not say which it was trained for; add "
            "`input: {size: 640}`, with its own number",
            *("input", {"size": 640}, "write the size that it was trained for"),
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
        raise UnstatedError(
            f"{name} does not say how {count} are called; add `categories: names.txt`, a text file with "
            "one name a line in the network's order, or a list",
            *("categories", [f"class_{number}" for number in range(classes or 1)], "one name a line"),
        )
    if classes is not None and len(names) != classes:
        raise ModelError(f"{where}: found {len(names)} class names, but {name} has {classes} classes")
    return names


def explain(model: str) -> Explanation:
    """What an ONNX file is taken for: by its metadata, else by its outputs.

    Raises:
        ModelError: it cannot be read or computed.
    """
    one = opened(ClassifierSpec(model=model))
    kind, why = _kind(one)
    facts = {
        "file": one.file.location,
        "sha256": one.file.sha256,
        "taken for": f"{with_article(kind.task.name)}, by {why}",
        **_own_facts(one),
    }
    stated: dict[str, UnstatedError] = {}
    while True:
        spec = kind.model_validate({"model": model, **{key: it.example for key, it in stated.items()}})
        try:
            built = build(one, spec)
        except UnstatedError as missing:
            if missing.key in stated:
                raise
            stated[missing.key] = missing
            facts[f"does not say {missing.key}"] = str(missing).partition("; add ")[0]
        except ModelError as error:
            facts["cannot be used"] = str(error)
            lines = ""
            break
        else:
            facts |= _facts_of(built, one, spec, stated)
            lines = _lines(kind.task.name, clean_uri(model), stated)
            break
    return Explanation(model=clean_uri(model), task=kind.task.name, source="onnx", facts=facts, spec=lines)


def _kind(one: Opened) -> tuple[type[ModelSpec], str]:
    """The section that a file is for, and what shows it."""
    kinds: dict[str, type[ModelSpec]] = {"detect": DetectorSpec, "classify": ClassifierSpec}
    if one.metadata.task in kinds:
        return kinds[one.metadata.task], f"its metadata: task {one.metadata.task}"
    declared = {port.name: tuple(length or 0 for length in port.shape) for port in one.file.outputs}
    shapes = one.usual_shapes() or declared
    listed = f"its output{'s' if len(shapes) > 1 else ''} {', '.join(map(str, one.file.outputs))}"
    if is_row(shapes.get(IMAGES, ())):
        return EmbedderSpec, f"{listed}: the half for images of a CLIP; `text_model` names that for texts"
    if not all(map(is_row, shapes.values())):
        return DetectorSpec, listed
    if all(scores_in(one.file, port.name) for port in one.file.outputs):
        return ClassifierSpec, f"{listed}, which are scores"
    return ClassifierSpec, f"{listed}; if these are features, it is an embedder"


def _own_facts(one: Opened) -> dict[str, str]:
    """What a file says of itself."""
    batch = one.network.static_batch
    return {
        "made by": f"{one.file.producer or 'not said'}, opset {one.file.opset}",
        "inputs": "; ".join(map(str, one.file.inputs)),
        "outputs": "; ".join(map(str, one.file.outputs)),
        "batch": "any" if batch is None else f"{batch} at a time",
        "metadata": short_line(", ".join(sorted(one.metadata.entries)) or "none", 200),
    }


def _facts_of(
    built: Built[Any], one: Opened, spec: ModelSpec, stated: Mapping[str, UnstatedError]
) -> dict[str, str]:
    """What a file is as a model, as far as it does not follow from an example for what has to be stated."""
    model, facts = built.model, {}
    if "input" not in stated:
        facts["input"] = model.input_size
    if not {"input", "layout"} & stated.keys():
        facts["preprocessing"] = model.preprocessing
    if not isinstance(spec, DetectorSpec):
        facts["layout"] = built.parts["layout"]
        if isinstance(model, ClassifierModel):
            facts["score type"] = model.score_type
    elif "layout" not in stated:
        layout = layout_in(one, spec)
        ours = layout.layout.nms_iou is not None
        facts["layout"] = f"{layout.layout.names[0]}: {layout.why}"
        facts["doubled boxes"] = "removed here (nms_iou)" if ours else "removed by the network"
    if "categories" not in stated and spec.task != EMBED:
        facts["classes"] = f"{len(model.categories)}: {short_line(', '.join(model.categories), 200)}"
    return facts


def _lines(section: str, model: str, stated: Mapping[str, UnstatedError]) -> str:
    """The lines for a job spec, with examples and comments for what has to be stated."""
    if not stated:
        return yaml.safe_dump({section: model}, width=sys.maxsize)
    lines = [f"{section}:", f"  model: {yaml.safe_dump(model, width=sys.maxsize).splitlines()[0]}"]
    for key, missing in stated.items():
        example = "names.txt" if key == "categories" else missing.example
        text = yaml.safe_dump(example, default_flow_style=True, sort_keys=False, width=1000).splitlines()[0]
        lines.append(f"  {key}: {text}  # {missing.comment}")
    return "\n".join(lines) + "\n"


def _licence(metadata: Metadata) -> str:
    return metadata.entries.get("license", "")[:200] or "of the file: not known"


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
