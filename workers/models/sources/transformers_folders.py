"""Hugging Face folders: a network of transformers', its tensors as safetensors, its image processor."""

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import yaml
from torch import nn

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
    ModelSpec,
    Task,
    has_labels,
)
from schemas.words import counted, with_article
from workers.models.embedder import LastInput
from workers.models.model import (
    Built,
    ClassifierModel,
    DetectorModel,
    EmbedderModel,
    Model,
    ScoreType,
    TextHalf,
    ZeroShotModel,
    as_is,
    versions,
)
from workers.models.onnx.network import OnnxFileNetwork
from workers.models.onnx.pairs import (
    CLIP_SCALE,
    classifier_of,
    encoded_labels,
    folder_encoder,
    half_of,
    image_features,
    scoring_of,
)
from workers.models.settings import assert_no_blank, given_categories, replace_categories
from workers.models.source import Source, no_labels, no_texts
from workers.models.transformers.folder import Folder, opened
from workers.models.transformers.network import (
    Architecture,
    architecture_of,
    kind_of,
    lacks_pooler,
    load_network,
)
from workers.models.transformers.networks import (
    VECTORS,
    ImageFeatures,
    LabelledObjects,
    Logits,
    Objects,
    RawLabelledObjects,
    RawPhrases,
    vector_of,
)
from workers.models.transformers.processor import Processor, load_processor
from workers.models.transformers.texts import TextEncoder, drop_images, drop_texts, encode_labels, encoder_of
from workers.models.zero_shot import classifier_of_texts
from workers.printable import short_line

LICENCE = "see the folder's README.md"

WING = (
    *(f"workers.models.transformers.{name}" for name in ("folder", "network", "networks", "processor")),
    *("workers.models.transformers.texts", "workers.models.zero_shot"),
    *(f"workers.models.onnx.{name}" for name in ("pairs", "file", "network", "scores")),
)
"""The further modules that build a model of a folder, and compute it."""


class TransformersFolders(Source):
    """Folders with `config.json`, at a path or a URL."""

    takes_labels = True

    @property
    def modules(self) -> tuple[str, ...]:
        """See `Source.modules`."""
        return (*super().modules, *WING)

    def names(self, task: Task) -> list[str]:  # noqa: ARG002 - they have no names
        """See `Source.names`."""
        return []

    def takes(self, spec: ModelSpec) -> bool:
        """See `Source.takes`."""
        return spec.is_folder

    def describe(self, name: str, task: Task) -> ModelInfo:
        """None is listed."""
        raise NotImplementedError

    def explain(self, spec: ModelSpec) -> Explanation:
        """See `Source.explain`."""
        return explain(spec)

    def build(self, spec: ModelSpec) -> Built[Any]:
        """See `build`."""
        return build(spec)

    def build_with(self, spec: ModelSpec, texts: EncodedTexts) -> Built[Any]:
        """See `build`."""
        return build(spec, texts)

    def text_half(self, spec: ModelSpec) -> TextHalf:
        """See `text_half`."""
        return text_half(spec)


def build(spec: ModelSpec, texts: EncodedTexts | None = None) -> Built[Any]:
    """The model of a Hugging Face folder: equal to transformers' pipelines for one image at a time.

    Args:
        spec: its section.
        texts: its labels, encoded; None: its half for texts encodes them, and is dropped then.

    Raises:
        ModelError: the folder is none, is not whole, or holds a model of another task; transformers is not
            installed; the spec's class names are not as many as the model's classes, or it has weights beside
            the folder.
    """
    if spec.weights is not None:
        raise ModelError(
            f"weights: found {spec.weights} for a Hugging Face folder, which has its own; leave weights out"
        )
    labelled = has_labels(spec)
    first = partial(_assert_task, spec)
    with opened(spec.model, spec.sha256, first, with_tokenizer=labelled and texts is None) as folder:
        architecture = architecture_of(folder)
        if folder.pair:
            return _pair(spec, folder, architecture, texts)
        _assert_own_scale(spec, folder.location)
        return (
            _zero_shot(spec, folder, architecture, texts) if labelled else _built(spec, folder, architecture)
        )


