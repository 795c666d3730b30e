"""A Ray of its own on this machine: the options it is started with."""

import os
import resource
import sys
from typing import Any

import ray

from schemas.exceptions import ClusterError
from workers.process.cpus import usable_cpus
from workers.process.limits import ADDRESS_SPACE
from workers.process.memory import memory
from workers.process.sockets import short_folder

SOCKET_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
"""Of the longest path that Ray 2.60 makes of a socket, below the folder for temporary files."""

LEAST_OBJECT_STORE = 100 << 20
"""Bytes. Ray refuses less than 75 MB."""

LIMITS = ((resource.RLIMIT_AS, "ulimit -v", ADDRESS_SPACE), (resource.RLIMIT_FSIZE, "ulimit -f", 0))
"""Limits that the object store has to keep to, beside what else they count: see `_room`."""


def own_options() -> dict[str, Any]:
    """The options of `ray.init` for a Ray on this machine: what Ray does not see by itself.

    Ray knows neither the cores that this process may not use, nor limits of a control group that is not the
    root, nor those of `ulimit`, nor what to do where the folder for temporary files has a long path.

    Raises:
        ClusterError: a limit leaves Ray no room.
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
        ClusterError: naming the limit that is too low.
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
        raise ClusterError(
            f"`{command}` limits this process to {limit >> 10:,} KB, which is too little for a Ray; raise it "
            f"(`{command} unlimited`) and run the command again"
        )
    return limit - others
