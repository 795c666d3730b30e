"""What a built model is, as a digest: its tensors, and the values that its code works with.

The same in every process and on every machine that builds the same model, whatever its objects' addresses and
the folders that its files are in.
"""

import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_ADDRESS_OR_PATH = re.compile(r"(?: at)? 0x[0-9a-fA-F]+|[^\s\"'(=,\[]*/[^\s\"'),\]]*")
"""What differs between processes and machines in the text of an object: its address, paths."""

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes of torch's own in each module: hooks, the tensors by name, ..."""

_OPENED = ("torchvision", "timm")
"""Libraries whose objects are looked into, like the user's own; of others, what they print counts."""


def stable_repr(value: object) -> str:
    """An object's repr without memory addresses and paths, so the same in every process."""
    try:
        return _ADDRESS_OR_PATH.sub("", repr(value))
    except Exception:  # the user's code
        return type(value).__qualname__


def digest_of(value: object, own: Collection[str]) -> str:
    """The sha256 of a value and all that it refers to.

    Of modules: all parameters and buffers, with their names, structure and further attributes. Of functions:
    what they refer to outside themselves. Of objects of the standard library: only their type.

    Args:
        value: a module, a transform, or anything in them.
        own: names of the user's modules, whose classes and functions are looked into.
    """
    return _Digests(frozenset(own)).of(value).hex()


class _Digests:
    """Digests of values that may refer to each other in circles.

    Args:
        own: names of the user's modules.
    """

    def __init__(self, own: frozenset[str]) -> None:
        self._own = own
        # Values are kept, so that no other one gets the address of one that was met
        self._known: dict[int, tuple[bytes, object]] = {}

    def of(self, value: object) -> bytes:
        """The sha256 of a value; of one that refers to itself, as far as the circle."""
        if id(value) not in self._known:
            self._known[id(value)] = (b"circle", value)
            digest = hashlib.sha256()
            for part in self._parts(value):
                digest.update(len(part).to_bytes(8, "little") + part)
            self._known[id(value)] = (digest.digest(), value)
        return self._known[id(value)][0]

    def _parts(self, value: Any) -> Iterator[bytes]:
        yield f"{type(value).__module__}.{type(value).__qualname__}".encode()
        match value:
            case Tensor():
                yield from _tensor_parts(value)
            case np.ndarray() if value.dtype != object:
                yield f"{value.dtype} {value.shape}".encode()
                yield value.tobytes()
            case bytes() | bytearray():
                yield bytes(value)
            case nn.Module():
                yield from self._network_parts(value)
            case Mapping():
                for key, inner in value.items():
                    yield self.of(key) + self.of(inner)
            case list() | tuple():
                yield from map(self.of, value)
            case np.ndarray():
                yield from map(self.of, value.ravel())
            case set() | frozenset():
                yield from sorted(map(self.of, value))
            case Enum():
                yield value.name.encode()
            case _:
                yield from self._code_parts(value)

    def _code_parts(self, value: Any) -> Iterator[bytes]:
        match value:
            case ModuleType():
                yield value.__name__.encode()
            case type():
                yield from self._class_parts(value)
            case FunctionType():
                yield from self._function_parts(value)
            case MethodType():
                yield self.of(value.__self__) + self.of(value.__func__)
            case functools.partial():
                yield from map(self.of, (value.func, value.args, value.keywords))
            case staticmethod() | classmethod():
                yield self.of(value.__func__)
            case property():
                yield self.of(value.fget)
            case _:
                yield from self._object_parts(value)

    def _network_parts(self, network: nn.Module) -> Iterator[bytes]:
        for name, tensor in [*network.state_dict(keep_vars=True).items(), *network.named_buffers()]:
            yield name.encode() + self.of(tensor)
        for name, part in network.named_modules():
            yield f"{name} {type(part).__qualname__} {_structure(part)}".encode()
            yield self.of(type(part))
            code = getattr(part, "code", None)  # of torch.jit and torch.fx, whose classes have none
            yield code.encode() if isinstance(code, str) else b""
            attributes = {key: value for key, value in vars(part).items() if key not in _OF_EVERY_MODULE}
            yield from self._attributes(attributes)

    def _class_parts(self, kind: type) -> Iterator[bytes]:
        yield f"{kind.__module__}.{kind.__qualname__}".encode()
        if self._is_own(kind):
            yield from map(self.of, kind.__bases__)
            methods = {name: value for name, value in vars(kind).items() if callable(value)}
            yield from self._attributes(_without_dunders(vars(kind)) | methods)

    def _function_parts(self, function: FunctionType) -> Iterator[bytes]:
        # Its source is pinned by its module's file; the line tells lambdas of one function apart
        yield f"{function.__module__}.{function.__qualname__} {function.__code__.co_firstlineno}".encode()
        if not self._is_own(function):
            return
        yield self.of((function.__defaults__, function.__kwdefaults__))
        for cell in function.__closure__ or ():
            yield self.of(cell.cell_contents) if _is_filled(cell) else b"empty"
        outside = function.__globals__
        names = _names_in(function.__code__)
        used = {name: outside[name] for name in names & outside.keys()}
        yield from self._attributes(used)
        for module in used.values():
            if isinstance(module, ModuleType) and module.__name__ in self._own:
                yield from self._attributes(
                    {name: vars(module)[name] for name in names & vars(module).keys()}
                )

    def _object_parts(self, value: object) -> Iterator[bytes]:
        root = type(value).__module__.partition(".")[0]
        wrapped = inspect.unwrap(value) if callable(value) else value  # of a cached function
        if wrapped is not value:
            yield self.of(wrapped)
        elif isinstance(value, bool | int | float | complex | str | np.generic | None):
            yield stable_repr(value).encode()
        elif self._is_own(type(value)) or root in _OPENED or is_dataclass(value):
            yield self.of(type(value))
            yield from self._attributes(_attributes_of(value))
        elif root not in sys.stdlib_module_names:
            yield stable_repr(value).encode()

    def _attributes(self, attributes: Mapping[str, object]) -> Iterator[bytes]:
        for name, value in sorted(attributes.items()):
            yield name.encode() + self.of(value)

    def _is_own(self, value: Any) -> bool:
        return getattr(value, "__module__", None) in self._own


def _tensor_parts(tensor: Tensor) -> Iterator[bytes]:
    yield f"{tensor.dtype} {tuple(tensor.shape)} {tensor.layout}".encode()
    if tensor.is_meta:
        return
    plain = tensor.detach().cpu()
    if plain.is_quantized:
        yield stable_repr(plain.qscheme()).encode() + plain.dequantize().numpy().tobytes()
        return
    dense = plain.to_dense() if plain.layout != torch.strided else plain
    flat = dense.resolve_conj().resolve_neg().contiguous().reshape(-1)
    yield hashlib.sha256(flat.view(torch.uint8).numpy().data).digest() if flat.numel() else b""


def _structure(module: nn.Module) -> str:
    """The sizes and settings that a module prints of itself."""
    try:
        return _ADDRESS_OR_PATH.sub("", module.extra_repr())
    except Exception:  # the user's code
        return ""


def _without_dunders(attributes: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in attributes.items() if not name.startswith("__")}


def _names_in(code: CodeType) -> set[str]:
    """Names that a function's code looks up outside itself, those of functions in it too."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - asking raises
    except ValueError:
        return False
    return True


def _attributes_of(value: Any) -> dict[str, object]:
    """The attributes of an object, also of a dataclass with slots."""
    slots = [field.name for field in fields(value)] if is_dataclass(value) else []
    return {**getattr(value, "__dict__", {}), **{name: getattr(value, name, None) for name in slots}}
