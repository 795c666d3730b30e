"""How many reads are under way, and how often one begins: as many as the store takes, up to what is asked."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator

MIN_STEP_S = 1.0
"""Seconds between two steps down: what was under way when the store complained does not count again."""


class AdaptiveLimiter:
    """Lets threads read: fewer when the store says that it is asked too much, slowly more when it does not.

    The bound is halved by a complaint and grows by one with each round of reads that went well (additive
    increase, multiplicative decrease: Chiu and Jain, 1989, as TCP does it, RFC 5681).

    Args:
        most: reads under way at once, at most.
        per_s: reads that may begin in a second; None: no limit.
    """

    def __init__(self, most: int, per_s: float | None = None) -> None:
        self._most = most
        self._limit = float(most)
        self._under_way = 0
        self._slowed = -math.inf  # not 0: the clock may have begun when the machine did, a moment ago
        self._gap = 1 / per_s if per_s else 0.0
        self._next = -math.inf
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Reads that may be under way at once now."""
        return int(self._limit)

    @contextlib.contextmanager
    def slot(self) -> Iterator[float]:
        """Waits until a read may begin, which ends with the block; gives the seconds waited for `per_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self.limit)
            self._under_way += 1
            begins = self._next = max(time.monotonic(), self._next + self._gap)
        try:
            wait = max(begins - time.monotonic(), 0.0) if self._gap else 0.0
            if wait:
                time.sleep(wait)
            yield wait
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify()

    def on_success(self) -> None:
        """A read was answered: a little more may be asked."""
        with self._changed:
            if self._limit < self._most:
                self._limit = min(self._most, self._limit + 1 / self._limit)
                self._changed.notify()

    def on_throttle(self) -> None:
        """The store complained: half as much is asked from now on."""
        with self._changed:
            if (now := time.monotonic()) - self._slowed >= MIN_STEP_S:
                self._slowed, self._limit = now, max(1.0, self._limit / 2)
