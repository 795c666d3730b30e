"""Reads weights files without executing code in them: safetensors, or `torch.load(weights_only=True)`."""

import dataclasses
import hashlib
import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from schemas.exceptions import ModelError
from schemas.tasks import ModelSpec
from schemas.words import counted
from workers.models.checkpoints import State, choose_state, parse_checkpoint
from workers.printable import message_of, one_line
from workers.storage.filesystem import open_file
from workers.storage.uris import absolute_uri, clean_uri, is_local

_SHOWN = 3
"""Names of tensors shown in a message."""

_COMPILED = "_orig_mod."
"""What torch.compile puts before the names of a module that it wraps, anywhere in a model."""

_AVERAGED = "n_averaged"
"""The count that torch.optim.swa_utils.AveragedModel keeps beside the tensors of its model."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file, read and checked.

    Attributes:
        location: its absolute path or URL, without credentials.
        sha256: of its bytes.
        state: its tensors by name, on the CPU.
        said: what was made of its content, in words: which set of tensors was taken, what was left out of
            their names; empty if it holds the model's tensors and nothing else.
    """

    location: str
    sha256: str
    state: State
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join((self.location, *self.said))


def read_weights(location: str, expected: str | None = None, state: str | None = None) -> WeightsFile:
    """Reads a weights file; its sha256 is checked before any of it is interpreted.

    Its kind is told by its content, not by its name.

    Args:
        location: a file of torch's or safetensors'; a path or any fsspec URL.
        expected: the sha256 it must have.
        state: which of several sets of tensors in it; see `choose_state`.

    Raises:
        ModelError: it cannot be read, has another sha256, or does not hold tensors by name, or not that set.
    """
    name = clean_uri(absolute_uri(location))
    data = read_bytes(location, "the weights file")
    digest = hashlib.sha256(data).hexdigest()
    assert_expected(name, digest, expected)
    tensors, taken = choose_state(parse_checkpoint(data, name), state, name)
    return WeightsFile(name, digest, tensors, (taken,) if taken else ())


@contextmanager
def weights_on_disk(location: str, expected: str | None = None) -> Iterator[tuple[str, str]]:
    """A file of any kind as a local path, with its sha256; a copy of a remote one exists within the block.

    Args:
        location: a path or any fsspec URL.
        expected: the sha256 it must have.

    Raises:
        ModelError: it cannot be read, or has another sha256.
    """
    name = clean_uri(location)
    with tempfile.TemporaryDirectory(prefix="raylabel-") as folder:
        path = Path(location).absolute()
        if not is_local(location):
            path = Path(folder) / (os.path.basename(urlsplit(name).path) or "weights")
            with reading(location, "the weights file") as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy, 2**20)
        digest = file_sha256(str(path), "the weights file")
        assert_expected(name, digest, expected)
        yield str(path), digest


def file_sha256(location: str, what: str) -> str:
    """The sha256 of a path or fsspec URL.

    Raises:
        ModelError: it cannot be read; the message begins with `what`.
    """
    digest = hashlib.sha256()
    with reading(location, what) as file:
        while data := file.read(2**20):
            digest.update(data)
    return digest.hexdigest()


def read_bytes(location: str, what: str) -> bytes:
    """All bytes of a path or fsspec URL.

    Raises:
        ModelError: it cannot be read; the message begins with `what`.
    """
    with reading(location, what) as file:
        data: bytes = file.read()
    return data


@contextmanager
def reading(location: str, what: str) -> Iterator[io.BufferedIOBase]:
    """The file at a path or fsspec URL, open for reading.

    Raises:
        ModelError: it cannot be read; the message begins with `what`.
    """
    try:
        with open_file(location) as file:
            yield file
    except Exception as error:  # each store and protocol raises its own kind
        told = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        reason = message_of(OSError(told), location, clean_uri(location))
        raise ModelError(f"{what} {clean_uri(absolute_uri(location))} cannot be read: {reason}") from None


