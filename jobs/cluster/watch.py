"""What of Ray must stay alive while it starts and while a job runs, and a word when it does not.

Ray ends a driver whose raylet is gone by exit code 1, without a word, seconds later; one whose GCS is gone a
minute later. A start whose raylet or GCS is killed takes half a minute to fail, with another reason.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import psutil
import ray
from ray._private.grpc_utils import init_grpc_channel

from workers.process.child import has_exited
from workers.process.limits import low_limits

WATCH_S = 0.1
"""Seconds between two looks at the processes of Ray."""

ASK_S, ASK_TIMEOUT_S = 5, 10
"""Seconds between two questions to the GCS of a cluster that was joined, and to wait for an answer."""

RECONNECT_ENV, RECONNECT_S = "RAY_gcs_rpc_server_reconnect_timeout_s", 60
"""Ray's variable and default of the seconds for which its processes wait for a GCS that does not answer."""

SILENT_SHARE = 0.7
"""Of those seconds, after which the job stops with a word, before Ray ends it without one."""

_IS_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_SILENT = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
_VITAL = ("gcs_server", "raylet")
_FROM_OUTSIDE = (0, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
"""Exit status of a process that did not fail by itself."""

OnDeath = Callable[[str], None]
"""Called from a thread with what has happened, once."""


@contextlib.contextmanager
def watching_start(on_death: OnDeath) -> Iterator[None]:
    """Watches the processes of a Ray that this process starts, for the length of a block."""
    started: dict[str, psutil.Process] = {}

    def look() -> str | None:
        if len(started) < len(_VITAL):
            started.update({_name(child): child for child in psutil.Process().children() if _is_vital(child)})
        gone = [name for name, process in started.items() if is_gone(process)]
        return _end_of(gone[0], started[gone[0]].pid) if gone else None

    with _every(WATCH_S, look, on_death):
        yield


@contextlib.contextmanager
def watching(on_death: OnDeath) -> Iterator[None]:
    """Watches the connected Ray for the length of a block: its processes on this machine, and its GCS."""
    node = ray._private.worker._global_node
    started = {info.process.pid: kind for kind in _VITAL for info in node.all_processes.get(kind, ())}
    names: dict[psutil.Process, str] = {}
    for pid, kind in started.items():
        try:
            names[psutil.Process(pid)] = kind
        except psutil.NoSuchProcess:
            on_death(_died(kind))
    if not started:
        names = dict.fromkeys(joined_raylet(node.raylet_socket_name), "raylet")
    silent = contextlib.nullcontext() if started else _every(ASK_S, silence_of(node.gcs_address), on_death)

    def look() -> str | None:
        gone = [name for process, name in names.items() if is_gone(process)]
        return _died(gone[0]) if gone else None

    with _every(WATCH_S, look, on_death), silent:
        yield


def silence_of(gcs: str) -> Callable[[], str | None]:
    """A function that asks a GCS whether it is alive, and says so once it has been silent for too long."""
    limit_s = SILENT_SHARE * float(os.environ.get(RECONNECT_ENV, RECONNECT_S))
    heard = time.monotonic()

    def ask() -> str | None:
        nonlocal heard
        if answers(gcs, ASK_TIMEOUT_S):
            heard = time.monotonic()
        silent_s = time.monotonic() - heard
        return f"Ray's GCS at {gcs} has not answered for {silent_s:.0f} s" if silent_s > limit_s else None

    return ask


def answers(gcs: str, timeout_s: float) -> bool:
    """Whether Ray's control service answers at an address, be it with a refusal."""
    with init_grpc_channel(gcs, (("grpc.enable_http_proxy", 0),)) as channel:
        try:
            channel.unary_unary(_IS_ALIVE)(b"", timeout=timeout_s, wait_for_ready=True)
        except grpc.RpcError as error:
            return error.code() not in (*_SILENT, grpc.StatusCode.UNIMPLEMENTED)
    return True


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended."""
    return not process.is_running() or has_exited(process.pid)


@contextlib.contextmanager
def _every(seconds: float, look: Callable[[], str | None], on_death: OnDeath) -> Iterator[None]:
    """Looks again and again from a thread, for the length of a block, until there is something to tell."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(seconds):
            if (reason := look()) and not ended.is_set():
                on_death(reason)
                return

    threading.Thread(target=watch, name="ray-watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _died(name: str) -> str:
    return f"Ray's process {name} has died"


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return ""


def _is_vital(process: psutil.Process) -> bool:
    return _name(process) in _VITAL


def _end_of(name: str, pid: int) -> str:
    """How a process of a Ray that is starting has ended: by a limit, perhaps, where it failed by itself."""
    with contextlib.suppress(ChildProcessError):  # not reaped: Ray waits for it, too
        exited = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if exited and exited.si_status not in _FROM_OUTSIDE:
            return f"Ray's process {name} has failed while it started{low_limits()}"
    return _died(name)


def joined_raylet(socket: str) -> Iterator[psutil.Process]:
    """The raylet of a cluster that was joined, by its socket, where this process may see it."""
    option = f"--raylet_socket_name={socket}"  # a second one on a machine has the socket "raylet.1"
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "raylet" and option in (process.info["cmdline"] or ()):
            yield process
