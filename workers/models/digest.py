"""What a built model is, as a digest: its tensors, and the values that its code works with.

The same in every process and on every machine that builds the same model, whatever its objects' addresses and
the folders that its files are in.
"""

import dis
import functools
import hashlib
import mmap
import os
import struct
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workers.models.objects import (
    UnpinnedError,
    attributes_of,
    is_incidental,
    stable_repr,
    state_of,
    without_folder,
    without_places,
)

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes of torch's own in each module: hooks, the tensors by name, ..."""

_HOOKS = (
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
)
"""Those of them that take part in an answer."""

_OPENED = ("torchvision", "timm")
"""Libraries whose classes may have what their objects print and pickle written by hand."""

_PRINTED = ("torch._", "torch.fx", "torch.jit", "torch.export")
"""Modules of torch's machinery: its objects hold programs, which are pinned where the module is."""

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")
_CONTENTS = (
    *(Mapping, list, tuple, set, frozenset, str, int, float, complex, bytes, bytearray, PurePath),
    *(np.ndarray, Tensor),
)
"""Kinds whose contents count, whatever attributes a class of the user's adds to them."""


def digest_of(value: object, own: Collection[str], *, named: bool = False) -> str:
    """The sha256 of a value and all that it refers to.

    Of modules: all parameters and buffers, with their names, structure, hooks and further attributes. Of
    functions: what they refer to outside themselves. Of other objects: what pickle would write. Of absolute
    paths: their last name. Of loggers, locks, threads, weak references and random generators: their type.

    Args:
        value: a module, a transform, or anything in them.
        own: names of the user's modules, whose classes and functions are looked into.
        named: whether the files that objects are made from are known otherwise; then of an object that does
            not say what it holds, its type counts.

    Raises:
        UnpinnedError: an object does not say what it holds.
    """
    return _Digests(frozenset(own), named=named).of(value).hex()


