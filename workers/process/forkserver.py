"""A process that has imported what takes seconds to import, and forks children that begin with it.

A child serves the process that asked for it, over the connection that it asked by, with that process's
surroundings. It ends with it, however that ends.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path

LABELLER_MODULE = "workers.label.labeller"
"""What takes seconds to import: torch and its companions."""

MALLOC_ENV = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""For glibc: the memory of images is used again for the next ones, up to 256 MB. Given back and taken anew,
it has to be zeroed again, which takes a third of the time of decoding."""

_OOM_SCORE = Path("/proc/self/oom_score_adj")


class ForkServer:
    """Runs from now on until this process ends. Whoever may read its folder may ask it for children.

    It never runs what it has imported: threads and a GPU's state do not outlive a fork.

    Args:
        preload: the module to import.

    Attributes:
        address: where to ask; a socket in a folder that only this user may enter.
    """

    def __init__(self, preload: str) -> None:
        folder = tempfile.mkdtemp(prefix="raylabel-")
        self.address = f"{folder}/nursery"
        # -P: of the working directory, which may hold another `workers`, only what this process's path names
        command = [
            sys.executable,
            "-P",
            "-c",
            "from workers.process.forkserver import run_server; run_server()",
            preload,
            self.address,
        ]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen(128)
            self._process = subprocess.Popen(
                [*command, str(listener.fileno())],
                stdin=subprocess.PIPE,  # its end tells the nursery that this process is gone
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                env={
                    **MALLOC_ENV,
                    "TORCHINDUCTOR_CACHE_DIR": folder,  # torch makes one where it is imported, and leaves it
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
            )

    def end(self) -> None:
        """Ends it; its children live on as long as those that they serve."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        shutil.rmtree(Path(self.address).parent, ignore_errors=True)


@functools.cache
def shared_fork_server() -> ForkServer:
    """The nursery of this process for children that label; the first call starts it and does not wait."""
    fork_server = ForkServer(LABELLER_MODULE)
    atexit.register(fork_server.end)
    return fork_server


@dataclass(frozen=True)
class ProcessContext:
    """What a child takes over from the process that it serves, as if that had started it.

    Attributes:
        environment: its environment.
        path: where it finds modules.
        niceness: its scheduling priority.
        oom_score: how readily the kernel ends it when memory runs out; "" where that is not known.
    """

    environment: dict[str, str]
    path: list[str]
    niceness: int
    oom_score: str

    @classmethod
    def here(cls) -> "ProcessContext":
        """Those of this process."""
        score = _OOM_SCORE.read_text() if _OOM_SCORE.is_file() else ""
        return cls(dict(os.environ), list(sys.path), os.getpriority(os.PRIO_PROCESS, 0), score)

    def apply(self) -> None:
        """Makes them this process's."""
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path[:] = self.path
        with contextlib.suppress(OSError):  # only root may undo what was asked of this process
            os.setpriority(os.PRIO_PROCESS, 0, self.niceness)
        with contextlib.suppress(OSError):
            _OOM_SCORE.write_text(self.oom_score)


def spawn(fork_server: str) -> Connection:
    """The connection that a new child serves on (see `run_server`); its pid is the first that it says.

    Does not wait for it, as the nursery may still be importing. The child writes on this process's stderr.

    Raises:
        OSError: there is no nursery at that address, or no more.
    """
    pipe = Client(fork_server, "AF_UNIX")
    pipe.send(None)
    pipe.send(ProcessContext.here())
    send_handle(pipe, 2, 0)  # it is Windows that wants a pid
    return pipe


def exit_code(fork_server: str, pid: int) -> int | None:
    """Waits for a child that is dying; its exit code (of a signal: negative), None where nobody knows."""
    with contextlib.suppress(OSError, EOFError), Client(fork_server, "AF_UNIX") as pipe:
        pipe.send(pid)
        code: int | None = pipe.recv()
        return code
    return None


def run_server() -> None:
    """The nursery's side. A child then calls `workers.process.serve.serve`."""
    preload, address, listener = sys.argv[1:]
    with contextlib.suppress(Exception):  # what cannot be imported is said by the child that needs it
        importlib.import_module(preload)
    gc.freeze()  # children share the memory of what was imported as long as their collectors leave it alone
    codes: dict[int, int] = {}
    with socket.socket(fileno=int(listener)) as asked:
        while sys.stdin.fileno() not in wait([asked, sys.stdin.fileno()]):
            with contextlib.suppress(OSError, EOFError), Connection(asked.accept()[0].detach()) as pipe:
                pid = pipe.recv()
                if pid is not None:
                    pipe.send(_code_of(pid, codes))
                elif (child := os.fork()) == 0:
                    asked.close()
                    _begin(pipe)
                else:
                    codes.pop(child, None)  # of an earlier child with the same pid
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def _begin(pipe: Connection) -> None:
    """A child's beginning; it never returns."""
    from workers.process.serve import serve

    code = 1
    try:
        pipe.recv().apply()
        stderr = recv_handle(pipe)
        pipe.send(os.getpid())
        for stream in (1, 2):
            os.dup2(stderr, stream)
        threading.Thread(target=_end_with, args=[pipe.fileno()], daemon=True).start()
        serve(pipe)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end_with(pipe: int) -> None:
    """Ends this process when nobody is at the other end of a connection any more."""
    poll = select.poll()
    poll.register(pipe, 0)  # nothing but a hang-up
    poll.poll()
    os._exit(1)


def _code_of(pid: int, codes: dict[int, int]) -> int | None:
    """The exit code of a child, waited for; None of one that is not this nursery's."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            codes[ended[0]] = os.waitstatus_to_exitcode(ended[1])
        if pid not in codes:
            codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return codes.get(pid)
