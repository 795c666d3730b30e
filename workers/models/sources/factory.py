'''A user's own models: `module:factory` names a function that builds one.

The module must be importable wherever labelling runs (installed, on PYTHONPATH, or in Ray's runtime_env).
The function takes nothing and returns a `ClassifierModel` or a `DetectorModel`. For example, my_models.py:

    import torch
    from workers.models.model import ClassifierModel

    def sky() -> ClassifierModel:
        """Tells blue photos from others by their mean blue and red."""
        head = torch.nn.Linear(3, 2)
        head.weight.data = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]])
        head.bias.data.zero_()
        module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
        return ClassifierModel(
            module=module,
            transform=lambda image: torch.nn.functional.interpolate(image[None] / 255, (8, 8))[0],
            categories=("sky", "other"),
        )

and in the job spec `classifier: {model: "my_models:sky"}`. A spec's `weights` are loaded into the module, its
`categories` replace the model's. The run's fingerprint contains the sha256 of the module's source file: if it
changes, it is another model.
'''

import dataclasses
import hashlib
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from schemas.exceptions import ModelError
from schemas.spec import ModelSpec
from workers.models.model import Built, ClassifierModel, DetectorModel
from workers.models.settings import given_categories, replace_categories
from workers.models.weights import load_state, read_weights

ModelT = TypeVar("ModelT", ClassifierModel, DetectorModel)


def build(spec: ModelSpec, kind: type[ModelT]) -> Built[ModelT]:
    """Builds a model with a user's factory, and applies the spec's weights and categories.

    Raises:
        ModelError: the factory cannot be imported or fails, or does not return a `kind`.
    """
    module_name, _, function_name = spec.model.partition(":")
    module = _import(module_name, spec.model)
    model = _call(module, function_name, spec.model)
    if not isinstance(model, kind):
        raise ModelError(f"{spec.model} returned a {type(model).__name__}; expected a {kind.__name__}")
    weights, digest = f"built by {spec.model}", None
    if spec.weights is not None:
        file = read_weights(spec.weights, spec.sha256)
        load_state(model.module, file.state, spec.model, file.location)
        weights, digest = file.location, file.sha256
    elif spec.sha256 is not None:
        raise ModelError(
            f"sha256: {spec.model} brings its own weights; give `weights: FILE` to have one checked"
        )
    categories = replace_categories(tuple(model.categories), given_categories(spec), spec.model)
    model.module.eval()
    return Built(
        dataclasses.replace(model, categories=categories), "factory", weights, digest, _fingerprint(module)
    )


def _import(name: str, model: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # importing runs the user's code
        raise ModelError(
            f"{model}: cannot import {name} ({type(error).__name__}: {error}); it must be installed, on "
            "PYTHONPATH, or in Ray's runtime_env"
        ) from error


def _call(module: ModuleType, function_name: str, model: str) -> object:
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ModelError(f"{model}: {module.__name__} has no function {function_name!r}")
    try:
        return function()
    except Exception as error:  # the user's code
        raise ModelError(f"{model}: the factory failed ({type(error).__name__}: {error})") from error


def _fingerprint(module: ModuleType) -> str:
    source = inspect.getsourcefile(module)
    if source is None:
        raise ModelError(f"{module.__name__} has no source file, so its code cannot be pinned in the run")
    return f"{module.__name__} sha256 {hashlib.sha256(Path(source).read_bytes()).hexdigest()}"
