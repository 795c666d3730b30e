"""Answers that are kept within a bound, and work of which only so much is done at once."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

_K = TypeVar("_K")
_T = TypeVar("_T")

Gone = Callable[[], Awaitable[bool]]
"""Tells whether who asked does not wait any more."""


class GaveUpError(Exception):
    """Who asked does not wait any more; nothing was done."""


class Kept:
    """Answers by key; those used last are kept. For one event loop.

    Args:
        most_bytes: of the answers together.

    Attributes:
        size: bytes of those that are kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._answers: OrderedDict[Hashable, bytes] = OrderedDict()
        self._making: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self.size = 0

    async def get(self, key: Hashable, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """An answer; one that is not there is made, once however many ask for it at the same time."""
        found = self._find(key)
        if found is not None:
            return found
        lock = self._making.setdefault(key, asyncio.Lock())
        async with lock:
            found = self._find(key)
            if found is None:
                found = await make()
                self._keep(key, found)
        return found

    def _find(self, key: Hashable) -> bytes | None:
        if key not in self._answers:
            return None
        self._answers.move_to_end(key)
        return self._answers[key]

    def _keep(self, key: Hashable, answer: bytes) -> None:
        if len(answer) > self._most_bytes:
            return
        self._answers[key] = answer
        self.size += len(answer)
        while self.size > self._most_bytes:
            self.size -= len(self._answers.popitem(last=False)[1])


class Latest(Generic[_K, _T]):
    """Values by key, the last so many; safe to use from several threads.

    Args:
        most: values.
    """

    def __init__(self, most: int) -> None:
        self._most, self._values = most, OrderedDict[_K, _T]()
        self._lock = threading.Lock()

    def get(self, key: _K) -> _T | None:
        """The value of a key; None: there is none, or none any more."""
        return self._values.get(key)

    def __setitem__(self, key: _K, value: _T) -> None:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)


class Lane:
    """Threads in which so many calls are made at once; others wait in the order in which they came.

    Args:
        name: of the threads.
        at_once: calls.
    """

    def __init__(self, name: str, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, name)

    async def run(self, call: Callable[[], _T], gone: Gone) -> _T:
        """The result of a call.

        Raises:
            GaveUpError: who asked had gone before its turn.
            Exception: what the call raises.
        """
        async with self._free:
            if await gone():
                raise GaveUpError
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        """Ends the threads once they have nothing to do; does not wait for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
