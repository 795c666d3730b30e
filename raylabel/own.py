"""raylabel's packages in a process of the user's, who may have packages of the same names.

`jobs`, `schemas` and `workers` are the names of many a folder. In a notebook they are the user's: raylabel's
are in their place for as long as its own code runs, and then put aside again.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

from fsspec.registry import _registry as file_systems

from raylabel.command import OWN_FOLDER, PACKAGES

WEB = ("http", "https")
"""Schemes for which fsspec gets a file system of raylabel's where one of its URLs is used."""

_lock = threading.RLock()
_modules: dict[str, ModuleType] = {}
_web: dict[str, Any] = {}
"""What is put aside between two blocks."""

_blocks: list[None] = []


@contextlib.contextmanager
def own_modules() -> Iterator[None]:
    """Makes `import jobs` raylabel's for the length of a block; what is made in it lives on.

    Afterwards the user's modules of these names are as they were, and so are the file systems that fsspec
    takes for web addresses. One thread at a time is in such a block; another one that imports a module of the
    user's with one of these names meanwhile finds raylabel's.
    """
    with _lock:
        if _blocks:  # this thread is in one already
            yield
            return
        with _exchanged(sys.modules, PACKAGES, _modules), _exchanged(file_systems, WEB, _web):
            _blocks.append(None)
            try:
                _import_packages()
                yield
            finally:
                _blocks.pop()


@contextlib.contextmanager
def _exchanged(registry: dict[str, Any], names: tuple[str, ...], own: dict[str, Any]) -> Iterator[None]:
    """Puts own entries in the place of those with some names, or with names below them, for a block."""
    others = _taken(registry, names)
    registry.update(own)
    try:
        yield
    finally:
        own.update(_taken(registry, names))
        registry.update(others)


def _taken(registry: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The entries with some names, or with names below them, taken out."""
    return {name: registry.pop(name) for name in [*registry] if name.partition(".")[0] in names}


def _import_packages() -> None:
    """Imports raylabel's packages from where raylabel is, whatever comes before it on the module path."""
    for name in PACKAGES:
        if name not in sys.modules:
            spec = PathFinder.find_spec(name, [OWN_FOLDER])
            if spec is None or spec.loader is None:
                raise ImportError(f"raylabel lacks its package {name!r} in {OWN_FOLDER}; install it again")
            sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
