"""What each thread of a child is at, in memory that its parent reads, and whether it takes too long.

Time is the processor time of the thread: a busy or stopped machine makes no step late.
"""

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Stage
from workers.process.shared_buffer import BufferAddress, SharedBuffer, attach

SLOTS = 512
"""Threads of a child that are watched; more are not."""

UNKNOWN = -1
"""Instead of a row: a step that is not about one row alone."""

_STAGES = tuple(Stage)
_FIELDS = 5
_SERIAL, _THREAD, _STAGE, _ROW, _IMAGES = range(_FIELDS)
_TICKS = os.sysconf("SC_CLK_TCK")


class Step(NamedTuple):
    """What a thread is at.

    Attributes:
        stage: of the job.
        row: manifest row of the image; None if it is unknown or not the only one.
        limit_s: processor seconds that the step may take.
    """

    stage: Stage
    row: int | None
    limit_s: float


class StepBoard:
    """The steps of this process, in memory that its parent has made. A copy that a model forks writes none.

    Args:
        memory: of the board.
    """

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._slots = _slots(memory)
        self._numbers, self._serials = itertools.count(), itertools.count(1)
        self._thread = threading.local()
        self._pid = os.getpid()

    @contextlib.contextmanager
    def step(self, stage: Stage, rows: Sequence[int]) -> Iterator[None]:
        """Shows that this thread is at a step, for the length of a block.

        Args:
            stage: of the job.
            rows: the manifest rows of its images, `UNKNOWN` where they are not known; of one of which it has
                several parts as often.
        """
        slot = self._slot()
        if slot is None:
            yield
            return
        row = rows[0] if len(set(rows)) == 1 else UNKNOWN  # several objects may be of one image
        slot[_THREAD:] = threading.get_native_id(), _STAGES.index(stage), row, len(rows)
        slot[_SERIAL] = next(self._serials)  # last: from here on the slot counts
        try:
            yield
        finally:
            if os.getpid() == self._pid:
                slot[_SERIAL] = 0

    def _slot(self) -> NDArray[np.int64] | None:
        if os.getpid() != self._pid:
            return None
        number: int | None = getattr(self._thread, "number", None)
        if number is None:
            number = self._thread.number = next(self._numbers)
        return self._slots[number] if number < SLOTS else None


_board: StepBoard | None = None


def show_steps(address: BufferAddress) -> None:
    """From now on this process shows its steps to its parent.

    Raises:
        OSError: the parent has exited.
    """
    global _board  # noqa: PLW0603 - a process has one parent
    _board = StepBoard(attach(address))


def step(stage: Stage, rows: Sequence[int]) -> contextlib.AbstractContextManager[None]:
    """See `StepBoard.step`; nothing in a process without a parent that watches."""
    return _board.step(stage, rows) if _board else contextlib.nullcontext()


class StepWatch:
    """Finds a step of another process that takes too long.

    Args:
        timeouts: for each stage that has a limit, the processor seconds that one image may take.
    """

    def __init__(self, timeouts: Mapping[Stage, float]) -> None:
        self._timeouts = timeouts
        self._buffer = SharedBuffer(SLOTS * _FIELDS * np.dtype(np.int64).itemsize)
        self._slots = _slots(self._buffer.bytes)
        self._began: dict[int, tuple[int, float]] = {}
        self._last = 0

    @property
    def address(self) -> BufferAddress:
        """What the other process passes to `show_steps`."""
        return self._buffer.address

    @property
    def longest_s(self) -> float:
        """The longest of the limits; 0 where there is none."""
        return max(self._timeouts.values(), default=0)

    def moved(self) -> bool:
        """Whether a step has begun since the previous call, as far as this has been looking."""
        before, self._last = self._last, max(self._last, int(self._slots[:, _SERIAL].max()))
        return self._last > before

    def late(self, pid: int) -> Step | None:
        """A step of a process that has taken longer than it may, as far as this has been looking."""
        for number in np.flatnonzero(self._slots[:, _SERIAL]).tolist():
            serial, thread, stage, row, images = self._slots[number].tolist()
            limit_s = self._timeouts.get(_STAGES[stage])
            if not serial or limit_s is None:
                continue
            now = thread_cpu_s(pid, thread)
            known, began = self._began.get(number, (0, 0.0))
            if serial != known:
                self._began[number] = serial, now
            elif now - began > limit_s * images and self._slots[number, _SERIAL] == serial:
                return Step(_STAGES[stage], None if row == UNKNOWN else row, limit_s * images)
        return None

    def close(self) -> None:
        """Gives the memory back."""
        self._buffer.close()


def thread_cpu_s(pid: int, thread: int) -> float:
    """Processor seconds that a thread of a process has used; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime: proc(5)


def _slots(memory: NDArray[np.uint8]) -> NDArray[np.int64]:
    return memory.view(np.int64).reshape(SLOTS, _FIELDS)
