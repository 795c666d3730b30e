"""Limits how many reads are under way, and how many start in a second, by what the store accepts."""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterator

_log = logging.getLogger(__name__)

MIN_STEP_S = 1.0
"""Seconds between two reductions: reads that were under way at the first one do not count again."""


class AdaptiveLimiter:
    """Limits concurrent reads: halves the limit when the store throttles, then raises it slowly.

    Each round of successful reads raises the limit by one (additive increase, multiplicative decrease: Chiu
    and Jain, 1989, as in TCP, RFC 5681). Thread-safe.

    Args:
        max_reads: the highest limit, and the first.
        per_s: reads that may start in a second; None: no limit.
    """

    def __init__(self, max_reads: int, per_s: float | None = None) -> None:
        self._max_reads = max_reads
        self._limit = float(max_reads)  # fractions add up: a success raises it by 1 / limit
        self._under_way = 0
        self._reduced_at = -math.inf  # not 0: the clock may have started with the machine, a moment ago
        self._interval_s = 1 / per_s if per_s else 0.0
        self._last_start = -math.inf
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Reads that may be under way at once, as of now."""
        return int(self._limit)

    @contextlib.contextmanager
    def slot(self) -> Iterator[float]:
        """Waits until a read may start, which ends with the block; yields the seconds waited for `per_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self.limit)
            self._under_way += 1
            # Each read reserves its start here and sleeps outside of the lock, so others can reserve theirs
            start = self._last_start = max(time.monotonic(), self._last_start + self._interval_s)
        try:
            wait = max(start - time.monotonic(), 0.0) if self._interval_s else 0.0
            if wait:
                time.sleep(wait)
            yield wait
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify()

    def on_success(self) -> None:
        """Raises the limit a little, after a read that succeeded."""
        with self._changed:
            if self._limit < self._max_reads:
                self._limit = min(self._max_reads, self._limit + 1 / self._limit)
                self._changed.notify()

    def on_throttle(self) -> None:
        """Halves the limit, after a read that the store throttled."""
        with self._changed:
            before = self.limit
            if (now := time.monotonic()) - self._reduced_at >= MIN_STEP_S:
                self._reduced_at, self._limit = now, max(1.0, self._limit / 2)
            after = self.limit
        if after < before:
            _log.warning("the store throttles: reads at once limited from %d to %d", before, after)
