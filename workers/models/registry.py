"""Finds models by name, and loads them with a job's settings."""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from schemas.exceptions import ModelError
from schemas.models import EncodedTexts, Explanation, ModelInfo, ResolvedModel
from schemas.tasks import (
    CLASSIFY,
    DETECT,
    EMBED,
    TAG,
    TASKS,
    BoxChoice,
    ClassesSpec,
    ClassifierSpec,
    DetectorSpec,
    ModelSpec,
    Task,
    boxes_of,
)
from schemas.words import with_article
from workers.models.class_maps import folded_names
from workers.models.classifier import Classifier
from workers.models.detector import Detector
from workers.models.embedder import Embedder, as_embedder, assert_width
from workers.models.model import (
    Built,
    ClassifierModel,
    EmbedderModel,
    LoadedModel,
    Model,
    TextHalf,
    ZeroShotModel,
    versions,
)
from workers.models.objects import stable_repr
from workers.models.other_files import POSSIBLE, what_to_do
from workers.models.predictor import Predictor
from workers.models.runner import Runner, RunnerOptions, by_network, shared_model
from workers.models.settings import assert_classes
from workers.models.source import Source
from workers.models.sources import (
    efficientnet_lite0,
    factory,
    nanodet,
    onnx_files,
    timm_models,
    torchvision_models,
    transformers_folders,
)
from workers.models.tagger import Tagger
from workers.models.tiled import MODULES as OF_TILES
from workers.models.tiled import TiledRunner
from workers.models.tiles import Tiling
from workers.models.weights import assert_finite
from workers.printable import short_line
from workers.storage.uris import clean_uri

SOURCES: tuple[Source, ...] = (
    efficientnet_lite0.SOURCE,
    nanodet.SOURCE,
    onnx_files.OnnxFiles(),
    factory.Factories(),
    transformers_folders.TransformersFolders(),
    torchvision_models.TorchvisionModels(),
    timm_models.TimmModels(),
)
"""Where models come from, in the order in which they are listed and asked for a name."""

PREDICTORS: dict[Task, type[Predictor[Any]]] = {
    kind.task: kind for kind in (Classifier, Detector, Embedder, Tagger)
}
"""What reads the answers of the models of each task."""


def list_models(*, timm: bool = False) -> list[ModelInfo]:
    """Every model that a job spec can name: the built-in ones first, then torchvision's, then timm's.

    Args:
        timm: whether to list timm's too (over a thousand).
    """
    return [
        source.describe(name, task)
        for source in SOURCES
        if timm or not source.on_request
        for task in TASKS
        if task.serve is None
        for name in source.names(task)
    ]


def explain(model: str) -> Explanation:
    """What a job spec's `model` is taken for, and why, with the lines to write.

    Raises:
        ModelError: it is no model, or its file cannot be read or computed.
    """
    specs: list[ModelSpec] = [DetectorSpec(model=model), ClassifierSpec(model=model)]
    for source in SOURCES:
        for spec in specs:
            if source.takes(spec):
                return _explained(source, spec)
    raise _unknown(specs[0])


def _explained(source: Source, spec: ModelSpec) -> Explanation:
    """What a source says of a model, without secrets."""
    with _secrets_kept(spec):
        found = source.explain(spec)
    return found.model_copy(
        update={"model": clean_uri(spec.model), "spec": _without_secrets(found.spec, spec)}
    )


NO_TEXTS: Mapping[str, EncodedTexts] = {}


def load_all(
    specs: Mapping[str, ModelSpec], texts: Mapping[str, EncodedTexts] = NO_TEXTS
) -> dict[str, LoadedModel[Any, Any]]:
    """The models of a job, by name; see `load`.

    Args:
        specs: by name.
        texts: the labels of zero-shot models that were encoded before, by the models' names.

    Raises:
        ModelError: of one of them, with its name, which is the key of its section.
    """
    loaded = {}
    for name, spec in specs.items():
        try:
            loaded[name] = load(spec, texts.get(name))
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error
    return {name: _with_boxes(name, model, loaded.get(DETECT.name)) for name, model in loaded.items()}


def _with_boxes(
    name: str, loaded: LoadedModel[Any, Any], detector: LoadedModel[Any, Any] | None
) -> LoadedModel[Any, Any]:
    """A model with the detector's identity in its own, where it gets that one's boxes.

    Raises:
        ModelError: it asks for classes that the detector does not have, or there is no detector.
    """
    if (boxes := boxes_of(loaded.spec)) is None:
        return loaded
    if detector is None:
        raise ModelError(f"{name}: `on: boxes` needs a detector, whose boxes it gets")
    assert_classes(boxes.classes, detector.model, f"{name}.classes", detector.spec.model)
    settings = loaded.resolved.settings | {
        "on": "boxes",
        "classes": list(boxes.classes),
        "margin": boxes.margin,
        "max_boxes": boxes.most,
        "detector": detector.resolved.fingerprint,
    }
    return dataclasses.replace(loaded, resolved=loaded.resolved.model_copy(update={"settings": settings}))


