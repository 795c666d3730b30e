"""What is in a weights file: tells its kind by its content, and finds the sets of tensors in a checkpoint.

Nothing in a file is executed: it is read by safetensors, or by `torch.load(weights_only=True)`.
"""

import io
import pickle
import pickletools
import re
import shlex
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import TypeGuard

import safetensors.torch
import torch
from torch import Tensor

from schemas.exceptions import ModelError
from workers.printable import one_line, short_line
from workers.storage.uris import is_local

State = dict[str, Tensor]

_USUAL_SETS = ("state_dict", "model", "model_state_dict")
"""Sets of tensors that are taken where a checkpoint holds several: timm's and Lightning's, torchvision's, and
that of PyTorch's own guide to checkpoints."""

_AVERAGES = "ema"
"""The word in the names of sets of averaged tensors: "model_ema", "ema_state_dict", "ema.module"."""

_DEPTH = 3
"""How deep in a checkpoint sets of tensors are looked for: RT-DETR's are in {"ema": {"module": …}}."""

_SAVE_AGAIN = (
    "import torch; t = lambda x: x if isinstance(x, torch.Tensor) else t(x.state_dict()) "
    "if hasattr(x, 'state_dict') else {{str(k): u for k, v in x.items() if 'optim' not in str(k) "
    "and (u := t(v)) is not None}} or None if isinstance(x, dict) else None; "
    "torch.save(t(torch.load({file!r}, map_location='cpu', weights_only=False)), 'tensors.pth')"
)
"""Makes a file of tensors, all sets of them, from a checkpoint that holds other objects too; executes what is
in that."""

_NO_SET = "optim"
"""In the names of parts of checkpoints that hold tensors of an optimizer, not of a model."""

_OTHER_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the file; fetch it with `git lfs pull`"),
    (b"<", "a web page"),
    (b"\x89HDF", "an HDF5 file (Keras)"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array"),
)
"""What is handed in as weights at times: its first bytes, and its name."""

_ALLOWED = "allowed: a safetensors file, or one made by torch.save(model.state_dict(), FILE)"

_NO_TENSORS = "does not hold tensors by name; save it with torch.save(model.state_dict(), FILE)"


def parse_checkpoint(data: bytes, name: str) -> object:
    """The content of a weights file.

    Args:
        data: its bytes.
        name: of the file, for messages.

    Raises:
        ModelError: it is neither of torch's kinds nor of safetensors', it is damaged, or it holds objects
            that only executing it could load.
    """
    try:
        return _parser(data, name)(data)
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        raise _refused_objects(data, name, str(error)) from None
    except Exception as error:  # of zipfile, pickle, torch or safetensors: whatever damage makes them raise
        raise ModelError(
            f"the weights file {name} cannot be loaded: it is cut or damaged ({_first_line(error)}); copy or "
            "save it again"
        ) from None


def choose_state(content: object, wanted: str | None, name: str) -> tuple[State, str]:
    """The set of tensors that a checkpoint is used for, and in words which of several it is.

    Args:
        content: of the file.
        wanted: the name of the set, see `_named`; None: the only one, or one of the usual names.
        name: of the file, for messages.

    Raises:
        ModelError: there is no set of that name, or several; or none, or several without a usual name, where
            none is wanted.
    """
    if is_state(content):
        if wanted is not None:
            raise ModelError(
                f"state: found {wanted!r}, but the weights file {name} holds one set of tensors, which has "
                "no name; leave `state` out"
            )
        return dict(content), ""
    states = dict(_states_in(content))
    if not states:
        raise ModelError(f"the weights file {name} {_NO_TENSORS}")
    taken = _usual(states, name) if wanted is None else _named(states, wanted, name)
    others = [key for key in states if key != taken]
    return dict(states[taken]), f"its {taken!r}, not its {_either(others)}" if others else ""


def is_state(part: object) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether an object is a set of tensors by name."""
    return (
        isinstance(part, Mapping)
        and bool(part)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in part.items())
    )


def _states_in(part: object, path: str = "", depth: int = 1) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The sets of tensors in a checkpoint, by their dotted keys in it."""
    for key, inner in part.items() if isinstance(part, Mapping) else ():
        if not isinstance(key, str) or _NO_SET in key:
            continue
        if is_state(inner):
            yield path + key, inner
        elif depth < _DEPTH:
            yield from _states_in(inner, f"{path}{key}.", depth + 1)


