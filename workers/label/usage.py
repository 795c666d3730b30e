"""Seconds and bytes that work takes, added up by the threads that do it."""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

from schemas.metrics import Usage


class UsageMeter:
    """Adds up seconds and bytes from any thread, until `take` is called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage_s: defaultdict[str, float] = defaultdict(float)
        self._fetched_bytes = 0

    @contextlib.contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Counts the seconds of a block for a stage, also of one that raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            with self._lock:
                self._stage_s[stage] += seconds

    def fetched(self, size: int) -> None:
        """Counts the bytes of one file."""
        with self._lock:
            self._fetched_bytes += size

    def take(self) -> Usage:
        """Returns the usage since the previous call."""
        with self._lock:
            usage = Usage(fetched_bytes=self._fetched_bytes, stage_s=dict(self._stage_s))
            self._stage_s.clear()
            self._fetched_bytes = 0
        return usage