def load(spec: ModelSpec, texts: EncodedTexts | None = None) -> LoadedModel[Any, Any]:
    """The model of a job spec, on the CPU, in eval mode, with the spec's settings in it.

    Args:
        spec: its section.
        texts: its labels, encoded, so that its half for texts is not loaded; None: it encodes them.

    Raises:
        ModelError: the name is unknown or of another task; the weights or the categories do not fit; a
            setting does not fit the model.
    """
    with _secrets_kept(spec):
        return _loaded(spec, texts)


def load_text_half(spec: ModelSpec) -> TextHalf:
    """The half of a model that is for texts, on the CPU.

    Raises:
        ModelError: it has none, or it cannot be read.
    """
    with _secrets_kept(spec):
        return _source_of(spec).text_half(spec)


@contextmanager
def _secrets_kept(spec: ModelSpec) -> Iterator[None]:
    """Tells errors of a model in the block as `_without_secrets` does."""
    try:
        yield
    except ModelError as error:
        raise ModelError(_without_secrets(str(error), spec)) from error.__cause__


def _without_secrets(text: str, spec: ModelSpec) -> str:
    """A text in which a model's URLs stand as they were given, without their users and queries."""
    for url in filter(None, (spec.model, spec.weights, getattr(spec, "text_model", None))):
        text = text.replace(url, clean_uri(url))
    return text


def _source_of(spec: ModelSpec) -> Source:
    """Where a model comes from.

    Raises:
        ModelError: nowhere has it.
    """
    source = next((one for one in SOURCES if one.takes(spec)), None)
    if source is None:
        raise _unknown(spec)
    return source


def _loaded(spec: ModelSpec, texts: EncodedTexts | None) -> LoadedModel[Any, Any]:
    task = spec.task
    source = _source_of(spec)
    source.assert_settings(spec)
    built = source.build(spec) if texts is None else source.build_with(spec, texts)
    built.model.module.eval()
    assert_finite(_modules(built.model), spec.model, built.weights)
    if task == EMBED and isinstance(built.model, ClassifierModel):
        built = dataclasses.replace(built, model=as_embedder(built.model, spec.model))
    if isinstance(built.model, EmbedderModel):
        assert_width(built.model.width, spec.model)
    if names := folded_names(spec, built.model.categories):
        built = dataclasses.replace(built, model=dataclasses.replace(built.model, names=names))
    readers = _readers(spec)
    settings: dict[str, object] = {}
    for reader in readers:
        settings |= reader.apply(spec, built.model)
    tiled = OF_TILES if isinstance(spec, DetectorSpec) and spec.tiles else ()
    modules = (*(reader.__module__ for reader in readers), *source.modules, *tiled)
    return LoadedModel(built.model, spec, _resolved(spec, built, settings, modules))


def _readers(spec: ModelSpec) -> list[type[Predictor[Any]]]:
    """What reads the answers of a model: a classifier with a threshold has tags as well."""
    also = [PREDICTORS[TAG]] if spec.task == CLASSIFY and spec.tables else []
    return [PREDICTORS[spec.task], *also]


def runners_of(models: Mapping[str, LoadedModel[Any, Any]], options: RunnerOptions) -> list[Runner]:
    """What computes the loaded models of a job, by name; a network that several of them have, once."""
    return [runner for group in by_network(models) for runner in _runners_of_network(group, options)]


def _runners_of_network(
    models: Mapping[str, LoadedModel[Any, Any]], options: RunnerOptions
) -> Iterator[Runner]:
    """What computes models of one network: once for each kind of images that they get."""
    predictors: dict[BoxChoice | None, list[Predictor[Any]]] = {}
    for name, loaded in models.items():
        boxes = boxes_of(loaded.spec)
        predictors.setdefault(boxes, []).extend(reader(name, loaded) for reader in _readers(loaded.spec))
    runner: Runner | None = None
    for boxes, readers in predictors.items():
        if runner is None:
            model = shared_model([loaded.model for loaded in models.values()])
            runner = _runner(model, readers, options, boxes)
            yield runner
        else:
            yield runner.read_by(readers, boxes)


def _runner(
    model: Model, readers: Sequence[Predictor[Any]], options: RunnerOptions, boxes: BoxChoice | None
) -> Runner:
    match readers:
        case [Detector(tiling=Tiling() as tiling) as detector]:
            return TiledRunner(model, detector, tiling, options)
    return Runner(model, readers, options, boxes)


