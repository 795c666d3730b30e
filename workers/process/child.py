"""Processes of their own for what may crash: started, asked, and their death told from an answer.

Decoders and models are native code that a file can make crash, and memory runs out without an exception. What
runs in a child takes nobody along. Children come from a nursery, so that the next one is there at once.
"""

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ProcessDiedError
from workers.process.forkserver import exit_code, spawn
from workers.process.memory import kernel_kills, memory

POLL_S = 0.2
"""Seconds between two looks at the memory of a process that is at work."""

HANG_TIMEOUT_S = 900
"""Seconds without a stage or an answer after which a process hangs: by then the models have been built, or a
chunk of images tried as often as it may be."""


class Child:
    """A function kept in a process of its own, which ends with this one.

    Args:
        fork_server: the address of the nursery that it comes from.
        build: called there, once, with `argument`; gives the function, which is called with a request and a
            `StageCallback`. Both, and what they take and give, are pickled.
        argument: for `build`.
        memory_share: of the machine's memory that is its own; a process that has more is killed when the
            machine is nearly full, before Ray or the kernel kills whomever they choose.

    Raises:
        OSError: there is no nursery at that address, or no more.
    """

    def __init__(
        self, fork_server: str, build: Callable[[Any], Callable[..., Any]], argument: Any, memory_share: float
    ) -> None:
        self._fork_server = fork_server
        self._memory = memory_share * memory().limit
        self._stage = Stage.DECODE
        self._kills = kernel_kills()
        self._ended = False
        self._pipe = spawn(fork_server)
        self._pipe.send((build, argument))

    @functools.cached_property
    def pid(self) -> int | None:
        """Of the process, waited for; None where its nursery died before there was one."""
        with contextlib.suppress(EOFError, ConnectionError):
            pid: int = self._pipe.recv()
            return pid
        return None

    def __call__(self, request: Any) -> Any:
        """What the function answers; the first call waits until it is built.

        Raises:
            ProcessDiedError: the process ended instead; this object is of no more use.
            RaylabelError: the function, or building it, raised it.
        """
        try:
            self._pipe.send(request)
            while self.pid:
                heard = time.monotonic()
                while not self._pipe.poll(POLL_S):
                    self._assert_memory(self.pid)
                    self._assert_heard(heard)
                kind, value = self._pipe.recv()
                match kind:
                    case "stage":
                        self._stage = value
                    case "answer":
                        return value
                    case "raised":
                        raise value
                    case "dying":
                        raise ProcessDiedError(self._stage, *value)
        except (EOFError, ConnectionError):
            pass
        raise self._exit_error()

    def end(self) -> None:
        """Kills the process, if it is still there."""
        pid = self.pid
        self._pipe.close()
        if pid and not self._ended:  # else its pid may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            exit_code(self._fork_server, pid)
            self._ended = True

    def _assert_memory(self, pid: int) -> None:
        try:
            used = psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            return  # its death is seen on the pipe
        if used > self._memory and memory().is_nearly_full:
            raise ProcessDiedError(
                self._stage,
                ErrorCode.OUT_OF_MEMORY,
                f"had {used >> 20:,} MB, more than its share of {int(self._memory) >> 20:,} MB, when the "
                "machine's memory was nearly full",
            )

    def _assert_heard(self, last: float) -> None:
        if time.monotonic() - last > HANG_TIMEOUT_S:
            raise ProcessDiedError(
                self._stage, ErrorCode.WORKER_CRASHED, f"hung: it said nothing for {HANG_TIMEOUT_S} s"
            )

    def _exit_error(self) -> ProcessDiedError:
        returned = exit_code(self._fork_server, self.pid) if self.pid else None
        self._ended = True
        if returned is None:
            how = "ended together with the process that had started it"
        elif returned < 0:
            how = f"signal {signal.Signals(-returned).name}"
        else:
            how = f"exit code {returned}"
        starved = returned == -signal.SIGKILL and kernel_kills() > self._kills
        code = ErrorCode.OUT_OF_MEMORY if starved else ErrorCode.WORKER_CRASHED
        return ProcessDiedError(self._stage, code, f"{how}, out of memory" if starved else how)
