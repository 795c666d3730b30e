"""A fork server: a process that imports slow modules once, then forks children that have them already.

A child serves the process that requested it, over the connection of the request and in that process's context
(environment, module path, priority, stderr). It exits when that process does, however that happens.

The standard library's `multiprocessing.forkserver` belongs to one process: each Ray actor on a machine would
start its own and import torch again. This one is shared by all processes that know its address.
"""

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Pipe, wait
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path

from workers.process.sockets import short_folder

LABELLER_MODULE = "workers.label.labeller"
"""What a fork server for labelling imports: with torch, torchvision and timm, which takes seconds."""

MALLOC_ENV = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""Environment of children, for glibc: keep up to 256 MB of freed memory for the next images. Memory that is
returned to the kernel and taken again must be zeroed again, which takes a third of the time of decoding."""

HASH_SEED = "1"
"""Of children: a set of texts has the same order in each process, and so has what a model makes of it."""

SOCKET_BYTES = len("/raylabel-12345678/socket")
"""Of the socket's path below the folder for temporary files."""

LAST = "RAYLABEL_LAST_ON_PATH"
"""Variable with folders that children search last for modules: see `raylabel/command.py`, which sets it."""

_OOM_SCORE = Path("/proc/self/oom_score_adj")


class ForkServer:
    """A running fork server, started here; it exits with this process.

    It imports its module and never calls it: threads and the state of a GPU do not survive a fork.

    Args:
        preload: name of the module to import.

    Attributes:
        address: path of its Unix socket, in a folder that only this user may enter. Any process that can open
            it can `spawn` children.
    """

    def __init__(self, preload: str) -> None:
        folder = tempfile.mkdtemp(prefix="raylabel-", dir=short_folder(SOCKET_BYTES))
        self.address = f"{folder}/socket"
        # The socket is bound here and inherited: a client can connect while the server still imports
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen(128)
            self._process = subprocess.Popen(
                [*_command(preload, self.address), str(listener.fileno())],
                stdin=subprocess.PIPE,  # closed when this process exits: the server then exits too
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                process_group=0,  # Ctrl-C at the terminal is for this process, which ends the server
                env=_environment(folder),
            )

    def end(self) -> None:
        """Kills the server and deletes its folder; its children go on until the processes they serve exit."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        shutil.rmtree(Path(self.address).parent, ignore_errors=True)


def _command(preload: str, address: str) -> list[str]:
    """The command of a server, but for the number of its socket."""
    # -P keeps the working directory, which may hold another `workers`, off the module path; PYTHONPATH gives
    # the server exactly this process's path
    code = "from workers.process.forkserver import run_server; run_server()"
    return [sys.executable, "-P", "-c", code, preload, address]


def _environment(folder: str) -> dict[str, str]:
    return {
        **MALLOC_ENV,
        "TORCHINDUCTOR_CACHE_DIR": folder,  # else torch creates a folder on import, and leaves it
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONHASHSEED": HASH_SEED,
    }


@functools.cache
def shared_fork_server() -> ForkServer:
    """This process's fork server for labelling children; the first call starts it, without waiting."""
    fork_server = ForkServer(LABELLER_MODULE)
    atexit.register(fork_server.end)
    return fork_server


def end_shared_fork_server() -> None:
    """Ends this process's fork server, if there is one, which by itself ends only once it has imported."""
    if shared_fork_server.cache_info().currsize:
        shared_fork_server().end()


@dataclass(frozen=True)
class ProcessContext:
    """What a child inherits from the process that it serves, as if that process had forked it.

    Attributes:
        environment: environment variables.
        path: `sys.path`, and at its end the folders that hide modules of Python or raylabel.
        folder: the current one; the root where that was deleted, as libraries look for it when imported.
        niceness: scheduling priority.
        oom_score: the kernel's score for killing it when memory runs out; "" if unknown.
    """

    environment: dict[str, str]
    path: list[str]
    folder: str
    niceness: int
    oom_score: str

    @classmethod
    def here(cls) -> "ProcessContext":
        """The context of this process."""
        score = _OOM_SCORE.read_text() if _OOM_SCORE.is_file() else ""
        last = filter(None, os.environ.get(LAST, "").split(os.pathsep))
        path = list(dict.fromkeys([*sys.path, *last]))
        try:
            folder = os.getcwd()
        except FileNotFoundError:
            folder = "/"
        return cls(dict(os.environ), path, folder, os.getpriority(os.PRIO_PROCESS, 0), score)

    def apply(self) -> None:
        """Gives this process the context."""
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path[:] = self.path
        try:
            os.chdir(self.folder)
        except OSError:
            os.chdir("/")
        with contextlib.suppress(OSError):  # only root may raise a priority again
            os.setpriority(os.PRIO_PROCESS, 0, self.niceness)
        with contextlib.suppress(OSError):
            _OOM_SCORE.write_text(self.oom_score)


