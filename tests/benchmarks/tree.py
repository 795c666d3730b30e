"""What a command takes of the machine with all its processes: CPU time and memory, sampled."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import psutil

SAMPLE_S = 0.5


@dataclass
class Tree:
    """A process and all that descend from it, while it runs.

    CPU time is what each process had used when it was last seen, so what one did in its last half second is
    missing. Memory is the sum of their proportional set sizes (PSS): what several share, as Ray's object
    store and pages that a fork has not written to, counts once.

    Args:
        pid: the process.

    Attributes:
        peak: of the memory of all, in bytes.
        root_peak: of the resident memory of the process itself, in bytes.
    """

    pid: int
    peak: int = 0
    root_peak: int = 0
    _used: dict[psutil.Process, float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all processes until now."""
        self._look()
        return sum(self._used.copy().values())

    @contextlib.contextmanager
    def watched(self) -> Iterator[Self]:
        """Samples for the length of a block."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._look()
            self.peak = max(self.peak, sum(self._memory()))

    def _look(self) -> None:
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self._used[process] = times.user + times.system

    def _memory(self) -> Iterator[int]:
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = process.memory_full_info()
                if process.pid == self.pid:
                    self.root_peak = max(self.root_peak, memory.rss)
                yield memory.pss

    def _processes(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        return []
