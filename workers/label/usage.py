"""What work takes, added up by the threads that do it."""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

from schemas.metrics import Usage


class UsageMeter:
    """Adds up seconds and bytes, from any thread, until they are taken out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage_s: defaultdict[str, float] = defaultdict(float)
        self._fetched_bytes = 0

    @contextlib.contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Counts the seconds of a block for a stage, however it ends."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            with self._lock:
                self._stage_s[stage] += seconds

    def fetched(self, size: int) -> None:
        """Counts the bytes of a file that was read."""
        with self._lock:
            self._fetched_bytes += size

    def take(self) -> Usage:
        """What was added up since this was called last."""
        with self._lock:
            usage = Usage(fetched_bytes=self._fetched_bytes, stage_s=dict(self._stage_s))
            self._stage_s.clear()
            self._fetched_bytes = 0
        return usage
