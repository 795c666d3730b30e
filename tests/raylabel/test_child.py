"""The command in a child process: what it is told, and that nothing of it stays."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import raylabel
from raylabel.child import run_command
from tests.conftest import ROOT
from tests.jobs.results.test_datasets import begun

CALL = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import raylabel
raylabel.label({{"manifest": {photos!r}, "output": {output!r}, "detector": None}}, progress=None)
"""
"""What heeds Ctrl-C, also where the tests run in the background and their children are born ignoring it."""

SOON_S = 30
"""Seconds within which a process is there, or gone."""


@pytest.fixture
def status(tmp_path: Path) -> list[str]:
    """A command that prints some lines, none of which is an event."""
    begun(str(tmp_path / "run"))
    return ["status", str(tmp_path / "run")]


def test_a_line_that_is_no_event_is_a_message(status: list[str]) -> None:
    got: list[dict[str, Any]] = []
    run_command(status, "", got.append)
    assert {"event": "message", "text": "state: not started"} in got


def test_a_failure_has_the_commands_own_words(tmp_path: Path) -> None:
    with pytest.raises(raylabel.StorageError) as failed:
        run_command(["status", str(tmp_path), "--json"], "", print)
    assert str(failed.value) == f"found no run at {tmp_path}; `raylabel run` makes one"


def test_what_it_reads_is_in_no_file(tmp_path: Path) -> None:
    """It stops at the manifest, which is not there, after it has read the whole spec."""
    job = f"manifest: {tmp_path}/gone.csv\noutput: {tmp_path}/out\nmax_failed: 0.25\n"
    with pytest.raises(raylabel.ManifestError, match=r"gone\.csv"):
        run_command(["check", "/dev/stdin", "--json"], job, print)
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_callers_own_stops_it(status: list[str]) -> None:
    def refuse(_: object) -> None:
        raise LookupError("of the caller's")

    before = psutil.Process().children()
    with pytest.raises(LookupError, match="of the caller's"):
        run_command(status, "", refuse)
    assert psutil.Process().children() == before


@pytest.fixture
def caller(photos: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that has called `label`, in a process group of its own as one at a terminal is."""
    code = CALL.format(photos=str(photos), output=str(tmp_path / "out"))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, process_group=0) as process:
        yield process
        process.kill()


def job_of(caller: subprocess.Popen[str]) -> psutil.Process:
    """The process of the job, once it is there."""
    end = time.monotonic() + SOON_S
    while time.monotonic() < end:
        for process in psutil.Process(caller.pid).children():
            if "raylabel.command" in " ".join(process.cmdline()):
                return process
        time.sleep(0.01)
    raise TimeoutError("no process of the job was started")


def test_the_values_of_a_dict_are_not_in_the_list_of_processes(
    caller: subprocess.Popen[str], photos: Path
) -> None:
    assert str(photos) not in " ".join(job_of(caller).cmdline())


def test_ctrl_c_at_a_terminal_stops_the_job_and_then_the_caller(caller: subprocess.Popen[str]) -> None:
    job = job_of(caller)
    os.killpg(caller.pid, signal.SIGINT)
    _, said = caller.communicate(timeout=SOON_S)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert not job.is_running()


def test_a_job_ends_with_a_caller_that_is_killed(caller: subprocess.Popen[str]) -> None:
    job = job_of(caller)
    caller.kill()
    job.wait(timeout=SOON_S)
    assert not job.is_running()
