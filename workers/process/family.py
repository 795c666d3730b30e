"""The processes that come from this one, however deep: none of them is to outlive it."""

import contextlib
import ctypes
import os
import signal

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def adopt_orphans() -> None:
    """From now on a process that comes from this one becomes its child when its own parent ends: prctl(2).

    Without that, agents of a raylet that was killed would be lost to sight; they wait a minute for Ray's GCS.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stop_without(parent: int) -> None:
    """From now on this process gets SIGTERM when the thread that started it ends, or has ended: prctl(2).

    Args:
        parent: the id of the process that started it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def end_family() -> None:
    """Kills all processes that come from this one."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