class _Digests:
    """Digests of values that may refer to each other in circles.

    Args:
        own: names of the user's modules.
        named: see `digest_of`.
    """

    def __init__(self, own: frozenset[str], *, named: bool) -> None:
        self._own = own
        self._named = named
        self._depth = 0
        self._in_library = False
        # Values are kept, so that no other one gets the address of one that was met
        self._known: dict[int, tuple[bytes, object]] = {}

    def of(self, value: object) -> bytes:
        """The sha256 of a value; of one that refers to itself, as far as the circle."""
        if id(value) not in self._known:
            self._known[id(value)] = (f"circle {self._depth}".encode(), value)
            self._depth += 1
            try:
                digest = _sha256(self._parts(value))
            except BaseException:
                del self._known[id(value)]
                raise
            finally:
                self._depth -= 1
            self._known[id(value)] = (digest, value)
        return self._known[id(value)][0]

    def _alone(self, value: object) -> bytes:
        """The digest of a member of a set, which depends on no other that was met before it by chance."""
        count = len(self._known)
        digest = self.of(value)
        while len(self._known) > count:
            self._known.popitem()
        return digest

    def _parts(self, value: Any) -> Iterator[bytes]:
        kind = type(value)
        yield f"{kind.__module__}.{kind.__qualname__}".encode()
        if is_incidental(value):
            yield from self._attributes(_public(value) if self._is_own(kind) else {})
            return
        yield from self._value_parts(value)
        if self._is_own(kind) and isinstance(value, _CONTENTS):  # others have been looked into
            yield self.of(kind)
            yield from self._attributes(attributes_of(value))

    def _value_parts(self, value: Any) -> Iterator[bytes]:
        match value:
            case Enum():
                yield str(value.name).encode() + self.of(value.value)
                yield self.of(type(value))
            case None | bool() | int() | float() | complex() | str() | np.generic() | PurePath():
                yield _scalar(value)
            case Tensor():
                yield from _tensor_parts(value)
            case np.ndarray():
                yield from self._array_parts(value)
            case bytes() | bytearray() | memoryview() | mmap.mmap():
                yield value[:] if isinstance(value, mmap.mmap) else bytes(value)
            case nn.Module():
                yield from self._network_parts(value)
            case Mapping():
                yield self.of(value.default_factory) if isinstance(value, defaultdict) else b""
                for key, inner in value.items():
                    yield self.of(key) + self.of(inner)
            case list() | tuple():
                yield from map(self.of, value)
            case set() | frozenset():
                yield from sorted(map(self._alone, value))
            case _:
                yield from self._code_parts(value)

    def _code_parts(self, value: Any) -> Iterator[bytes]:
        match value:
            case ModuleType():
                yield value.__name__.encode()
                if value.__name__ in self._own:
                    yield from self._attributes(_without_dunders(vars(value)))
            case type():
                yield from self._class_parts(value)
            case FunctionType():
                yield from self._function_parts(value)
            case MethodType():
                yield self.of(value.__self__) + self.of(value.__func__)
            case CodeType():
                yield value.co_code + self.of((value.co_names, value.co_varnames, value.co_consts))
            case functools.partial():
                yield from map(self.of, (value.func, value.args, value.keywords))
            case staticmethod() | classmethod():
                yield self.of(value.__func__)
            case property():
                yield self.of(value.fget)
            case functools._lru_cache_wrapper():
                yield self.of(value.__wrapped__)
            case struct.Struct():
                yield value.format.encode()
            case _:
                yield from self._object_parts(value)

    def _array_parts(self, array: np.ndarray[Any, Any]) -> Iterator[bytes]:
        yield f"{array.dtype} {array.shape}".encode()
        if isinstance(array, np.ma.MaskedArray):
            yield self.of(np.ma.getmaskarray(array)) + self.of(array.filled())
        elif array.dtype.names:  # the bytes between its fields may be anything
            yield from (self.of(array[name]) for name in array.dtype.names)
        elif array.dtype.hasobject:
            yield from map(self.of, array.ravel())
        else:
            yield array.tobytes()

    def _network_parts(self, network: nn.Module) -> Iterator[bytes]:
        parameters = network.named_parameters(remove_duplicate=False)
        buffers = network.named_buffers(remove_duplicate=False)
        for name, tensor in [*network.state_dict(keep_vars=True).items(), *parameters, *buffers]:
            yield name.encode() + self.of(tensor)
        for name, part in network.named_modules(remove_duplicate=False):
            yield f"{name} {type(part).__qualname__} {part.training} {_structure(part)}".encode()
            yield self.of(type(part)) + _program(part)
            attributes = {key: value for key, value in vars(part).items() if key not in _OF_EVERY_MODULE}
            yield from self._attributes(attributes)
            for hooks in _HOOKS:  # their keys are numbers that the process counts up
                yield from map(self.of, getattr(part, hooks).values())

    def _class_parts(self, kind: type) -> Iterator[bytes]:
        yield f"{kind.__module__}.{kind.__qualname__}".encode()
        if self._is_own(kind):
            yield from map(self.of, kind.__bases__)
            methods = {name: value for name, value in vars(kind).items() if callable(value)}
            yield from self._attributes(_without_dunders(vars(kind)) | methods)

    def _function_parts(self, function: FunctionType) -> Iterator[bytes]:
        code, outside = function.__code__, function.__globals__
        yield f"{function.__module__}.{function.__qualname__}".encode()
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        if str(outside.get("__name__")).startswith(_PRINTED):
            cells = [cell for cell in cells if callable(cell) and not _is_printed(cell)]
        if outside.get("__name__") not in self._own:
            yield from self._library_parts(function, cells)
            return
        # Its source is pinned by its module's file; the place tells lambdas of one function apart
        yield str(_place_of(code)).encode()
        yield self.of((function.__defaults__, function.__kwdefaults__, vars(function)))
        yield from map(self.of, cells)
        if code.co_filename.startswith("<"):  # made by exec or eval: no file has its source
            yield self.of(code)
        used = {name: outside[name] for name in _globals_in(code) & outside.keys()}
        yield from self._members(used, _names_in(code), set())

    def _members(
        self, members: Mapping[str, object], names: set[str], seen: set[ModuleType]
    ) -> Iterator[bytes]:
        """What some code uses, by name; of the user's modules among it, what the code names in them."""
        modules = {
            name: value
            for name, value in members.items()
            if isinstance(value, ModuleType) and value.__name__ in self._own
        }
        yield from self._attributes({name: members[name] for name in members.keys() - modules.keys()})
        for name, module in sorted(modules.items()):
            yield name.encode()
            if module not in seen:
                seen.add(module)
                inner = {name: vars(module)[name] for name in names & vars(module).keys()}
                yield from self._members(inner, names, seen)

    def _object_parts(self, value: Any) -> Iterator[bytes]:
        kind = type(value)
        if self._is_own(kind):
            yield self.of(kind)
            yield from self._attributes(attributes_of(value))
            if not all(base is object or self._is_own(base) for base in kind.__mro__):
                yield from self._library_parts(value, state_of(value))
        elif _root(value) in _OPENED or is_dataclass(value):
            yield self.of(kind)
            yield from self._attributes(attributes_of(value))
        elif isinstance(value, torch.Generator):
            yield self.of(value.get_state())
        elif _is_printed(value):
            yield stable_repr(value).encode() + _program(value)
        elif callable(value) and hasattr(value, "__wrapped__"):  # a compiled function
            yield self.of(value.__wrapped__)
        else:
            yield from self._library_parts(value, state_of(value))

    def _library_parts(self, value: object, parts: Iterable[object]) -> Iterator[bytes]:
        """What an object of a library holds; if any of it cannot be told, then it all cannot.

        Raises:
            UnpinnedError: it cannot be told, and the files that it is made from are not named.
        """
        if self._in_library:
            yield from map(self.of, parts)
            return
        self._in_library = True
        try:
            digest = _sha256(map(self.of, parts))
        except Exception:  # the library's code
            if not self._named and _root(value) != "torch":
                raise UnpinnedError(value) from None
            digest = stable_repr(value).encode()
        finally:
            self._in_library = False
        yield digest

    def _attributes(self, attributes: Mapping[str, object]) -> Iterator[bytes]:
        for name, value in sorted(attributes.items()):
            if name.startswith("_torchdynamo"):  # addresses, on what torch.compile wrapped
                continue
            try:
                yield name.encode() + self.of(value)
            except UnpinnedError as error:
                error.names.insert(0, name)
                raise

    def _is_own(self, kind: type) -> bool:
        return kind.__module__ in self._own


