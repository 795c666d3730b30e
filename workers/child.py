"""Processes of their own for what may crash: started, asked, and their death told from an answer.

Decoders and models are native code that a file can make crash, and memory runs out without an exception. What
runs in a child takes nobody along. Children are forked by a nursery, which has imported what takes seconds to
import, so that the next one is there at once.
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import psutil

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ProcessDiedError, RaylabelError
from workers.memory import kernel_kills, memory

WATCH_S = 0.2
"""Seconds between two looks at the memory of a process that is at work."""

Note = Callable[[Stage], None]
"""Called when a stage begins: what is known of a process that dies in it."""


class Nursery:
    """A process that has imported a module and forks children. All of them end with this process.

    It never runs what it has imported: threads and a GPU's state do not outlive a fork.

    Args:
        preload: the module.
    """

    def __init__(self, preload: str) -> None:
        self._preload = preload
        self._start()

    def _start(self) -> None:
        self._control, theirs = Pipe()
        command = [sys.executable, "-c", "from workers.child import nurse; nurse()"]
        self._process = subprocess.Popen(
            [*command, self._preload, str(theirs.fileno())],
            stdin=subprocess.PIPE,  # its end tells the children that this process is gone
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        theirs.close()

    def fork(self, pipe: Connection) -> int:
        """The pid of a new child, which serves on a pipe (see `serve`); the pipe is closed here."""
        with pipe:
            try:
                return self._fork(pipe)
            except (EOFError, ConnectionError):  # it was killed
                self.end()
                self._start()
                return self._fork(pipe)

    def _fork(self, pipe: Connection) -> int:
        self._control.send(None)
        send_handle(self._control, pipe.fileno(), self._process.pid)
        pid: int = self._control.recv()
        return pid

    def wait(self, pid: int) -> int | None:
        """Waits for a child that is dying; its exit code (of a signal: negative), None where nobody knows."""
        try:
            self._control.send(pid)
            code: int | None = self._control.recv()
        except (EOFError, ConnectionError):
            return None
        return code

    def end(self) -> None:
        """Ends it and, soon after, its children."""
        self._process.kill()
        self._process.wait()
        self._control.close()
        if self._process.stdin:
            self._process.stdin.close()


class Child:
    """A function kept in a process of its own, which ends with this one.

    Args:
        nursery: forks it.
        build: called there, once, with `argument`; gives the function, which is called with a request and a
            `Note`. Both, and what they take and give, are pickled.
        argument: for `build`.
        memory_share: of the machine's memory that is its own; a process that has more is killed when the
            machine is nearly full, before Ray or the kernel kills whomever they choose.
    """

    def __init__(
        self, nursery: Nursery, build: Callable[[Any], Callable[..., Any]], argument: Any, memory_share: float
    ) -> None:
        self._nursery = nursery
        self._memory = memory_share * memory().limit
        self._stage = Stage.DECODE
        self._kills = kernel_kills()
        self._pipe, theirs = Pipe()
        self.pid = nursery.fork(theirs)
        self._pipe.send((build, argument))

    def __call__(self, request: Any) -> Any:
        """What the function answers; the first call waits until it is built.

        Raises:
            ProcessDiedError: the process ended instead; this object is of no more use.
            RaylabelError: the function, or building it, raised it.
        """
        try:
            self._pipe.send(request)
            while True:
                while not self._pipe.poll(WATCH_S):
                    self._assert_memory()
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
            raise self._death() from None

    def end(self) -> None:
        """Kills the process, if it is still there."""
        self._pipe.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._nursery.wait(self.pid)

    def _assert_memory(self) -> None:
        try:
            used = psutil.Process(self.pid).memory_info().rss
        except psutil.NoSuchProcess:
            return  # its death is seen on the pipe
        if used > self._memory and memory().is_nearly_full:
            raise ProcessDiedError(
                self._stage,
                ErrorCode.OUT_OF_MEMORY,
                f"had {used >> 20:,} MB, more than its share of {int(self._memory) >> 20:,} MB, when the "
                "machine's memory was nearly full",
            )

    def _death(self) -> ProcessDiedError:
        returned = self._nursery.wait(self.pid)
        if returned is None:
            how = "killed together with the process that had started it"
        elif returned < 0:
            how = f"signal {signal.Signals(-returned).name}"
        else:
            how = f"exit code {returned}"
        starved = returned == -signal.SIGKILL and kernel_kills() > self._kills
        code = ErrorCode.OUT_OF_MEMORY if starved else ErrorCode.WORKER_CRASHED
        return ProcessDiedError(self._stage, code, f"{how}, out of memory" if starved else how)


def nurse() -> None:
    """The nursery's side: imports, then forks a child for each pipe that it is given, and tells its end."""
    with contextlib.suppress(Exception):  # what cannot be imported is said by the child that needs it
        importlib.import_module(sys.argv[1])
    control, codes = Connection(int(sys.argv[2])), dict[int, int]()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pid = control.recv()
            if pid is not None:
                control.send(_code_of(pid, codes))
                continue
            pipe = recv_handle(control)
            if (child := os.fork()) == 0:
                control.close()
                serve(Connection(pipe))
                os._exit(0)
            os.close(pipe)
            control.send(child)


def _code_of(pid: int, codes: dict[int, int]) -> int | None:
    """The exit code of a child, asked for any number of times; None of one that is not this nursery's."""
    if pid not in codes:
        try:
            codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None
    return codes[pid]


def serve(pipe: Connection) -> None:
    """The child's side: builds the function, then answers requests until the other process is gone.

    An exception that is not raylabel's ends the process, as a crash does: after one of a GPU, say, nothing
    works any more.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def note(stage: Stage) -> None:
        pipe.send(("stage", stage))

    with contextlib.suppress(EOFError, ConnectionError):
        build, argument = pipe.recv()
        built = kind, function = _outcome(build, argument)
        while True:
            request = pipe.recv()
            outcome = _outcome(function, request, note) if kind == "answer" else built
            pipe.send(outcome)
            if outcome[0] == "dying":
                return


def _outcome(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """What a call came to: "answer", "raised" with raylabel's exception, or "dying" with code and reason."""
    try:
        return "answer", function(*arguments)
    except RaylabelError as error:
        return "raised", error
    except Exception as error:  # a native library may raise anything
        traceback.print_exc()
        starved = isinstance(error, MemoryError)
        code = ErrorCode.OUT_OF_MEMORY if starved else ErrorCode.WORKER_CRASHED
        return "dying", (code, f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