def _assert_own_scale(spec: ModelSpec, location: str) -> None:
    """Raises ModelError for what is stated of scores, where the tensors say it."""
    for key in ("logit_scale", "logit_bias"):
        if getattr(spec, key, None) is not None:
            raise ModelError(
                f"{key}: found for {location}, whose tensors have it; allowed: for ONNX files. Leave it out"
            )


def _pair(
    spec: ModelSpec, folder: Folder, architecture: Architecture, texts: EncodedTexts | None
) -> Built[Any]:
    """The model of a folder whose halves for images and texts are ONNX files."""
    assert folder.pair is not None
    _assert_halves(folder, architecture)
    processor = load_processor(folder, architecture)
    if processor.shape is None:
        raise ModelError(
            f"the image processor of {folder.location} makes inputs of several shapes; allowed: of one"
        )
    network = OnnxFileNetwork(half_of(folder, folder.pair[0]))
    module, width = image_features(network, processor.shape, is_projected=not architecture.is_siglip)
    model: Model
    model = features = EmbedderModel(
        module=module,
        transform=processor,
        width=width,
        takes_texts=True,
        channels_last=False,
        transform_on_device=processor.on_device,
        input_size=processor.size(),
        preprocessing=processor.text(),
        licence=LICENCE,
    )
    if isinstance(spec, ClassesSpec):
        scoring = scoring_of(spec, folder.location, is_siglip=architecture.is_siglip)
        texts = texts or encoded_labels(
            spec, folder_encoder(folder, architecture), folder.tokenizer_sha256, scoring
        )
        model = classifier_of(features, texts, scoring)
    folder.assert_unchanged()
    code = f"{architecture.libraries}, {versions('onnxruntime')}"
    return Built(model, "transformers", folder.location, folder.sha256, code, texts=texts)


def _assert_halves(folder: Folder, architecture: Architecture) -> None:
    """Raises ModelError for a folder of two ONNX files that is no CLIP or SigLIP."""
    if architecture.task != EMBED or not architecture.takes_texts:
        raise ModelError(
            f"{folder.location} has two ONNX files ({' and '.join(folder.pair or ())}), but is "
            f"{with_article(architecture.name)}; allowed: a CLIP or SigLIP (CLIPModel, SiglipModel)"
        )


def _built(spec: ModelSpec, folder: Folder, architecture: Architecture) -> Built[Any]:
    """The model of a folder, whose files are on this machine."""
    score_type = score_type_of(folder, architecture) if architecture.task == CLASSIFY else "softmax"
    categories = _categories(spec, folder, architecture)
    processor = load_processor(folder, architecture)
    network = load_network(folder, architecture, lambda whole: _drop_texts(whole, architecture))
    folder.assert_unchanged()
    model: Model
    if architecture.task == DETECT:
        model = _detector(network, processor, categories)
    elif architecture.task == CLASSIFY:
        model = _classifier(network, processor, categories, score_type)
    else:
        model = _embedder(network, processor, without_pooler=lacks_pooler(folder, architecture))
        model = replace(model, takes_texts=architecture.takes_texts)
    model = replace(model, input_size=processor.size(), preprocessing=processor.text(), licence=LICENCE)
    return Built(model, "transformers", folder.location, folder.sha256, architecture.libraries)


def text_half(spec: ModelSpec) -> TextHalf:
    """The half for texts of a folder of CLIP or SigLIP; that for images is not loaded.

    Raises:
        ModelError: the folder is none, is not whole, or has no such half.
    """
    with opened(spec.model, spec.sha256, with_tokenizer=True) as folder:
        architecture = architecture_of(folder)
        if architecture.task != EMBED or not architecture.takes_texts:
            raise ModelError(no_texts(f"{folder.location} ({architecture.name})"))
        encoder = (
            folder_encoder(folder, architecture)
            if folder.pair
            else encoder_of(folder, architecture, load_network(folder, architecture, drop_images))
        )
        folder.assert_unchanged()
        assert isinstance(encoder, TextEncoder)
        return TextHalf(encoder, folder.sha256, architecture.libraries)