@dataclass(frozen=True)
class Classes:
    """What a module was built for.

    Attributes:
        number: of its classes.
        stated: whether they are those that the job spec names; else the model's own.
        background: how many of them no job spec names.
        beside: rows of its last layers that are of no class.
    """

    number: int
    stated: bool
    background: int = 0
    beside: int = 0


def load_state(
    module: nn.Module, file: WeightsFile, model: str, classes: Classes | None = None
) -> WeightsFile:
    """Loads the tensors of a file into a module; names and shapes must be the same.

    A prefix that all names have is left out if the rest are the module's names: what DataParallel,
    torch.compile or a training framework put there. So are tensors beside such a prefix, which belong to what
    was trained with the model, such as its loss.

    Args:
        module: the module.
        file: tensors by the module's names.
        model: the model's name, for the message.
        classes: what the module was built for, if the file may be for others.

    Returns:
        The file, which says what was left out.

    Raises:
        ModelError: tensors do not fit; the message names the first of them.
    """
    own = module.state_dict()
    state, said = _with_own_names(file.state, own)
    try:
        module.load_state_dict(state)
    except RuntimeError:
        if classes and (number := _classes_in(state, own, classes)):
            raise ModelError(_other_classes(file, model, classes, number)) from None
        fitted = f"{model} with {counted(classes.number, 'class', 'classes')}" if classes else model
        raise ModelError(
            f"the weights file {file.location} does not fit {fitted}: {_differences(own, state)}"
        ) from None
    return dataclasses.replace(file, said=(*file.said, *said))


def assert_no_state(spec: ModelSpec, weights: str) -> None:
    """Raises ModelError for a spec that asks for a set of tensors of weights that are not read here."""
    if spec.state is not None:
        raise ModelError(
            f"state: found {spec.state!r}, which names a set of tensors within a weights file; it cannot be "
            f"used for {weights}; leave it out"
        )


