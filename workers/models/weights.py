"""Reads weights files without executing code in them: safetensors, or `torch.load(weights_only=True)`."""

import hashlib
import io
import os
import pickle
import re
import shlex
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard
from urllib.parse import urlsplit

import safetensors.torch
import torch
from torch import Tensor, nn

from schemas.exceptions import ModelError
from workers.printable import one_line
from workers.storage.filesystem import open_file
from workers.storage.uris import absolute_uri, clean_uri, is_local

State = dict[str, Tensor]

_SHOWN = 3
"""Names of tensors shown in a message."""

_USUAL_PARTS = ("state_dict", "model")
"""Parts of a checkpoint that are taken where it holds several sets of tensors: timm's and torchvision's."""

_COMPILED = "_orig_mod."
"""What torch.compile puts before the names of a module that it wraps, anywhere in a model."""

_AVERAGED = "n_averaged"
"""The count that torch.optim.swa_utils.AveragedModel keeps beside the tensors of its model."""

_SAVE_AGAIN = (
    "import torch; c = torch.load({file!r}, weights_only=False); "
    "c = c.get('state_dict', c.get('model', c)) if isinstance(c, dict) else c; "
    "torch.save(c.state_dict() if hasattr(c, 'state_dict') else c, 'tensors.pth')"
)
"""Makes a file of tensors from a checkpoint that holds other objects too; executes what is in that."""

_OTHER_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the file; fetch it with `git lfs pull`"),
    (b"<", "a web page"),
    (b"\x89HDF", "an HDF5 file (Keras)"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array"),
)
"""What is handed in as weights at times: its first bytes, and its name."""

_ALLOWED = "allowed: a safetensors file, or one made by torch.save(model.state_dict(), FILE)"


@dataclass(frozen=True)
class WeightsFile:
    """A weights file, read and checked.

    Attributes:
        location: its absolute path or URL, without credentials.
        sha256: of its bytes.
        state: its tensors by name, on the CPU.
        part: which set of its tensors was taken, in words; "" if it holds only one.
    """

    location: str
    sha256: str
    state: State
    part: str = ""

    def __str__(self) -> str:
        return f"{self.location}, {self.part}" if self.part else self.location


def read_weights(location: str, expected: str | None = None) -> WeightsFile:
    """Reads a weights file; its sha256 is checked before any of it is interpreted.

    Its kind is told by its content, not by its name.

    Args:
        location: a file of torch's or safetensors'; a path or any fsspec URL.
        expected: the sha256 it must have.

    Raises:
        ModelError: it cannot be read, has another sha256, or does not hold tensors by name.
    """
    name = clean_uri(absolute_uri(location))
    data = read_bytes(location, "the weights file")
    digest = hashlib.sha256(data).hexdigest()
    _assert_expected(name, digest, expected)
    try:
        content = _parser(data, name)(data)
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        raise _refused_objects(name, str(error)) from None
    except Exception as error:  # of zipfile, pickle, torch or safetensors: whatever damage makes them raise
        raise ModelError(
            f"the weights file {name} cannot be loaded: it is cut or damaged ({_first_line(error)}); copy or "
            "save it again"
        ) from None
    state, part = _state_in(content, name)
    return WeightsFile(name, digest, state, part)


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
        _assert_expected(name, digest, expected)
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
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise ModelError(f"{what} {clean_uri(location)} cannot be read: {reason}") from None


def load_state(module: nn.Module, state: State, model: str, location: str) -> None:
    """Loads the tensors of a file into a module; names and shapes must be the same.

    A prefix that all names have is left out if the rest are the module's names: what DataParallel,
    torch.compile or a training framework put there.

    Args:
        module: the module.
        state: tensors by the module's names.
        model: the model's name, for the message.
        location: the file of the tensors, for the message.

    Raises:
        ModelError: tensors do not fit; the message names the first of them.
    """
    own = module.state_dict()
    state = _with_own_names(state, own)
    try:
        module.load_state_dict(state)
    except RuntimeError:
        raise ModelError(
            f"the weights file {location} does not fit {model}: {_differences(own, state)}"
        ) from None


