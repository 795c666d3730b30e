"""raylabel in Python, stopped while it labels: by a deadline, by Ctrl-C, by the end of its caller."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import raylabel
from raylabel.child import Event

PROGRAM = """
import sys
import raylabel

job = {{"manifest": {photos!r}, "output": {output!r}, "detector": None, "compute": {{"actors": 1}}}}
try:
    raylabel.label(job, progress=lambda event: print(event["event"], flush=True))
except KeyboardInterrupt:
    sys.exit("interrupted")
"""

ENDS_S = 30
"""Seconds within which a job that was stopped has ended."""

pytestmark = pytest.mark.slow


def test_a_deadline_stops_it_the_same_call_resumes_and_another_restarts(photos: Path, tmp_path: Path) -> None:
    job = {"manifest": photos, "output": tmp_path / "out", "detector": None, "compute": {"actors": 1}}
    with pytest.raises(raylabel.StoppedError, match="stopped by the deadline; committed work stays") as stop:
        raylabel.label(job, stop_after="1s", progress=None)
    assert stop.value.reason == "the deadline"
    assert raylabel.label(job, progress=None).labels().count_rows() == 7
    events: list[Event] = []
    assert raylabel.label(job, restart=True, progress=events.append).labels().count_rows() == 7
    assert (events[-1]["event"], events[-1]["up_to_date"]) == ("complete", False)


@pytest.fixture
def program(photos: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A program that is about to label, in a process group of its own as one at a terminal is."""
    code = PROGRAM.format(photos=str(photos), output=str(tmp_path / "out"))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        assert process.stdout is not None
        assert "progress\n" in iter(process.stdout.readline, "")
        yield process
        process.kill()


def test_ctrl_c_stops_it_in_order_and_leaves_nothing_running(
    program: "subprocess.Popen[str]", tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    os.killpg(program.pid, signal.SIGINT)
    _, said = program.communicate(timeout=ENDS_S)
    assert (program.returncode, said) == (1, "interrupted\n")
    status = raylabel.open_run(tmp_path / "out").status()
    assert (status["state"], status["reason"]) == ("stopped", "Ctrl-C")
    assert left() == []


def test_a_program_that_is_killed_leaves_nothing_running(
    program: "subprocess.Popen[str]", tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    program.kill()
    program.wait()
    run, end = raylabel.open_run(tmp_path / "out"), time.monotonic() + ENDS_S
    while run.status()["state"] == "running" and time.monotonic() < end:
        time.sleep(0.2)
    assert (run.status()["state"], run.status()["reason"]) == ("stopped", "SIGTERM")
    assert left() == []
