"""The processes that come from this one, however deep: none of them is to outlive it."""

import contextlib
import ctypes
import os
import signal
import threading
import time

import psutil

_PR_SET_CHILD_SUBREAPER = 36

PARENT_S = 0.2
"""Seconds from one look for the process that started this one to the next."""


def adopt_orphans() -> None:
    """From now on a process that comes from this one becomes its child when its own parent ends: prctl(2).

    Without that, agents of a raylet that was killed would be lost to sight; they wait a minute for Ray's GCS.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stop_without(parent: int) -> None:
    """From now on this process gets SIGTERM, once, when the one that started it has ended.

    The kernel's own way, PR_SET_PDEATHSIG of prctl(2), sends one for each thread that the other has as it is
    killed, and a command that gets a second one leaves at once.

    Args:
        parent: the id of the process that started it.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def end_family() -> None:
    """Kills all processes that come from this one."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
