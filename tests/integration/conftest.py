import ctypes
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jobs.cluster import connect as cluster
from tests.s3 import S3Server
from tests.warm import warm_commands
from workers.process.family import adopt_orphans

GONE_S = 5
"""Seconds within which the last process that a command left is gone."""


@pytest.fixture(scope="session")
def ray_here(s3: S3Server) -> Iterator[Path]:  # noqa: ARG001 - Ray's workers inherit the way to the server
    """One Ray for all the jobs that run in this process; the folder of its logs."""
    with cluster.connect(None) as logs:
        yield logs


@pytest.fixture
def left() -> Iterator[Callable[[], list[str]]]:
    """Tells what the commands of a test have left running."""
    warm_commands()  # serves the tests that come after this one too
    me = psutil.Process()
    before = {child.pid for child in me.children()}
    adopt_orphans()

    def command_lines() -> list[str]:
        roots = [child for child in me.children() if child.pid not in before]
        return [line_of(process) for root in roots for process in (root, *root.children(recursive=True))]

    def left_running() -> list[str]:
        end = time.monotonic() + GONE_S
        while any(command_lines()) and time.monotonic() < end:
            time.sleep(0.05)
        return [line for line in command_lines() if line]

    yield left_running
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
    for child in me.children():
        if child.pid not in before:
            child.kill()
            child.wait()


def line_of(process: psutil.Process) -> str:
    """The command line of a process; nothing where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
