"""Attempts at a run as processes of their own, and what there is to kill in them."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import psutil

from tests.integration.jobs_here import COMMAND

Victim = Literal["driver", "actor", "labeller", "task", "raylet"]

PATIENCE_S = 900
"""Seconds after which a job hangs, as the tests see it: of hundreds of images on two busy cores."""


class Attempt:
    """`raylabel` with some arguments, running; everything that it started is ended with the block.

    Attributes:
        process: the driver.
    """

    def __init__(self, *arguments: str, **environment: str) -> None:
        env = {**os.environ, "COLUMNS": "200", **environment}
        self.process = subprocess.Popen(
            [COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=True,
        )
        self._family: dict[int, psutil.Process] = {}

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(self, *_: object) -> None:
        family = self.processes()
        self.process.kill()
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family, 30)
        self.process.communicate()

    def processes(self) -> list[psutil.Process]:
        """The processes that this attempt has started and that are alive, orphans included."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for parent in (psutil.Process(self.process.pid), *self._family.values()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._family |= {child.pid: child for child in parent.children(recursive=True)}
        return [each for each in self._family.values() if each.is_running()]

    def family(self) -> list[str]:
        """The command lines of the processes that this attempt has started and that are alive."""
        lines = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                lines.append(" ".join(process.cmdline()))
        return lines

    def pids(self, victim: Victim) -> list[int]:
        """The processes of one kind."""
        if victim == "driver":
            return [self.process.pid]
        return [each.pid for each in self.processes() if victim == _kind_of(each)]

    def kill(self, victim: Victim, choose: random.Random) -> bool:
        """Kills one process of a kind; False where there was none."""
        if not (pids := self.pids(victim)) or self.process.poll() is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(choose.choice(sorted(pids)), signal.SIGKILL)
            return True
        return False

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Waits until something is true, while the driver runs."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.05)

    def end(self) -> tuple[int, str, str]:
        """Waits for the driver to end; gives its exit code, what it printed and what it complained of."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


def _kind_of(process: psutil.Process) -> Victim | None:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        name, command = process.name(), " ".join(process.cmdline())
        if name == "raylet":
            return "raylet"
        if command.startswith("ray::MapWorker"):
            return "actor"
        if command.startswith("ray::publish_shard"):
            return "task"
        if "workers.process.forkserver" in command:  # or the fork server that it came from
            return "labeller"
    return None


def commits(output: Path) -> list[Path]:
    """The commit entries that are in a run directory."""
    return sorted(output.glob("_work/*/commits/*/*/*.json"))
