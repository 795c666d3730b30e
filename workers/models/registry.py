"""Finds models by name, and loads them with a job's settings."""

import difflib
from typing import Any

from schemas.exceptions import ModelError
from schemas.models import ModelInfo, ResolvedModel
from schemas.spec import ClassifierSpec, DetectorSpec, ModelSpec
from workers.models.model import (
    Built,
    ClassifierModel,
    DetectorModel,
    LoadedClassifier,
    LoadedDetector,
    Task,
    versions,
)
from workers.models.objects import stable_repr
from workers.models.settings import apply_settings, thresholds_by_class
from workers.models.sources import efficientnet_lite0, factory, nanodet, timm_models, torchvision_models

_BUILT_IN: dict[str, Task] = {efficientnet_lite0.NAME: "classifier", nanodet.NAME: "detector"}
_TORCHVISION = "torchvision/"


def list_models(*, timm: bool = False) -> list[ModelInfo]:
    """Every model that a job spec can name: the built-in ones first, then torchvision's, then timm's.

    Args:
        timm: whether to list timm's too (over a thousand).
    """
    classifiers = [
        torchvision_models.describe(x, "classifier") for x in torchvision_models.classifier_names()
    ]
    detectors = [torchvision_models.describe(x, "detector") for x in torchvision_models.detector_names()]
    others = [timm_models.describe(name) for name in timm_models.names()] if timm else []
    return [efficientnet_lite0.describe(), nanodet.describe(), *classifiers, *detectors, *others]


def load_classifier(spec: ClassifierSpec) -> LoadedClassifier:
    """The classifier of a job spec, on the CPU, in eval mode.

    Raises:
        ModelError: the name is unknown or a detector's; the weights or the categories do not fit.
    """
    built = _classifier(spec)
    score_type = spec.score_type or built.model.score_type
    resolved = _resolved(spec, "classifier", built, {"top_k": spec.top_k, "score_type": score_type})
    return LoadedClassifier(built.model, spec.top_k, score_type, resolved)


def load_detector(spec: DetectorSpec) -> LoadedDetector:
    """The detector of a job spec, on the CPU, in eval mode, with the spec's thresholds in it.

    Raises:
        ModelError: the name is unknown or a classifier's; the weights or the categories do not fit; it has
            no class that a threshold names.
    """
    built = _detector(spec)
    thresholds = thresholds_by_class(spec, built.model.categories)
    apply_settings(built.model.module, spec)
    settings = spec.model_dump(include={"score_threshold", "class_thresholds", "nms_iou", "max_boxes"})
    return LoadedDetector(
        built.model, thresholds, spec.max_boxes, _resolved(spec, "detector", built, settings)
    )


def _classifier(spec: ClassifierSpec) -> Built[ClassifierModel]:
    if spec.model == efficientnet_lite0.NAME:
        return efficientnet_lite0.build_classifier(spec)
    if spec.is_factory:
        return factory.build(spec, ClassifierModel)
    if spec.model in timm_models.names() or spec.model.partition(".")[0] in timm_models.names():
        return timm_models.build_classifier(spec.model, spec)
    name = spec.model.removeprefix(_TORCHVISION)
    if name in torchvision_models.classifier_names():
        return torchvision_models.build_classifier(name, spec)
    raise _unknown(spec.model, "classifier")


def _detector(spec: DetectorSpec) -> Built[DetectorModel]:
    if spec.model == nanodet.NAME:
        return nanodet.build_detector(spec)
    if spec.is_factory:
        return factory.build(spec, DetectorModel)
    name = spec.model.removeprefix(_TORCHVISION)
    if name in torchvision_models.detector_names():
        return torchvision_models.build_detector(name, spec)
    raise _unknown(spec.model, "detector")


def _unknown(name: str, task: Task) -> ModelError:
    """The error for a name that is not a model of this task, with similar names."""
    names: dict[Task, list[str]] = {
        "classifier": torchvision_models.classifier_names(),
        "detector": torchvision_models.detector_names(),
    }
    for built_in, its_task in _BUILT_IN.items():
        names[its_task].append(built_in)
    bare = name.removeprefix(_TORCHVISION)
    other: Task = "detector" if task == "classifier" else "classifier"
    if bare in names[other] or (task == "detector" and name.startswith(timm_models.PREFIX)):
        return ModelError(f"{name} is a {other}, not a {task}; name it under `{other}:` in the job spec")
    pool = timm_models.names() if name.startswith(timm_models.PREFIX) else names[task]
    close = difflib.get_close_matches(name, pool, n=3) or difflib.get_close_matches(bare, pool, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    return ModelError(f"there is no {task} {name!r}{hint} `raylabel models` lists them all")


def _resolved(spec: ModelSpec, task: Task, built: Built[Any], settings: dict[str, object]) -> ResolvedModel:
    """The entry of a model in run.json: everything that decides its answers."""
    model = built.model
    # onnxruntime computes at most the network; torch exports it, and computes all the rest
    computed_by = versions("torch", *(["onnxruntime"] if model.network is not None else []))
    info = ModelInfo(
        name=spec.model.removeprefix(_TORCHVISION),
        task=task,
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
        settings=settings | ({"options": spec.options} if spec.options else {}),
        code=f"{built.code}, {computed_by}",
        parts=built.parts,
    )