def _usual(states: Mapping[str, object], name: str) -> str:
    """The set that is taken where none is named."""
    firsts: dict[str, str] = {}
    for key in states:
        firsts.setdefault(key.partition(".")[0], key)
    taken = next((firsts[usual] for usual in _USUAL_SETS if usual in firsts), None)
    if taken is None and len(states) > 1:
        raise ModelError(
            f"the weights file {name} holds several sets of tensors ({_list(states)}); say which with "
            f"`state: {next(iter(states))}`"
        )
    return taken or next(iter(states))


def _named(states: Mapping[str, object], wanted: str, name: str) -> str:
    """The set of a name: that of its key, of its first key; or, for "ema", the only one that is averaged."""
    averaged = [key for key in states if _AVERAGES in re.split(r"[._]", key.lower())]
    for found in (
        [key for key in states if key == wanted],
        [key for key in states if key.partition(".")[0] == wanted],
        averaged if wanted == _AVERAGES else [],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise ModelError(
                f"state: {wanted!r} may be each of several sets of tensors in the weights file {name} "
                f"({_list(found)}); name one of these"
            )
    raise ModelError(
        f"state: found {wanted!r}, but the weights file {name} has no such set of tensors; allowed: "
        f"{_list(states)}"
    )


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(short_line(name)) for name in names)


def _either(names: list[str]) -> str:
    return " or ".join(map(repr, names))


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
    found = kind_of(data) or f"a file that begins with {data[:8]!r}"
    raise ModelError(f"{name} is no weights file: found {found}; {_ALLOWED}")


def kind_of(data: bytes) -> str:
    """What a file is that is no model's, in words; "" where its beginning does not show it."""
    kinds = (kind for start, kind in _OTHER_KINDS if data.lstrip().startswith(start))
    return next(kinds, "" if data else "an empty file")


def is_program(data: bytes) -> bool:
    """Whether a file is a TorchScript program."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return any(entry.endswith("/constants.pkl") for entry in archive.namelist())


def _assert_no_program(data: bytes, name: str) -> None:
    """Refuses a TorchScript program, which torch.load(weights_only=True) refuses in words of its own."""
    if is_program(data):
        raise ModelError(
            f"{name} is no weights file: found a TorchScript program; save its tensors with "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW), or load it in a factory of yours "
            "that takes `weights`"
        )


def _unpickle(data: bytes) -> object:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _refused_objects(data: bytes, name: str, message: str) -> ModelError:
    """The error for a file that holds objects other than tensors, which only executing it could load."""
    file = name if is_local(name) else "FILE"
    if export := export_of_yolo(data, PurePath(name).name):
        return ModelError(
            f"the weights file {name} cannot be loaded: it holds objects of its training code, which only "
            f"executing it could load; {export}"
        )
    kinds = dict.fromkeys(re.findall(r"(?:GLOBAL|class|Can only build|type) ([\w.]+\.\w+)", message))
    holds = f": {', '.join(kinds)}" if kinds else ""
    command = f"python -c {shlex.quote(_SAVE_AGAIN.format(file=file))}"
    return ModelError(
        f"the weights file {name} cannot be loaded: it holds other objects than tensors{holds}, and loading "
        "these executes code. If you trust it, save its tensors alone, where the code that made it is "
        f"installed, and give tensors.pth as weights:\n  {command}"
    )


def export_of_yolo(data: bytes, file: str) -> str:
    """How a checkpoint of Ultralytics' or YOLOv5's becomes an ONNX file; "" for one of others."""
    names = pickled_names(data)
    if any(name.startswith("ultralytics.") for name in names):
        return (
            "export it with Ultralytics and name the ONNX file as `model`:\n"
            f"  {shlex.join(['yolo', 'export', f'model={file}', 'format=onnx'])}"
        )
    if any(name.startswith("models.yolo.") for name in names):
        return (
            "export it in the folder of YOLOv5 that it was trained in, and name the ONNX file as `model`:\n"
            f"  {shlex.join(['python', 'export.py', '--weights', file, '--include', 'onnx'])}"
        )
    return ""


def pickled_names(data: bytes) -> set[str]:
    """The dotted names of classes and functions in a file of torch's; its pickle is read, not executed."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return set(_names_in(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = next((entry for entry in archive.namelist() if entry.endswith("data.pkl")), None)
        return set(_names_in(archive.read(entry))) if entry else set()


def _names_in(data: bytes) -> Iterator[str]:
    """The names in pickles that follow one another, up to what is none."""
    file = io.BytesIO(data)
    texts: list[str] = []
    try:
        while file.tell() < len(data):
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    yield str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                    yield ".".join(texts[-2:])
                elif isinstance(argument, str):
                    texts.append(argument)
    except ValueError:
        return


def _first_line(error: BaseException) -> str:
    return one_line(next(iter(str(error).splitlines()), type(error).__name__))