def _unknown(spec: ModelSpec) -> ModelError:
    """The error for a name that is not a model of this task, with similar names or what is possible."""
    if message := what_to_do(spec):
        return ModelError(message)
    name, task = spec.model, spec.task
    others = [other for other in TASKS if other != task and other.serve is None]
    for other in others:
        if any(source.has(name, other) for source in SOURCES):
            return ModelError(
                f"{name} is {with_article(other.name)}, not {with_article(task.name)}; name it under "
                f"`{other.name}:` in the job spec"
            )
    hint = "."
    if close := _similar(name, task, 3):
        hint = f"; did you mean {' or '.join(close)}?"
    else:
        for other in others:
            for near in _similar(name, other, 1):
                hint = f"; {near} is {with_article(other.name)}: name it under `{other.name}:`."
    return ModelError(
        f"there is no {task.name} {name!r}{hint} `raylabel models` lists them all; allowed: {POSSIBLE}"
    )


def _similar(name: str, task: Task, most: int) -> list[str]:
    """Up to so many names of models of a task that a name resembles."""
    on_request = name.startswith(timm_models.PREFIX)
    sources = [source for source in SOURCES if source.on_request == on_request]
    pool = [known for source in sources for known in source.names(task.serve or task)]
    for wanted in (name, name.removeprefix(torchvision_models.PREFIX)):
        if close := difflib.get_close_matches(wanted, pool, n=most):
            return close
    return []


def _resolved(
    spec: ModelSpec, built: Built[Any], settings: dict[str, object], modules: tuple[str, ...]
) -> ResolvedModel:
    """The entry of a model in run.json: everything that decides its answers."""
    model = built.model
    # onnxruntime computes at most the network; torch exports it, and computes all the rest
    computed_by = versions("torch", *(["onnxruntime"] if model.network is not None else []))
    info = ModelInfo(
        name=spec.name,
        task=spec.task.name,
        source=built.source,
        input_size=model.input_size,
        categories=len(model.categories),
        licence=model.licence,
        quality=model.quality,
    )
    return ResolvedModel(
        info=info,
        weights=built.weights,
        weights_sha256=built.weights_sha256,
        preprocessing=model.preprocessing or stable_repr(model.transform),
        categories=model.categories,
        names=model.names,
        settings=settings
        | _given(spec, "options", "state")
        | dict(built.texts.settings if built.texts else {}),
        code=f"{built.code}, {computed_by}",
        modules=modules,
        parts=built.parts,
        tables=spec.tables,
        width=model.width if spec.task == EMBED else None,
        takes_texts=isinstance(model, EmbedderModel) and model.takes_texts,
        texts=built.texts,
        notes=tuple(
            _without_secrets(note, spec)
            for note in (
                *_score_notes(spec, model),
                *_merge_notes(spec, settings),
                *_name_notes(spec, built),
                *(built.texts.notes if built.texts else ()),
            )
        ),
    )


def _given(spec: ModelSpec, *names: str) -> dict[str, object]:
    """Those of some settings that a spec has."""
    return {name: value for name in names if (value := getattr(spec, name))}


def _modules(model: Model) -> list[nn.Module]:
    """The modules that have a model's tensors."""
    others = (model.with_features,) if isinstance(model, ClassifierModel) else ()
    others = (*others, model.head) if isinstance(model, ZeroShotModel) else others
    return [module for module in (model.module, *others) if module is not None]


def _name_notes(spec: ModelSpec, built: Built[Any]) -> tuple[str, ...]:
    """Names that several classes of a file of the user's have, where no others are stated."""
    model = built.model
    if built.source not in ("onnx", "transformers") or spec.categories is not None or model.names:
        return ()
    numbers: dict[str, list[str]] = {}
    for number, name in enumerate(model.categories):
        numbers.setdefault(name, []).append(str(number))
    several = [f"{short_line(name)!r} ({', '.join(ids)})" for name, ids in numbers.items() if len(ids) > 1]
    if not several:
        return ()
    return (
        f"{spec.model} has one name for several classes, which count as one in the tables: "
        f"{short_line('; '.join(several), 200)}; state `categories:` to tell them apart",
    )


def _merge_notes(spec: ModelSpec, settings: Mapping[str, object]) -> tuple[str, ...]:
    """What a class map cannot do in a detector that suppresses boxes itself, by its own classes."""
    if (iou := settings.get("merge_iou")) is None:
        return ()
    return (
        f"class_map: {spec.model} suppresses doubled boxes by its own classes, before they are folded; of "
        f"boxes of classes with one new name that overlap more than {iou:g}, the best is kept afterwards",
    )


def _score_notes(spec: ModelSpec, model: Model) -> tuple[str, ...]:
    """What may not be as intended; how weights of a file were trained is not known."""
    asked = spec.score_type if isinstance(spec, ClassesSpec) else None
    trained = model.score_type if isinstance(model, ClassifierModel) else None
    if asked in (None, trained) or (spec.weights and re.search(r"[./]", spec.weights)):
        return ()
    if asked == "none":
        why = "its answers are logits, and no scores from 0 to 1"
        return (f"score_type is none, but {spec.model} was trained with {trained}: {why}",)
    why = "scores of one class say nothing" if asked == "sigmoid" else "scores of all classes add up to 1"
    return (f"score_type is {asked}, but {spec.model} was trained with {trained}: {why}",)