def spawn(fork_server: str, output: int = 2) -> tuple[Connection, Connection]:
    """Requests a child, without waiting for it, because the server may still be importing.

    Args:
        fork_server: address of the server.
        output: an open file, the child's stdout and stderr; by default this process's stderr.

    Returns:
        The connection that the child serves on, whose first message is its pid, and one without messages: the
        child is killed when either is closed.

    Raises:
        OSError: no fork server listens at that address.
    """
    # The handshake: None asks the server for a child (a pid would ask for an exit code). All that follows on
    # the connection is read by the child, which has inherited it: its context, then its output, then
    # the end of a pipe whose other end this process holds
    pipe = Client(fork_server, "AF_UNIX")
    pipe.send(None)
    pipe.send(ProcessContext.here())
    send_handle(pipe, output, 0)  # the third argument, a pid, is used on Windows only
    tied, owner = Pipe(duplex=False)
    send_handle(pipe, tied.fileno(), 0)
    tied.close()
    return pipe, owner


def exit_code(fork_server: str, pid: int) -> int | None:
    """Waits until a child has exited; returns its exit code (negative: a signal), None if the server is gone.

    Only the server can tell, because it is the child's parent.
    """
    with contextlib.suppress(OSError, EOFError), Client(fork_server, "AF_UNIX") as pipe:
        pipe.send(pid)
        code: int | None = pipe.recv()
        return code
    return None


def run_server() -> None:
    """The server's main function: imports its module, then forks children and reports their exit codes.

    Its arguments are in `sys.argv`: the module, the socket's path, the number of the inherited socket.
    """
    preload, address, listener = sys.argv[1:]
    # a stop that is sent to all processes of a job is for the owner, whose end ends this one
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.suppress(Exception):  # the child that needs the module raises it again
        importlib.import_module(preload)
    # A collection writes into each object that it visits, and so would copy the shared pages into each child
    gc.freeze()
    codes: dict[int, int] = {}
    with socket.socket(fileno=int(listener)) as server:
        while sys.stdin.fileno() not in wait([server, sys.stdin.fileno()]):  # stdin: the owner has exited
            with contextlib.suppress(OSError, EOFError), Connection(server.accept()[0].detach()) as pipe:
                pid = pipe.recv()
                if pid is not None:
                    pipe.send(_code_of(pid, codes))
                elif (child := os.fork()) == 0:
                    server.close()
                    for number, handler in before.items():
                        signal.signal(number, handler)
                    _run_child(pipe)
                else:
                    codes.pop(child, None)  # an earlier child had the same pid
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def _run_child(pipe: Connection) -> None:
    """Runs a child just forked, from the rest of the handshake to its exit; never returns.

    It leads a session of its own: a signal for the group that it and what it forks make ends all of them, and
    neither a terminal's Ctrl-C nor its input reaches them.
    """
    from workers.process.serve import serve

    try:
        os.setsid()
        pipe.recv().apply()
        output = recv_handle(pipe)
        _die_with_owner(recv_handle(pipe))
        pipe.send(os.getpid())
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.close(output)
        threading.Thread(target=_exit_on_hangup, args=[pipe.fileno()], daemon=True).start()
        serve(pipe)
        sys.stderr.flush()
        os.killpg(0, signal.SIGKILL)  # what it started would outlive it
    finally:
        sys.stderr.flush()
        os._exit(1)  # not sys.exit: it would unwind into the server's loop


def _die_with_owner(tied: int) -> None:
    """Has the kernel kill this process and what it forked once the other end of a pipe is closed.

    No thread of this process need run for that: native code may hold Python's lock for good.
    """
    fcntl.fcntl(tied, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(tied, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(tied, fcntl.F_SETFL, fcntl.fcntl(tied, fcntl.F_GETFL) | os.O_ASYNC)


def _exit_on_hangup(pipe: int) -> None:
    """Ends this process and what it forked once the other end of a connection is closed, whatever it does."""
    poll = select.poll()
    poll.register(pipe, 0)  # no events: a hang-up is always reported
    poll.poll()
    os.killpg(0, signal.SIGKILL)


def _code_of(pid: int, codes: dict[int, int]) -> int | None:
    """Waits for a child's exit code; None if this server has no such child.

    Args:
        pid: of the child.
        codes: exit codes of the children reaped so far, by pid; those that have exited since are added.
    """
    with contextlib.suppress(ChildProcessError):
        while exited := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            codes[exited.si_pid] = _reap(exited.si_pid)
        if pid not in codes:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            codes[pid] = _reap(pid)
    return codes.get(pid)


def _reap(pid: int) -> int:
    """The exit code of a child that has exited; what it forked is killed while its pid is no other's yet."""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
