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

KINDS = [
    (signal.SIGINT, "Ctrl-C", 130),
    (signal.SIGTERM, "SIGTERM", 143),
    (signal.SIGHUP, "SIGHUP", 129),
]

STARTING = """
import time
from jobs.run.stop import leave_on_signals
leave_on_signals()
from workers.process.forkserver import shared_fork_server
print(shared_fork_server()._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("number", "name", "code"), KINDS)
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


@pytest.mark.parametrize(("number", "name", "code"), KINDS)
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


LOST = """
import os, time
from jobs.run.stop import leave_on_signals, stoppable
leave_on_signals()

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), {number})

with stoppable(None):
    try:
        Dropped()
        time.sleep(60)
    finally:
        print("ended", flush=True)
"""


def test_a_stop_where_nothing_can_be_raised_is_raised_right_after() -> None:
    command = [sys.executable, "-c", LOST.format(number=signal.SIGTERM)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=30)
    assert (done.returncode, done.stdout) == (1, "ended\n")
    assert done.stderr.endswith("jobs.run.stop.Stopped: SIGTERM\n")


def test_a_stop_that_other_code_made_an_error_of_is_still_a_stop() -> None:
    def wait() -> None:
        try:
            time.sleep(60)
        except Stopped as stop:  # as Cython does in code that Ray calls
            raise SystemError("<built-in method __new__> returned a result with an exception set") from stop

    with pytest.raises(Stopped, match="the deadline"), stoppable(0.05):
        wait()
    with pytest.raises(ZeroDivisionError), stoppable(600):
        _ = 1 / 0


NATIVE = """
import ctypes
from jobs.run.stop import leave_on_signals
leave_on_signals()
lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
lock(mutex)
print("locked", flush=True)
lock(mutex)
"""


def test_a_signal_is_heeded_while_the_main_thread_waits_in_native_code() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", NATIVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (143, "raylabel: stopped by SIGTERM\n")


def test_what_nohup_keeps_away_does_not_stop() -> None:
    code = "from jobs.run.stop import *; leave_on_signals(); os.kill(os.getpid(), signal.SIGHUP); print('on')"
    command = ["nohup", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "on\n")


def test_a_deadline_raises_and_is_taken_back_with_the_block() -> None:
    with pytest.raises(Stopped, match="the deadline") as raised, stoppable(0.05):
        time.sleep(60)
    assert raised.value.exit_code == 9
    with stoppable(600):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
