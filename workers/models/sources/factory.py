'''A user's own models: `module:factory` names a function that builds one.

The module must be importable wherever labelling runs (installed, on PYTHONPATH, or in Ray's runtime_env).
The function returns a `ClassifierModel`, a `DetectorModel` or an `EmbedderModel`. For example, my_models.py:

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

and in the job spec `classifier: {model: "my_models:sky"}`. A spec's `options` are the function's keyword
arguments. A function with a parameter `weights` gets the path of the spec's `weights`, a file of any kind, to
be read before the function returns: then the copy of a remote one is deleted. Without that parameter they are
loaded into the module. The spec's `categories` replace the model's.

A model is known by what was built: see `parts_of`. If any of it changes, it is another model. The function is
called in each process that labels, with the same random numbers, and must build the same model each time.
'''

import copy
import dataclasses
import importlib
import inspect
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePath
from types import ModuleType
from typing import Any

import numpy as np
import torch

from schemas.exceptions import ModelError
from schemas.models import ModelInfo
from schemas.tasks import ModelSpec, Task
from schemas.words import with_article
from workers.models.digest import digest_of
from workers.models.model import KINDS, Built, ClassifierModel, Model
from workers.models.objects import UnpinnedError
from workers.models.own_code import libraries_of, own_files
from workers.models.settings import assert_no_blank, given_categories, replace_categories
from workers.models.source import Source
from workers.models.weights import assert_no_state, file_sha256, load_state, read_weights, weights_on_disk
from workers.storage.uris import absolute_uri, clean_uri

_SEED = 0
"""Of random numbers while a factory runs: tensors without weights are the same in each process."""


class Factories(Source):
    """Functions of the user's, by `module:function`."""

    def names(self, task: Task) -> list[str]:  # noqa: ARG002 - nobody knows them
        """See `Source.names`."""
        return []

    def takes(self, spec: ModelSpec) -> bool:
        """See `Source.takes`; of which task it is turns out once it is called."""
        return spec.is_factory

    def describe(self, name: str, task: Task) -> ModelInfo:
        """None is listed."""
        raise NotImplementedError

    def build(self, spec: ModelSpec) -> Built[Any]:
        """See `build`."""
        return build(spec)


def build(spec: ModelSpec) -> Built[Any]:
    """Builds a model with a user's factory, and applies the spec's weights and categories.

    Raises:
        ModelError: the factory cannot be imported or fails, or does not return a model of the spec's task.
    """
    known = set(sys.modules)
    file: tuple[str, str] | None = None
    with _same_folder_after(), ExitStack() as stack:
        module, function = _factory(spec.model)
        if spec.weights is not None and "weights" in _parameters(function):
            assert_no_state(spec, f"{spec.model}, which reads its weights by itself")
            file = stack.enter_context(weights_on_disk(spec.weights, spec.sha256))
        model = _call(function, spec, {"weights": file[0]} if file else {})
    kinds = KINDS[spec.task]
    if not isinstance(model, kinds):
        found, expected = with_article(type(model).__name__), with_article(kinds[0].__name__)
        raise ModelError(f"{spec.model} returned {found}; expected {expected}")
    loaded = (clean_uri(absolute_uri(str(spec.weights))), file[1]) if file else None
    weights, digest = loaded or _load_weights(model.module, spec)
    assert_no_blank(model.categories, f"{spec.model}: its categories")
    categories = replace_categories(tuple(model.categories), given_categories(spec), spec.model)
    model.module.eval()
    parts = parts_of(model, module, sys.modules.keys() - known, spec.model, named=file is not None)
    built = dataclasses.replace(model, categories=categories)
    return Built(built, "factory", weights, digest, spec.model, parts)


def _load_weights(module: torch.nn.Module, spec: ModelSpec) -> tuple[str, str | None]:
    """Loads the spec's weights, if any, into what a factory built; returns their origin and sha256."""
    if spec.weights is not None:
        read = load_state(module, read_weights(spec.weights, spec.sha256, spec.state), spec.model)
        return str(read), read.sha256
    if spec.sha256 is not None:
        raise ModelError(
            f"sha256: {spec.model} brings its own weights; give `weights: FILE` to have one checked"
        )
    return f"built by {spec.model}", None


