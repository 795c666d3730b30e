"""A Ray of its own on this machine: the options it is started with, and what of it must stay alive."""

import os
import resource
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import ray

from schemas.exceptions import RaylabelError
from workers.process.child import has_exited
from workers.process.cpus import usable_cpus
from workers.process.memory import memory
from workers.process.sockets import short_folder

SOCKET_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
"""Of the longest path that Ray 2.60 makes of a socket, below the folder for temporary files."""

LEAST_OBJECT_STORE = 100 << 20
"""Bytes. Ray refuses less than 75 MB."""

ADDRESS_SPACE = 4 << 30
"""Bytes that Ray's processes and torch map beside the object store, which each of them maps as a whole."""

LIMITS = ((resource.RLIMIT_AS, "ulimit -v", ADDRESS_SPACE), (resource.RLIMIT_FSIZE, "ulimit -f", 0))
"""Limits that the object store has to keep to: see `_room`."""

SUSPECTS = {"RLIMIT_NOFILE": ("open files", "ulimit -n"), "RLIMIT_NPROC": ("processes", "ulimit -u")}
"""Limits that Ray says nothing of where they are too low: what they count, and the shell's command."""

SUSPECTED = 4096
"""Below this number they are named where Ray does not start."""


def own_options() -> dict[str, Any]:
    """The options of `ray.init` for a Ray on this machine: what Ray does not see by itself.

    Ray knows neither the cores that this process may not use, nor limits of a control group that is not the
    root, nor those of `ulimit`, nor what to do where the folder for temporary files has a long path.

    Raises:
        RaylabelError: a limit leaves Ray no room.
        OSError: no folder is short enough for sockets.
    """
    options: dict[str, Any] = {"include_dashboard": False, "num_cpus": usable_cpus()}
    if (room := _object_store_room()) is not None:
        options["object_store_memory"] = room
    wanted = os.path.dirname(ray._common.utils.get_default_ray_temp_dir())
    if (folder := short_folder(SOCKET_BYTES, wanted)) != wanted:
        options["_temp_dir"] = f"{folder}/ray"
    return options


def _object_store_room() -> int | None:
    """The bytes of an object store that keeps within all limits; None where Ray's own choice does.

    Raises:
        RaylabelError: naming the limit that is too low.
    """
    here = memory()
    usual = int(ray._private.utils.resolve_object_store_memory(here.limit - here.used))
    rooms = [usual, *(_room(*limit) for limit in LIMITS)]
    if min(rooms) < usual or here.limit < ray._common.utils.get_system_memory():
        return min(rooms)
    return None


def _room(kind: int, command: str, others: int) -> int:
    """The bytes that a limit leaves for the object store.

    Args:
        kind: of limit, as `resource` numbers it.
        command: of the shell, which sets it.
        others: bytes that the limit counts beside the object store.
    """
    limit = resource.getrlimit(kind)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    if limit - others < LEAST_OBJECT_STORE:
        raise RaylabelError(
            f"`{command}` limits this process to {limit >> 10:,} KB, which is too little for a Ray; raise it "
            f"(`{command} unlimited`) and run the command again"
        )
    return limit - others


def suspected_limits() -> str:
    """Sentences that name low limits of this process, which may be why Ray did not start."""
    limits = {name: resource.getrlimit(getattr(resource, name))[0] for name in SUSPECTS}
    return "".join(
        f". `{SUSPECTS[name][1]}` limits this process to {limit:,} {SUSPECTS[name][0]}: raise it"
        for name, limit in limits.items()
        if limit != resource.RLIM_INFINITY and limit < SUSPECTED
    )


def vital_processes() -> list[psutil.Process]:
    """The processes of Ray on this machine without which the job cannot go on; none before there is a Ray."""
    node = ray._private.worker._global_node
    if node is None:
        return []
    kinds = ("gcs_server", "raylet")
    started = [info.process.pid for kind in kinds for info in node.all_processes.get(kind, ())]
    return [psutil.Process(pid) for pid in started] or list(_joined_raylet(node.raylet_socket_name))


def _joined_raylet(socket: str) -> Iterator[psutil.Process]:
    """The raylet of a cluster that was joined, by its socket, where this process may see it."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "raylet" and any(socket in part for part in process.info["cmdline"] or ()):
            yield process


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended."""
    return not process.is_running() or has_exited(process.pid)