def _assert_expected(name: str, digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        raise ModelError(
            f"the weights file {name} has another sha256 than the spec asks for; it was not loaded\n"
            f"  found    {digest}\n  expected {expected}"
        )


def _parser(data: bytes, name: str) -> Callable[[bytes], object]:
    """The function that reads a weights file that begins so.

    Raises:
        ModelError: it is neither of torch's kinds nor of safetensors'.
    """
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 2**32:
        return safetensors.torch.load
    if data.startswith((b"PK\x03\x04", b"\x80")):
        _assert_no_program(data, name)
        return _unpickle
    kinds = (kind for start, kind in _OTHER_KINDS if data.lstrip().startswith(start))
    found = next(kinds, f"a file that begins with {data[:8]!r}" if data else "an empty file")
    raise ModelError(f"{name} is no weights file: found {found}; {_ALLOWED}")


def _assert_no_program(data: bytes, name: str) -> None:
    """Refuses a TorchScript program, which torch.load(weights_only=True) refuses in words of its own."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(entry.endswith("/constants.pkl") for entry in archive.namelist()):
                raise ModelError(
                    f"{name} is no weights file: found a TorchScript program; save its tensors with "
                    "torch.save(torch.jit.load(FILE).state_dict(), NEW), or load it in a factory of yours "
                    "that takes `weights`"
                )


def _unpickle(data: bytes) -> object:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _refused_objects(name: str, message: str) -> ModelError:
    """The error for a file that holds objects other than tensors, which only executing it could load."""
    kinds = dict.fromkeys(re.findall(r"(?:GLOBAL|class|Can only build|type) ([\w.]+\.\w+)", message))
    holds = f": {', '.join(kinds)}" if kinds else ""
    file = name if is_local(name) else "FILE"
    command = f"python -c {shlex.quote(_SAVE_AGAIN.format(file=file))}"
    return ModelError(
        f"the weights file {name} cannot be loaded: it holds other objects than tensors{holds}, and loading "
        "these executes code. If you trust it, save its tensors alone, and give tensors.pth as weights:\n"
        f"  {command}"
    )


def _state_in(content: object, name: str) -> tuple[State, str]:
    """The tensors by name in a file's content, and in words which of several sets they are.

    Raises:
        ModelError: it holds no tensors by name, or several sets of them without a usual name.
    """
    if _is_state(content):
        return dict(content), ""
    parts = content if isinstance(content, Mapping) else {}
    states = {str(key): part for key, part in parts.items() if _is_state(part)}
    taken = next((key for key in (*_USUAL_PARTS, *states) if key in states), None)
    if taken is None:
        raise ModelError(
            f"the weights file {name} does not hold tensors by name; save it with "
            "torch.save(model.state_dict(), FILE)"
        )
    others = [key for key in states if key != taken]
    if others and taken not in _USUAL_PARTS:
        raise ModelError(
            f"the weights file {name} holds several sets of tensors ({', '.join(map(repr, states))}); "
            "save the one that you want with torch.save(torch.load(FILE)[NAME], NEW)"
        )
    return dict(states[taken]), f"its {taken!r}, not its {' or '.join(map(repr, others))}" if others else ""


def _is_state(part: object) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(part, Mapping)
        and bool(part)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in part.items())
    )


def _with_own_names(state: State, own: State) -> State:
    """Tensors by a module's own names, where a file's names have prefixes that wrappers put there."""
    if state.keys() == own.keys():
        return state
    renamed = {
        name.replace(_COMPILED, ""): tensor
        for name, tensor in state.items()
        if name != _AVERAGED or name in own
    }
    while prefix := _prefix_of(renamed, own):
        renamed = {name.removeprefix(prefix): tensor for name, tensor in renamed.items()}
    return renamed if own.keys() & renamed.keys() else state


def _prefix_of(state: State, own: State) -> str:
    """The first part of all names in a file, which the module's names do not have; "" if they differ."""
    if not state:
        return ""
    first = {name.partition(".")[0] + "." for name in state}
    prefix = first.pop()
    ours = any(name.startswith(prefix) for name in own)
    return prefix if not first and not ours and all(name.startswith(prefix) for name in state) else ""


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
        f"{_tensors(len(names))} {kind} ({one_line(', '.join(names[:_SHOWN]))}"
        f"{', …' if len(names) > _SHOWN else ''})"
        for kind, names in kinds.items()
        if names
    )


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"


def _first_line(error: BaseException) -> str:
    return one_line(next(iter(str(error).splitlines()), type(error).__name__))
