"""What an object of a library holds: by pickle's protocol, or by what it prints."""

import contextlib
import copyreg
import ctypes
import io
import logging
import os
import random
import re
import ssl
import subprocess
import threading
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import Executor
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any

import numpy as np

_ADDRESS = re.compile(r"(?: at)? 0x[0-9a-fA-F]+")
_PATH = re.compile(r"(?<![^\s\"'(=,\[])/[^\s\"'),\]]*")
"""What differs between processes and machines in the text of an object: its address, absolute paths."""

_FOLDER = re.compile(r"/[^/\s][^/]*/")
"""How a text begins that is an absolute path, and more than a name behind a slash."""

_INCIDENTAL = (
    *(logging.Logger, logging.LoggerAdapter, logging.Handler),
    *(type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Semaphore),
    *(threading.Event, threading.Barrier, threading.Thread, threading.local, Executor, ContextVar),
    *(weakref.ReferenceType, weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet),
    *(random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator),
    *(FrameType, TracebackType, ssl.SSLContext, type(os.environ)),
)
"""What decides no answer, and differs between processes: logs, locks, threads, caches, chance."""

_OUTSIDE = (ctypes.CDLL, subprocess.Popen)
"""What pickle's protocol takes as values, though what it does is in a file or in another process."""

_PROTOCOL = 4


class UnpinnedError(ValueError):
    """An object does not say what it holds.

    Args:
        value: the object.

    Attributes:
        names: of the attributes that lead to it, outermost first.
    """

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.names: list[str] = []
        self._kind = f"{type(value).__module__}.{type(value).__qualname__}"

    def __str__(self) -> str:
        return f"{'.'.join(self.names)}, a {self._kind}" if self.names else f"a {self._kind}"


def stable_repr(value: object) -> str:
    """An object's repr without memory addresses and absolute paths, so the same in every process."""
    try:
        return without_places(repr(value))
    except Exception:  # the user's code
        return type(value).__qualname__


def without_places(text: str) -> str:
    """What an object prints, without memory addresses and absolute paths."""
    return _PATH.sub("", _ADDRESS.sub("", text))


def without_folder(text: str) -> str:
    """The last name of an absolute path, whose folders differ between machines; any other text as it is."""
    return text.rstrip("/").rpartition("/")[2] if _FOLDER.match(text) else text


def is_incidental(value: object) -> bool:
    """Whether an object decides no answer whatever it holds: a logger, a lock, a file that is written to."""
    if isinstance(value, io.IOBase):
        return value.closed or not value.readable()
    return isinstance(value, _INCIDENTAL) or type(value).__name__ == "_abc_data"


def attributes_of(value: object) -> dict[str, object]:
    """The attributes of an object by name, also those in slots."""
    state = object.__getstate__(value)
    parts = state if isinstance(state, tuple) else (state,)
    return {str(name): inner for part in parts if isinstance(part, dict) for name, inner in part.items()}


def state_of(value: object) -> Iterator[object]:
    """What an object of a library is made of, as pickle would write it, but only the outermost layer.

    Raises:
        UnpinnedError: it cannot be pickled, and what it prints is no description of it.
    """
    if isinstance(value, _OUTSIDE):
        raise UnpinnedError(value)
    try:
        reduction = _reduction(value)
    except Exception:  # the library's code
        yield _description(value)
        return
    if isinstance(reduction, str):
        yield reduction
        return
    for part in reduction:
        yield list(part) if isinstance(part, Iterator) else part


def _reduction(value: Any) -> str | tuple[Any, ...]:
    reduce = copyreg.dispatch_table.get(type(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reduce(value) if reduce else value.__reduce_ex__(_PROTOCOL)


def _description(value: object) -> str:
    """What an object prints, where that is the code to make it.

    Raises:
        UnpinnedError: it is not: it begins with "<", as Python's own does, or holds an address.
    """
    text = ""
    with contextlib.suppress(Exception):  # the library's code
        text = repr(value)
    if not text or text.startswith("<") or _ADDRESS.search(text):
        raise UnpinnedError(value)
    return text