def _drop_texts(network: nn.Module, architecture: Architecture) -> None:
    if architecture.task == EMBED:
        drop_texts(network, architecture)


def _zero_shot(
    spec: Any, folder: Folder, architecture: Architecture, texts: EncodedTexts | None
) -> Built[Any]:
    """A model whose classes are the labels of a spec."""
    processor = load_processor(folder, architecture)
    encoded: list[EncodedTexts] = [texts] if texts else []

    def encode(network: nn.Module) -> None:
        if not encoded:
            encoder = encoder_of(folder, architecture, network)
            labels = encode_labels(spec, encoder, folder.tokenizer_sha256, is_siglip=architecture.is_siglip)
            encoded.append(labels)
        drop_texts(network, architecture)

    network = load_network(folder, architecture, encode)
    folder.assert_unchanged()
    model: Model
    if architecture.task == DETECT:
        model = _labelled_detector(network, processor, architecture, encoded[0])
    else:
        model = _zero_shot_classifier(network, processor, architecture, encoded[0])
    model = replace(model, input_size=processor.size(), preprocessing=processor.text(), licence=LICENCE)
    return Built(
        *(model, "transformers", folder.location, folder.sha256, architecture.libraries), texts=encoded[0]
    )


def explain(spec: ModelSpec) -> Explanation:
    """What a folder is taken for, and why; it is built to see whether it can be.

    Raises:
        ModelError: its files are not whole, or say nothing that it may be taken for.
    """
    with opened(spec.model, spec.sha256, kind_of, with_tokenizer=True) as folder:
        architecture = architecture_of(folder)
        processor = load_processor(folder, architecture)
        numbers = sum(torch.Size(shape).numel() for shape in folder.tensors.values())
        task = architecture.task
        facts = {
            "folder": folder.location,
            "files": f"{', '.join(folder.files)} ({folder.bytes:,} bytes)",
            "sha256": folder.sha256,
            "taken for": f"{with_article(task.name)}: config.json has architectures {architecture.name}",
            "halves": " and ".join(folder.pair or ()),
            "tensors": f"{len(folder.tensors):,}, {counted(numbers, 'number')}, computed in float32",
            "input": processor.size(),
            "preprocessing": processor.text(),
        }
        del facts["tensors" if folder.pair else "halves"]
        if architecture.takes_texts:
            facts["classes"] = "the `labels` of the job spec: texts"
            if folder.pair:
                facts["scores"] = _SCORES_OF_PAIRS["SigLIP" if architecture.is_siglip else "CLIP"]
        elif task != EMBED:
            facts["classes"] = f"{len(architecture.categories):,}: {_first(architecture.categories)}"
        if task == CLASSIFY:
            asked = folder.config.get("problem_type")
            facts["scores"] = f"{score_type_of(folder, architecture)}: problem_type is {asked or 'not set'}"
        facts["computed by"] = architecture.libraries
        try:
            _try(spec.model, folder, architecture)
            if why := _no_encoder(folder, architecture):
                facts["labels cannot be used"] = why
            lines = _lines(folder, architecture, with_labels=not why)
        except ModelError as error:
            facts["cannot be used"], lines = str(error), ""
        return Explanation(
            model=folder.location, task=task.name, source="transformers", facts=facts, spec=lines
        )


def _try(location: str, folder: Folder, architecture: Architecture) -> None:
    """Builds a model as a job would, with labels where it needs some.

    Raises:
        ModelError: it cannot be built.
    """
    if architecture.finds_texts:
        _zero_shot(DetectorSpec(model=location, labels=["cat"]), folder, architecture, None)
    elif folder.pair:
        _pair(EmbedderSpec(model=location), folder, architecture, None)
    else:
        _built(_SPECS[architecture.task](model=location), folder, architecture)


