"""The command `raylabel` in a process that has its modules already, as importing them takes seconds.

A server imports them once and forks a child for each command: a process of its own, with the environment,
folder and streams of a command that a user starts, its own exit code, and its own end. Commands share a fork
server for their models, which else each would start.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from workers.process.forkserver import ForkServer, shared_fork_server

MODULES = (
    "jobs.cli.app",
    "jobs.prepare.resolve",
    "jobs.results.show",
    "jobs.results.sql",
    "jobs.run.pipeline",
    "workers.label.labeller",
    "pyarrow.dataset",
)
"""What most commands import, with all that these do."""

READ_WHEN_IMPORTED = ("HF_", "MALLOC_", "OMP_", "PYTHON", "RAY_", "TORCH")
"""How variables begin that a library may have read when it was imported."""

ROOT = Path(__file__).parent.parent

_MOST = 2**20
"""Bytes of a request: arguments and environment."""


class WarmCommands:
    """A server that starts commands; it ends with this process.

    Attributes:
        environment: of this process when it was started.
        pid: of the server.
    """

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = f"from tests.warm import serve; serve({theirs.fileno()})"
            own = tempfile.mkdtemp(prefix="w")  # what commands leave is looked for beside it
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": own},
            )
        self.pid = self._process.pid

    def can_run(self, environment: Mapping[str, str]) -> bool:
        """Whether a command with this environment does as in a process of its own."""
        names = {*self.environment, *environment}
        return all(
            self.environment.get(name) == environment.get(name)
            for name in names
            if name.startswith(READ_WHEN_IMPORTED)
        )

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; see `subprocess.run`."""
        request = {"arguments": [*arguments], "environment": dict(environment), "folder": os.getcwd()}
        ours, theirs = socket.socketpair()
        out, err = os.pipe(), os.pipe()
        with ours:
            with theirs:
                files = [theirs.fileno(), out[1], err[1]]
                socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            for pipe in (out, err):
                os.close(pipe[1])
            stdout, stderr = _read(out[0], err[0])
            code = int.from_bytes(ours.recv(4), "little", signed=True)
        return subprocess.CompletedProcess([*arguments], code, stdout, stderr)


@functools.cache
def warm_commands() -> WarmCommands:
    """This process's server; the first call starts it."""
    return WarmCommands()


def _read(*files: int) -> list[str]:
    """What is written to pipes until nobody holds them open any more; closes them."""
    parts: dict[int, list[bytes]] = {file: [] for file in files}
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if data := os.read(key.fd, 2**16):
                    parts[key.fd].append(data)
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return [b"".join(parts[file]).decode() for file in files]


def serve(number: int) -> None:
    """The server's main function.

    Args:
        number: of the socket that requests come from; it ends when that is closed.
    """
    fork_server = _fork_server()
    for module in MODULES:
        importlib.import_module(module)
    importlib.import_module("jobs.prepare.code").code_of({})  # what it reads of each module is kept
    gc.freeze()  # a collection would copy the pages of what it visits
    waiting: list[int] = []
    with socket.socket(fileno=number) as requests:
        while True:
            data, files, _, _ = socket.recv_fds(requests, _MOST, 3)
            if not data:
                return
            if fork_server._process.poll() is not None:
                fork_server = _fork_server()
            waiting = [pid for pid in waiting if os.waitpid(pid, os.WNOHANG) == (0, 0)]
            if (pid := os.fork()) == 0:
                requests.close()
                _wait_for(json.loads(data), *files)
            waiting.append(pid)
            for file in files:
                os.close(file)


def _fork_server() -> ForkServer:
    """Starts the fork server that commands find started, and that goes on when they end."""
    shared_fork_server.cache_clear()
    fork_server = shared_fork_server()
    atexit.unregister(fork_server.end)
    return fork_server


def _wait_for(request: dict[str, Any], answer: int, out: int, err: int) -> NoReturn:
    """Forks a command, and answers with its exit code."""
    if (child := os.fork()) == 0:
        os.close(answer)
        for file, stream in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
            os.dup2(file, stream)
            os.close(file)
        _run(**request)
    for file in (0, 1, 2, out, err):
        os.close(file)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(answer, code.to_bytes(4, "little", signed=True))
    os._exit(0)


def _run(arguments: list[str], environment: dict[str, str], folder: str) -> NoReturn:
    """Does what the installed script does."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    sys.argv = ["raylabel", *arguments]
    from raylabel.command import main

    try:
        main()
    except SystemExit as end:
        _end(end.code)
    except BaseException:
        traceback.print_exc()
        _end(1)
    _end(0)


def _end(code: object) -> NoReturn:
    """Ends a command as Python does, but for threads of libraries, which a fork does not have."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
