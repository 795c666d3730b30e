"""Reads weights files without executing code in them: safetensors, or `torch.load(weights_only=True)`."""

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from schemas.exceptions import ModelError
from workers.storage.filesystem import open_file
from workers.storage.uris import clean_uri

State = dict[str, Tensor]

_SHOWN = 3
"""Names of tensors shown in a message."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file, read and checked.

    Attributes:
        location: its path or URL, without credentials.
        sha256: of its bytes.
        state: its tensors by name, on the CPU.
    """

    location: str
    sha256: str
    state: State


def read_weights(location: str, expected: str | None = None) -> WeightsFile:
    """Reads a weights file; its sha256 is checked before any of it is interpreted.

    Args:
        location: a .pth, .pt or .safetensors file; a path or any fsspec URL.
        expected: the sha256 it must have.

    Raises:
        ModelError: it cannot be read, has another sha256, or does not hold tensors by name.
    """
    name = clean_uri(location)
    parse = _parser(name)
    data = read_bytes(location, "the weights file")
    digest = hashlib.sha256(data).hexdigest()
    if expected is not None and digest != expected:
        raise ModelError(
            f"the weights file {name} has another sha256 than the spec asks for; it was not loaded\n"
            f"  found    {digest}\n  expected {expected}"
        )
    try:
        content = parse(data)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise ModelError(f"the weights file {name} cannot be loaded: {_first_line(error)}") from None
    return WeightsFile(name, digest, _state_in(content, name))


def read_bytes(location: str, what: str) -> bytes:
    """All bytes of a path or fsspec URL.

    Raises:
        ModelError: it cannot be read; the message begins with `what`.
    """
    try:
        with open_file(location) as file:
            data: bytes = file.read()
    except Exception as error:  # each store and protocol raises its own kind
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise ModelError(f"{what} {clean_uri(location)} cannot be read: {reason}") from None
    return data


def load_state(module: nn.Module, state: State, model: str, location: str) -> None:
    """Loads the tensors of a file into a module; names and shapes must be the same.

    Args:
        module: the module.
        state: tensors by the module's names.
        model: the model's name, for the message.
        location: the file of the tensors, for the message.

    Raises:
        ModelError: tensors do not fit; the message names the first of them.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError:
        differences = _differences(module.state_dict(), state)
        raise ModelError(f"the weights file {location} does not fit {model}: {differences}") from None


def _parser(name: str) -> Callable[[bytes], object]:
    """The function that reads a weights file of this name.

    Raises:
        ModelError: the name ends in neither .pth, .pt nor .safetensors.
    """
    match PurePosixPath(urlsplit(name).path).suffix.lower():
        case ".safetensors":
            return safetensors.torch.load
        case ".pth" | ".pt":
            return _unpickle
        case _:
            raise ModelError(f"{name} is not a weights file: its name must end in .pth, .pt or .safetensors")


def _unpickle(data: bytes) -> object:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _state_in(content: object, name: str) -> State:
    """The tensors by name in a file's content: all of it, or its "state_dict" or "model" part."""
    if isinstance(content, Mapping):
        for part in (content, content.get("state_dict"), content.get("model")):
            if isinstance(part, Mapping) and part and all(isinstance(x, Tensor) for x in part.values()):
                return dict(part)
    raise ModelError(
        f"the weights file {name} does not hold tensors by name; save it with "
        "torch.save(model.state_dict(), FILE)"
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
        f"{len(names)} tensors {kind} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
        for kind, names in kinds.items()
        if names
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