def _no_encoder(folder: Folder, architecture: Architecture) -> str:
    """Why labels cannot be given to an embedder that has a half for texts; "": they can."""
    if not (architecture.task == EMBED and architecture.takes_texts):
        return ""
    spec, build_labelled = (
        ClassifierSpec(**_labelled(folder, architecture)),
        _pair if folder.pair else _zero_shot,
    )
    try:
        build_labelled(spec, folder, architecture, None)
    except ModelError as error:
        return str(error)
    return ""


_SCORES_OF_PAIRS = {
    "CLIP": f"softmax; logit_scale {CLIP_SCALE:g}, unless the job spec says another",
    "SigLIP": "sigmoid; the files do not say logit_scale and logit_bias: those below are an example",
}
"""What is said of the scores of ONNX files."""


_SPECS: dict[Task, type[ModelSpec]] = {
    CLASSIFY: ClassifierSpec,
    DETECT: DetectorSpec,
    EMBED: EmbedderSpec,
}
"""The section of the job spec that a folder is named under."""


def _labelled(folder: Folder, architecture: Architecture) -> dict[str, Any]:
    """An example of a section with labels; the numbers of a SigLIP are made up."""
    labelled = {"model": folder.location, "labels": ["cat", "red car"]}
    made_up = {"logit_scale": 117.3, "logit_bias": -12.9}
    return labelled | (made_up if folder.pair and architecture.is_siglip else {})


def _lines(folder: Folder, architecture: Architecture, *, with_labels: bool) -> str:
    """What to write into a job spec; whether also for labels, where it has a half for texts."""
    task = architecture.task

    def written(section: Any) -> str:
        return yaml.safe_dump(section, width=sys.maxsize, sort_keys=False)

    if not (architecture.takes_texts and with_labels):
        return written({task.name: folder.location})
    labelled = _labelled(folder, architecture)
    if task == DETECT:
        return written({task.name: labelled | ({"prompt": "{}."} if architecture.sees_tokens else {})})
    tagger = labelled | {"prompt": "a photo of {}"}
    return written({task.name: folder.location}) + written({"taggers": {"objects": tagger}})


def score_type_of(folder: Folder, architecture: Architecture) -> ScoreType:
    """How a classifier's logits become scores, as transformers' pipeline does it.

    Raises:
        ModelError: its numbers are no scores.
    """
    asked = architecture.config.problem_type
    if asked == "regression":
        raise ModelError(
            f"{folder.location} answers with numbers that are no scores (problem_type is regression in its "
            "config.json); allowed: single_label_classification, multi_label_classification"
        )
    several = asked == "multi_label_classification" or len(architecture.categories) == 1
    return "sigmoid" if several else "softmax"


def _assert_task(spec: ModelSpec, config: Mapping[str, Any], location: str) -> None:
    """Refuses a folder of another task than its section, by its `config.json` alone.

    Raises:
        ModelError: it is of another, or of none.
    """
    kind = kind_of(config, location)
    asked, own = spec.task.serve or spec.task, kind.task
    labelled = has_labels(spec)
    compares = kind.takes_texts and own == EMBED and asked == CLASSIFY and spec.task != EMBED
    if labelled and (compares or (own == asked and kind.finds_texts)):
        return
    if labelled and not kind.takes_texts:
        raise ModelError(no_labels(f"{location} ({kind.name})"))
    if own == asked and kind.finds_texts:
        raise ModelError(
            f"{location} is a detector of what texts say ({kind.name}); add `labels:`, the "
            "classes that it is to find, such as `labels: [cat, red car]`"
        )
    if own == asked or (spec.task == EMBED and own in (CLASSIFY, EMBED)):
        return
    also = (
        f", or add `labels:`, the texts that {with_article(spec.task.name)} is to tell apart"
        if compares
        else ""
    )
    raise ModelError(
        f"{location} is {with_article(own.name)} ({kind.name}), not "
        f"{with_article(spec.task.name)}; name it under `{own.name}:` in the job spec{also}"
    )