def assert_finite(modules: Iterable[nn.Module], model: str, weights: str) -> None:
    """Refuses weights that are NaN or infinite: such a model has no answer for any image.

    Buffers of zeros and minus infinity are the masks of attention, and pass.

    Args:
        modules: that share a model's tensors.
        model: its name, for the message.
        weights: where they are from, for the message.

    Raises:
        ModelError: there are some; the message names the first tensor.
    """
    tensors: dict[int, tuple[str, Tensor]] = {}
    for module in modules:
        for name, tensor in chain(module.named_parameters(), module.named_buffers()):
            tensors.setdefault(id(tensor), (name, tensor))
    broken = [name for name, tensor in tensors.values() if not (is_finite(tensor) or _is_mask(tensor))]
    if broken:
        of = f"the weights of {model} ({weights})" if weights else f"the weights of {model}"
        raise ModelError(
            f"{of} are broken: {one_line(broken[0])} has NaN or infinite values ({len(broken)} of "
            f"{counted(len(tensors), 'tensor')} have); take those of an earlier step of the training, or "
            "convert them again"
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor has no NaN and no infinity."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    # one pass without a copy, unlike isfinite().all(); NaN is its own least and largest value
    return all(math.isfinite(value) for value in torch.stack(tensor.detach().aminmax()).tolist())


def _is_mask(tensor: Tensor) -> bool:
    return bool(((tensor == 0) | (tensor == -torch.inf)).all())


def assert_expected(name: str, digest: str, expected: str | None, what: str = "the weights file") -> None:
    """Raises ModelError where a file has another sha256 than the job spec asks for."""
    if expected is not None and digest != expected:
        raise ModelError(
            f"{what} {name} has another sha256 than the spec asks for; it was not loaded\n"
            f"  found    {digest}\n  expected {expected}"
        )


def _with_own_names(state: State, own: State) -> tuple[State, list[str]]:
    """Tensors by a module's own names, where a file's names have prefixes that wrappers put there.

    Returns:
        The tensors, and in words what was left out.
    """
    if state.keys() == own.keys():
        return state, []
    renamed = {
        name.replace(_COMPILED, ""): tensor
        for name, tensor in state.items()
        if name != _AVERAGED or name in own
    }
    left_out = [_COMPILED] if any(_COMPILED in name for name in state) else []
    while prefix := _prefix_of(renamed, own):
        renamed = {name.removeprefix(prefix): tensor for name, tensor in renamed.items()}
        left_out.append(prefix)
    said = [f"{' and '.join(map(repr, left_out))} left out of its names"] if left_out else []
    if own.keys() & renamed.keys():
        return renamed, said
    if prefix := _prefix_beside_others(renamed, own):
        inner = {name.removeprefix(prefix): renamed[name] for name in renamed if name.startswith(prefix)}
        others = [name for name in renamed if not name.startswith(prefix)]
        beside = f"without {counted(len(others), 'tensor')} beside these ({_some(others)})"
        return inner, [f"{' and '.join(map(repr, [*left_out, prefix]))} left out of its names", beside]
    return state, []


def _prefix_of(state: State, own: State) -> str:
    """The first part of all names in a file, which the module's names do not have; "" if they differ."""
    if not state:
        return ""
    first = {name.partition(".")[0] + "." for name in state}
    prefix = first.pop()
    ours = any(name.startswith(prefix) for name in own)
    return prefix if not first and not ours and all(name.startswith(prefix) for name in state) else ""


def _prefix_beside_others(state: State, own: State) -> str:
    """The only first part of names in a file below which are the module's own; "" if there is none."""
    firsts = dict.fromkeys(name.partition(".")[0] + "." for name in state)
    found = [
        first
        for first in firsts
        if {name.removeprefix(first) for name in state if name.startswith(first)} == own.keys()
    ]
    return found[0] if len(found) == 1 else ""


def _classes_in(state: State, own: State, classes: Classes) -> int | None:
    """How many classes a file's tensors are for, where nothing else differs from a module's; else None.

    Last layers have a row for each class, or several: the sides of its boxes, its scores by anchor.
    """
    found = set()
    for name, tensor in own.items() if state.keys() == own.keys() else ():
        given = state[name]
        if given.shape == tensor.shape:
            continue
        if given.shape[1:] != tensor.shape[1:] or not (given.ndim and tensor.ndim):
            return None
        each, rest = divmod(len(tensor) - classes.beside, classes.number)
        number, more = divmod(len(given) - classes.beside, max(each, 1))
        found.add(number if each > 0 and rest == more == 0 else 0)
    return found.pop() if len(found) == 1 else None


def _other_classes(file: WeightsFile, model: str, classes: Classes, number: int) -> str:
    """The message for weights of another number of classes than a module was built for."""
    named, known = number - classes.background, classes.number - classes.background
    found = counted(named, "class", "classes")
    if classes.stated:
        return (
            f"categories: found {counted(known, 'class name')}, but the weights file {file.location} has "
            f"{found}; name all of them, in the order of its training"
        )
    return (
        f"the weights file {file.location} has {found}, and {model} {known:,} of its own; add `categories:`, "
        "a text file with the names of the weights' classes, one a line in the order of its training, or a "
        "list"
    )


def _differences(own: State, given: State) -> str:
    """The differences between a module's tensors and a file's, with the first names of each kind."""
    shapes = [
        f"{name} is {tuple(given[name].shape)}, the model's {tuple(own[name].shape)}"
        for name in own.keys() & given.keys()
        if own[name].shape != given[name].shape
    ]
    kinds = {
        "missing": [name for name in own if name not in given],
        "unexpected": [name for name in given if name not in own],
        "of another shape": sorted(shapes),
    }
    return "; ".join(
        f"{counted(len(names), 'tensor')} {kind} ({_some(names)})" for kind, names in kinds.items() if names
    )


def _some(names: list[str]) -> str:
    """The first of some names."""
    return f"{one_line(', '.join(names[:_SHOWN]))}{', …' if len(names) > _SHOWN else ''}"