def parts_of(
    model: Model,
    module: ModuleType,
    imported: Iterable[str],
    name: str,
    *,
    named: bool,
) -> dict[str, str]:
    """Digests of all that a factory's model is made of, by name.

    The tensors and values of its module and its transform; the source of the factory's module and of those of
    the user's that it imports; the versions of libraries that these use; the model's `files`.

    Args:
        model: as the factory built it, with its weights.
        module: that holds the factory.
        imported: names of modules that were imported while it was built.
        name: of the model, for messages.
        named: whether the factory took the spec's weights, whose sha256 is known.

    Raises:
        ModelError: a file cannot be read, the factory has no source, or an object in the model does not say
            what it holds and no file is named that it may be made from.
    """
    modules = own_files(module, imported)
    if module.__name__ not in modules:
        raise ModelError(f"{module.__name__} has no source file, so its code cannot be pinned in the run")
    parts = {f"source of {key}": file_sha256(str(file), name) for key, file in modules.items()}
    try:
        named = named or bool(model.files)
        parts["module"] = digest_of(model.module, modules, named=named)
        parts["transform"] = digest_of(model.transform, modules, named=named)
        if isinstance(model, ClassifierModel) and model.with_features:
            parts["with_features"] = digest_of(model.with_features, modules, named=named)
    except UnpinnedError as error:
        raise ModelError(
            f"{name}: what it built cannot be pinned in the run: it holds {error}, which does not say "
            "what is in it. Name the file that decides its answers in the model's `files=(...)`, or let the "
            "factory take that as `weights`"
        ) from None
    except Exception as error:  # the user's objects
        raise ModelError(
            f"{name}: what it built cannot be pinned in the run ({type(error).__name__}: {error})"
        ) from error
    for number, file in enumerate(model.files, start=1):
        path = os.fspath(file)
        parts[f"file {number}, {PurePath(clean_uri(path)).name}"] = file_sha256(path, f"{name}: its file")
    libraries = libraries_of(modules)
    return parts | {f"version of {library}": version for library, version in libraries.items()}


def _factory(model: str) -> tuple[ModuleType, Callable[..., object]]:
    """The module and the function that `module:factory` names."""
    name, _, function_name = model.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # importing runs the user's code
        raise ModelError(
            f"{model}: cannot import {name} ({type(error).__name__}: {error}); it must be installed, on "
            "PYTHONPATH, or in Ray's runtime_env"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ModelError(f"{model}: {name} has no function {function_name!r}")
    return module, function


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """A function's parameters by name; none of one in C."""
    try:
        return dict(inspect.signature(function).parameters)
    except ValueError:
        return {}


def _call(function: Callable[..., object], spec: ModelSpec, weights: dict[str, Any]) -> object:
    """Calls a factory with the spec's options and, if it takes them, its weights."""
    if "weights" in spec.options:
        raise ModelError(f"options: found weights; write `weights: FILE` beside `model: {spec.model}`")
    arguments = {**copy.deepcopy(spec.options), **weights}
    _assert_takes(function, arguments, spec.model)
    torch.manual_seed(_SEED)
    random.seed(_SEED)
    np.random.seed(_SEED)
    try:
        return function(**arguments)
    except Exception as error:  # the user's code
        raise ModelError(f"{spec.model}: the factory failed ({type(error).__name__}: {error})") from error


def _assert_takes(function: Callable[..., object], arguments: dict[str, Any], model: str) -> None:
    """Refuses options that a factory has no parameters for, and those that it lacks."""
    try:
        inspect.signature(function).bind(**arguments)
    except ValueError:  # it is in C: only calling it tells
        return
    except TypeError as error:
        parameters = _parameters(function)
        names = [name for name in parameters if name != "weights"]
        takes = f"options: {', '.join(names)}" if names else "no options"
        also = ", and `weights: FILE`" if "weights" in parameters else ""
        raise ModelError(f"{model}: {error}; it takes {takes}{also}") from None


@contextmanager
def _same_folder_after() -> Iterator[None]:
    """Returns to the working directory after the user's code ran: relative paths mean what they meant."""
    folder = os.open(".", os.O_PATH | os.O_DIRECTORY)  # the folder need not be readable
    try:
        yield
    finally:
        os.fchdir(folder)
        os.close(folder)
