"""Finds models by name, and loads them with a job's settings."""

import difflib
from typing import Any

import torch

from schemas.exceptions import ModelError
from schemas.models import ModelInfo, ResolvedModel
from schemas.spec import ModelSpec, Precision, Runtime
from schemas.tasks import TASKS, Task
from workers.models.classifier import Classifier
from workers.models.detector import Detector
from workers.models.model import Built, LoadedModel, versions
from workers.models.objects import stable_repr
from workers.models.predictor import Predictor
from workers.models.source import Source
from workers.models.sources import efficientnet_lite0, factory, nanodet, timm_models, torchvision_models

SOURCES: tuple[Source, ...] = (
    efficientnet_lite0.SOURCE,
    nanodet.SOURCE,
    factory.Factories(),
    torchvision_models.TorchvisionModels(),
    timm_models.TimmModels(),
)
"""Where models come from, in the order in which they are listed and asked for a name."""

PREDICTORS: dict[Task, type[Predictor[Any]]] = {kind.task: kind for kind in (Classifier, Detector)}
"""What computes the models of each task."""


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
        for name in source.names(task)
    ]


def load(spec: ModelSpec) -> LoadedModel[Any, Any]:
    """The model of a job spec, on the CPU, in eval mode, with the spec's settings in it.

    Raises:
        ModelError: the name is unknown or of another task; the weights or the categories do not fit; a
            setting does not fit the model.
    """
    source = next((source for source in SOURCES if source.has(spec.model, spec.task)), None)
    if source is None:
        raise _unknown(spec.model, spec.task)
    built, predictor = source.build(spec), PREDICTORS[spec.task]
    settings = predictor.apply(spec, built.model)
    modules = (predictor.__module__, source.module)
    return LoadedModel(built.model, spec, _resolved(spec, built, settings, modules))


def predictor_of(
    loaded: LoadedModel[Any, Any],
    device: torch.device,
    batch_size: int,
    precision: Precision = "auto",
    runtime: Runtime = "auto",
) -> Predictor[Any]:
    """What computes a loaded model on a device; see `workers.models.predictor.Predictor`."""
    return PREDICTORS[loaded.spec.task](loaded, device, batch_size, precision, runtime)


def _unknown(name: str, task: Task) -> ModelError:
    """The error for a name that is not a model of this task, with similar names."""
    for other in TASKS:
        if other != task and any(source.has(name, other) for source in SOURCES):
            return ModelError(
                f"{name} is a {other.name}, not a {task.name}; name it under `{other.name}:` in the job spec"
            )
    hint = "."
    if close := _similar(name, task, 3):
        hint = f"; did you mean {' or '.join(close)}?"
    else:
        for other in TASKS:
            for near in _similar(name, other, 1):
                hint = f"; {near} is a {other.name}: name it under `{other.name}:`."
    return ModelError(f"there is no {task.name} {name!r}{hint} `raylabel models` lists them all")


def _similar(name: str, task: Task, most: int) -> list[str]:
    """Up to so many names of models of a task that a name resembles."""
    on_request = name.startswith(timm_models.PREFIX)
    pool = [known for source in SOURCES if source.on_request == on_request for known in source.names(task)]
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
        name=spec.model.removeprefix(torchvision_models.PREFIX),
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
        settings=settings | ({"options": spec.options} if spec.options else {}),
        code=f"{built.code}, {computed_by}",
        modules=modules,
        parts=built.parts,
    )