def _categories(spec: ModelSpec, folder: Folder, architecture: Architecture) -> tuple[str, ...]:
    """Class names by class id; an embedder of image features alone has none."""
    own = () if architecture.task == EMBED else architecture.categories
    assert_no_blank(own, f"config.json of {folder.location}: id2label")
    return replace_categories(own, given_categories(spec), folder.location)


def _classifier(
    network: nn.Module, processor: Processor, categories: tuple[str, ...], score_type: ScoreType
) -> ClassifierModel:
    module = Logits(network)
    both = LastInput(module)
    has_head = both.classes == len(categories)  # else what its last layer gets is no feature
    return ClassifierModel(
        module=module,
        transform=processor,
        categories=categories,
        score_type=score_type,
        with_features=both if has_head else None,
        width=both.width if has_head else 0,
        network="",
        mixes_shapes=processor.shape is not None,
        channels_last=False,
        transform_on_device=processor.on_device,
    )


def _detector(network: nn.Module, processor: Processor, categories: tuple[str, ...]) -> DetectorModel:
    return DetectorModel(
        module=Objects(network, processor),
        transform=as_is,
        categories=categories,
        network=None if processor.shape is None else "network",
        unordered=True,
        channels_last=False,
        transform_on_device=processor.on_device,
    )


def _zero_shot_classifier(
    network: Any, processor: Processor, architecture: Architecture, texts: EncodedTexts
) -> ZeroShotModel:
    """CLIP or SigLIP as a classifier of encoded labels."""
    bias, scale = getattr(network, "logit_bias", None), float(network.logit_scale.exp())
    if not math.isfinite(scale):
        raise ModelError(
            f"logit_scale of {architecture.name} is {float(network.logit_scale):g}, which makes no score; "
            "take the weights of an earlier step of the training, or convert them again"
        )
    return classifier_of_texts(
        _embedder(network, processor, without_pooler=False),
        texts,
        scale=scale,
        bias=0.0 if bias is None else float(bias),
        is_siglip=architecture.is_siglip,
    )


def _labelled_detector(
    network: nn.Module, processor: Processor, architecture: Architecture, texts: EncodedTexts
) -> DetectorModel:
    vectors = [torch.from_numpy(vector) for vector in texts.vectors]
    raw: nn.Module
    if architecture.sees_tokens:
        raw = RawPhrases(network, vectors, [torch.from_numpy(tokens) for tokens in texts.tokens])
    else:
        raw = RawLabelledObjects(network, torch.stack(vectors))
    has_one_graph = processor.shape is not None and not architecture.sees_tokens
    return DetectorModel(
        module=LabelledObjects(raw, processor),
        transform=as_is,
        categories=texts.labels,
        network="network" if has_one_graph else None,
        channels_last=False,
        transform_on_device=processor.on_device,
    )


def _embedder(network: nn.Module, processor: Processor, *, without_pooler: bool) -> EmbedderModel:
    example = processor(torch.zeros(3, 64, 64, dtype=torch.uint8))[None]
    try:
        with torch.inference_mode():
            module = ImageFeatures(network, vector_of(network, example, without_pooler=without_pooler))
            features = module(example)
    except ModelError:
        raise
    except Exception as error:  # networks raise anything
        raise ModelError(
            f"{type(network).__name__} gives no vector for an image of {_sides(example)} pixels, which the "
            f"folder's image processor makes: {type(error).__name__}: {short_line(str(error), 300)}"
        ) from None
    if features.ndim != 2:
        raise ModelError(
            f"{type(network).__name__} gives {tuple(features.shape)} for an image; allowed: one vector "
            f"({VECTORS[module.vector]})"
        )
    return EmbedderModel(
        module=module,
        transform=processor,
        width=features.shape[1],
        network="",
        mixes_shapes=processor.shape is not None,
        channels_last=False,
        transform_on_device=processor.on_device,
    )


def _sides(example: torch.Tensor) -> str:
    """The height and width of an input, as text."""
    return "x".join(map(str, example.shape[-2:]))


def _first(names: tuple[str, ...], most: int = 10) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