def _sha256(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _scalar(value: Any) -> bytes:
    """The value of a number, a text or a path, whatever a class of the user's prints of it."""
    match value:
        case str():
            return without_folder(str.__str__(value)).encode(errors="surrogatepass")
        case PurePath():
            return without_folder(os.fspath(value)).encode(errors="surrogatepass")
        case np.generic():
            return f"{value.dtype}".encode() + value.tobytes()
        case int():
            return hex(value).encode()  # repr refuses long ones
        case float() | complex():
            return repr(complex(value)).encode()
    return b""


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
        return without_places(module.extra_repr())
    except Exception:  # the user's code
        return ""


def _program(value: object) -> bytes:
    """The code of what torch.jit or torch.fx made, whose classes have none."""
    code = getattr(value, "code", None)
    return code.encode() if isinstance(code, str) else b""


def _is_printed(value: object) -> bool:
    return str(type(value).__module__).startswith(_PRINTED)


def _root(value: object) -> str:
    """The library that a function or an object's class is of."""
    kind = value if isinstance(value, FunctionType) else type(value)
    return str(kind.__module__).partition(".")[0]


def _public(value: object) -> dict[str, object]:
    return {name: inner for name, inner in attributes_of(value).items() if not name.startswith("_")}


def _without_dunders(attributes: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in attributes.items() if not name.startswith("__")}


def _place_of(code: CodeType) -> tuple[int, int]:
    """The line that a function begins in, and of a lambda the column of its body."""
    columns = [start for line, _, start, _ in code.co_positions() if line and start]
    return code.co_firstlineno, min(columns, default=0) if code.co_name == "<lambda>" else 0


def _inner(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _inner(constant)


def _names_in(code: CodeType) -> set[str]:
    """Names of globals and attributes that a function's code uses."""
    return {name for part in _inner(code) for name in part.co_names}


def _globals_in(code: CodeType) -> set[str]:
    """Names that a function's code looks up in its module."""
    steps = (step for part in _inner(code) for step in dis.get_instructions(part))
    return {str(step.argval) for step in steps if step.opname in _LOADS}


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - asking raises
    except ValueError:
        return False
    return True
