"""Signals: a sentence and an exit code in every phase, and nothing left running."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from jobs.run.stop import Stopped, stoppable
from tests.conftest import ROOT

STARTING = """
import time
from jobs.run.stop import leave_on_signals
leave_on_signals()
from workers.process.forkserver import shared_fork_server
print(shared_fork_server()._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)]
)
def test_a_signal_before_images_are_labelled_leaves_nothing(number: int, name: str, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout
    fork_server = psutil.Process(int(process.stdout.readline()))
    os.killpg(process.pid, number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == code
    assert complaint == f"raylabel: stopped by {name}\n"
    gone, _ = psutil.wait_procs([fork_server], timeout=10)
    assert gone == [fork_server]


@pytest.mark.parametrize(
    ("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)]
)
def test_a_signal_while_images_are_labelled_raises_once_and_then_acts_as_before(
    number: int, name: str, code: int
) -> None:
    later: list[int] = []
    before = signal.signal(number, lambda number, _: later.append(number))

    def stopped_twice() -> None:
        with stoppable(None) as request:
            assert request.stopped is None
            try:
                os.kill(os.getpid(), number)
            finally:
                assert request.stopped
                os.kill(os.getpid(), number)  # while the run ends

    try:
        with pytest.raises(Stopped, match=name) as raised:
            stopped_twice()
        assert raised.value.exit_code == code
        assert later == [number]
    finally:
        signal.signal(number, before)


def test_a_deadline_raises_and_is_taken_back_with_the_block() -> None:
    with pytest.raises(Stopped, match="the deadline") as raised, stoppable(0.05):
        time.sleep(60)
    assert raised.value.exit_code == 9
    with stoppable(600):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
