"""Child processes for code that may crash: start one, call it, and learn why it crashed.

Decoders and models are native code that a file can make crash, and memory can run out without an exception. A
crash in a child harms no other process. Children come from a fork server, so a replacement starts at once.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ProcessDiedError
from workers.process.forkserver import exit_code, spawn
from workers.process.memory import kernel_kills, memory
from workers.process.output import relay_to_stderr
from workers.process.steps import StepWatch

_log = logging.getLogger(__name__)

POLL_S = 0.2
"""Seconds between two checks of the memory of a child that is at work."""

NO_TIMEOUTS: Mapping[Stage, float] = {}
RELAY_S = 1
"""Seconds that the last output of a child that ended has to arrive."""

HANG_TIMEOUT_S = 900
"""Seconds without a message or a new step after which a child counts as hung: building the models takes less,
and so do all retries of a batch. The longest of a child's timeouts comes on top."""


class Child:
    """A function that runs in a process of its own, which exits with this one.

    Args:
        fork_server: address of the fork server that forks the process.
        build: called once in the child with `argument`; returns the function, which is called with a request
            and a `StageCallback`. Both functions, their arguments and their results are pickled.
        argument: for `build`.
        memory_share: fraction of the machine's memory that the child may use. When the machine is nearly full
            a child that uses more is killed, before Ray or the kernel kills a process of their choice.
        timeouts: for each stage that has a limit, the processor seconds that one image may take; a child that
            takes longer is killed.
        plain_output: whether its stdout and stderr pass through this process, which drops control characters:
            for a terminal.

    Raises:
        OSError: no fork server listens at that address.
    """

    def __init__(  # noqa: PLR0913 - whom it asks, what it builds, what it may take, where it writes
        self,
        fork_server: str,
        build: Callable[[Any], Callable[..., Any]],
        argument: Any,
        memory_share: float,
        timeouts: Mapping[Stage, float] = NO_TIMEOUTS,
        *,
        plain_output: bool = False,
    ) -> None:
        self._fork_server = fork_server
        self._memory_limit = memory_share * memory().limit
        self._stage = Stage.DECODE
        self._kernel_kills = kernel_kills()
        self._exited = False
        self._relay: threading.Thread | None = None
        if plain_output:
            output, self._relay = relay_to_stderr()
            try:
                self._pipe, self._owner = spawn(fork_server, output)
            finally:
                os.close(output)
        else:
            self._pipe, self._owner = spawn(fork_server)
        self._steps = StepWatch(timeouts)
        self._pipe.send((build, argument, self._steps.address))
        self._pid: int | None = None
        self._is_pid_known = threading.Event()
        # not in the main thread: a stop that a signal raises there would lose what has just been received
        threading.Thread(target=self._receive_pid, name="pid of a child", daemon=True).start()

    def _receive_pid(self) -> None:
        try:
            with contextlib.suppress(EOFError, OSError):
                self._pid = self._pipe.recv()
                _log.debug("child process %s started", self._pid)
        finally:
            self._is_pid_known.set()

    @property
    def pid(self) -> int | None:
        """The child's pid; the first access waits for it. None if the fork server exited before it forked."""
        self._is_pid_known.wait()
        return self._pid

    def __call__(self, request: Any) -> Any:
        """The function's answer to a request; the first call also waits until the function is built.

        Raises:
            ProcessDiedError: the process crashed, or was killed; this object is of no more use.
            RaylabelError: raised by the function, or by `build`.
        """
        try:
            self._pipe.send(request)
            while self.pid:
                last_message = time.monotonic()
                while not self._pipe.poll(POLL_S):
                    if self._steps.moved():  # an image of many tiles may take an hour without a message
                        last_message = time.monotonic()
                    self._assert_memory_share(self.pid)
                    self._assert_responsive(last_message)
                    self._assert_in_time(self.pid)
                    # a process that it forked may hold its end of the pipe
                    if has_exited(self.pid) and not self._pipe.poll():
                        raise self._exit_error()
                kind, value = self._pipe.recv()
                match kind:
                    case "stage":
                        self._stage = value
                    case "answer":
                        return value
                    case "raised":
                        raise value
                    case "crashed":
                        raise self._crash(*value)
        except (EOFError, ConnectionError):
            pass
        raise self._exit_error()

    def end(self) -> None:
        """Kills the process and those that it forked, if they still run."""
        pid = self.pid
        self._pipe.close()
        if pid and not self._exited:  # once it is reaped, its pid may belong to another process
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            exit_code(self._fork_server, pid)
            self._exited = True
        self._owner.close()
        self._steps.close()
        if self._relay:
            self._relay.join(RELAY_S)

    def _assert_memory_share(self, pid: int) -> None:
        try:
            used = psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            return  # the pipe reports its exit
        if used > self._memory_limit and memory().is_nearly_full:
            raise self._crash(
                ErrorCode.OUT_OF_MEMORY,
                f"had {used >> 20:,} MB, more than its share of {int(self._memory_limit) >> 20:,} MB, "
                "when the machine's memory was nearly full",
            )

    def _assert_responsive(self, last_message: float) -> None:
        hang_timeout_s = HANG_TIMEOUT_S + self._steps.longest_s
        if time.monotonic() - last_message > hang_timeout_s:
            raise self._crash(ErrorCode.WORKER_CRASHED, f"hung: no message from it for {hang_timeout_s:g} s")

    def _assert_in_time(self, pid: int) -> None:
        late = self._steps.late(pid)
        if late:
            self._stage = late.stage
            message = f"took more than {late.limit_s:g} s of processor time"
            raise self._crash(ErrorCode.TIMEOUT, message, late.row)

    def _exit_error(self) -> ProcessDiedError:
        """The error of a child that exited by itself; its cause is the exit code."""
        code = exit_code(self._fork_server, self.pid) if self.pid else None
        self._exited = True
        if code is None:  # the fork server is its parent and alone knows the exit code
            message = "ended together with the fork server that started it"
        elif code < 0:
            message = f"signal {signal.Signals(-code).name}"
        else:
            message = f"exit code {code}"
        # The kernel kills with SIGKILL, as anybody may; its own count tells the two apart
        if code == -signal.SIGKILL and kernel_kills() > self._kernel_kills:
            return self._crash(ErrorCode.OUT_OF_MEMORY, f"{message}, out of memory")
        return self._crash(ErrorCode.WORKER_CRASHED, message)

    def _crash(self, code: ErrorCode, message: str, row: int | None = None) -> ProcessDiedError:
        """Logs why the child is lost, and returns the error to raise."""
        _log.warning("child process %s crashed in stage %s: %s: %s", self.pid, self._stage, code, message)
        return ProcessDiedError(self._stage, code, message, row)


def has_exited(pid: int) -> bool:
    """Whether a process has exited; its parent, the fork server, may not have reaped it."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
