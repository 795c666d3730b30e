import contextlib
import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ManifestError, ProcessDiedError
from workers.process import child as children
from workers.process import forkserver, memory
from workers.process.child import Child
from workers.process.forkserver import ForkServer, ProcessContext
from workers.process.serve import StageCallback
from workers.process.steps import step

SHARE = 300 * 2**20 / memory.memory().limit
"""300 MB; a child that has read its imports has under 150."""


def serving(argument: object) -> Callable[[tuple[str, object], StageCallback], object]:
    """Builds a function that does what it is told to."""
    if isinstance(argument, Exception):
        raise argument

    def do(request: tuple[str, object], on_stage: StageCallback) -> object:
        verb, value = request
        on_stage(Stage.DETECT)
        match verb:
            case "echo":
                return value
            case "segfault":
                ctypes.string_at(0)
            case "abort":
                os.abort()
            case "raise":
                raise value  # type: ignore[misc]
            case "context":
                return ProcessContext.here()
            case "hang":
                time.sleep(60)
            case "hoard":
                hoard(value)
                return None
            case "compute":
                compute(value)
            case "wait":
                wait_at_a_step(int(value or 1))  # type: ignore[call-overload]
            case "fork and say":
                fork_and(lambda: on_stage(Stage.CLASSIFY))
            case _:
                return misbehave(verb, str(value))
        return os.getpid()

    return do


def misbehave(verb: str, value: str) -> object:
    """What models were seen to do besides crashing."""
    match verb:
        case "leave":
            if copy := os.fork():
                Path(value).write_text(str(copy))
                os._exit(7)
            time.sleep(600)
        case "fork":
            os.fork()
        case "exit":
            os._exit(7)
        case "fork in C":
            ctypes.CDLL(None).fork()
        case "fork and raise":
            os.fork()
            raise ManifestError("in both")
        case "spawn":
            return subprocess.Popen(["sleep", "60"]).pid
        case "compute beside a copy":
            compute_beside_a_copy()
        case "hold the lock":
            print(os.getpid(), flush=True)
            re.match(r"(?:\s+)+x", " " * 64)  # for years, and no other thread of Python's runs
        case "hash":
            return hash(value)
        case "read":
            return sys.stdin.read()
        case "print":
            print(value, flush=True)
            os.write(2, b"\x1b]0;title\x07raw\xff\n")
    return os.getpid()


def hoard(seconds: object) -> None:
    memory_held = bytearray(os.urandom(1024)) * (400 * 1024)
    time.sleep(float(str(seconds)))
    del memory_held


def compute(rows: object) -> None:
    assert isinstance(rows, list)
    with step(Stage.DECODE, [1]):
        pass
    with step(Stage.DECODE, rows):
        while True:
            pass


def fork_and(act: Callable[[], None]) -> None:
    """Exits with 7 once a copy has acted."""
    if copy := os.fork():
        os.waitpid(copy, 0)
        os._exit(7)
    act()
    os._exit(0)


def compute_beside_a_copy() -> None:
    """The copy leaves the step, and begins and ends the next one."""
    with step(Stage.DECODE, [7]):
        if copy := os.fork():
            os.waitpid(copy, 0)
            while True:
                pass
    with step(Stage.DECODE, [8]):
        os._exit(0)


def wait_at_a_step(times: int) -> None:
    for _ in range(times):
        with step(Stage.DECODE, [7]):
            time.sleep(1)


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    fork_server = ForkServer("tests.workers.process.test_child")
    yield fork_server
    fork_server.end()


@pytest.fixture
def child(fork_server: ForkServer) -> Iterator[Child]:
    child = Child(fork_server.address, serving, None, SHARE)
    yield child
    child.end()


def test_a_child_answers_from_a_process_of_its_own(child: Child) -> None:
    assert child(("echo", [1, "two"])) == [1, "two"]
    assert child(("pid", None)) == child.pid != os.getpid()


class StoppedOnReceipt:
    """A connection; a signal arrives with the first message that the main thread receives, and stops it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._is_stopped = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def recv(self) -> object:
        message: object = self._pipe.recv()
        if threading.current_thread() is threading.main_thread() and not self._is_stopped:
            self._is_stopped = True
            raise KeyboardInterrupt
        return message


def test_a_stop_that_comes_with_a_message_loses_no_child(
    fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = forkserver.spawn

    def stopped(fork_server: str) -> tuple[Any, Connection]:
        pipe, owner = spawn(fork_server)
        return StoppedOnReceipt(pipe), owner

    monkeypatch.setattr(children, "spawn", stopped)
    child = Child(fork_server.address, serving, None, SHARE)
    with pytest.raises(KeyboardInterrupt):
        child(("echo", 1))
    assert child.pid
    assert psutil.pid_exists(child.pid)
    child.end()
    assert not psutil.pid_exists(child.pid)


def test_a_process_that_says_nothing_any_more_is_given_up(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "HANG_TIMEOUT_S", 0.5)
    with pytest.raises(ProcessDiedError) as raised:
        child(("hang", None))
    assert (raised.value.stage, raised.value.code) == (Stage.DETECT, ErrorCode.WORKER_CRASHED)
    assert raised.value.message == "hung: no message from it for 0.5 s"


def test_a_process_that_begins_one_step_after_the_other_is_at_work_without_a_message(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "HANG_TIMEOUT_S", 2)
    began = time.monotonic()
    assert child(("wait", 5)) == child.pid
    assert time.monotonic() - began > 3


def test_a_copy_that_outlives_a_child_does_not_hide_its_end_and_goes_with_it(
    child: Child, tmp_path: Path
) -> None:
    with pytest.raises(ProcessDiedError, match="exit code 7"):
        child(("leave", tmp_path / "pid"))
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int((tmp_path / "pid").read_text())).wait(timeout=60)


def test_what_a_child_started_ends_with_it(child: Child) -> None:
    forked = psutil.Process(child(("spawn", None)))
    child.end()
    gone, _ = psutil.wait_procs([forked], timeout=10)
    assert gone == [forked]


@pytest.mark.parametrize("verb", ["fork", "fork in C"])
def test_a_copy_that_comes_back_from_a_call_does_not_answer(child: Child, verb: str) -> None:
    for _ in range(3):
        assert child((verb, None)) == child.pid
    assert child(("echo", 1)) == 1


def test_a_copy_that_raises_does_not_answer(child: Child) -> None:
    with pytest.raises(ManifestError, match="in both"):
        child(("fork and raise", None))
    assert child(("echo", 1)) == 1


def test_a_copy_that_says_a_stage_is_not_heard(child: Child) -> None:
    with pytest.raises(ProcessDiedError, match="exit code 7") as died:
        child(("fork and say", None))
    assert died.value.stage == Stage.DETECT


def test_a_copy_does_not_hide_that_a_step_takes_too_long(fork_server: ForkServer) -> None:
    child = Child(fork_server.address, serving, None, SHARE, {Stage.DECODE: 0.2})
    with pytest.raises(ProcessDiedError) as died:
        child(("compute beside a copy", None))
    assert (died.value.code, died.value.row) == (ErrorCode.TIMEOUT, 7)
    child.end()


def test_a_child_has_no_input(child: Child) -> None:
    assert child(("read", None)) == ""


def test_what_a_child_prints_reaches_a_terminal_as_plain_text(
    fork_server: ForkServer, capfd: pytest.CaptureFixture[str]
) -> None:
    child = Child(fork_server.address, serving, None, SHARE, plain_output=True)
    child(("print", "\x1b[31mred\x1b[0m \x1b[2Jné\b\x9b5mew\t50%\r"))
    child.end()
    assert capfd.readouterr().err == "red né5mew\t50%\r\nraw�\n"


@pytest.mark.parametrize(
    ("rows", "row", "seconds"), [([7], 7, "0.2"), ([7, 8], None, "0.4"), ([-1], None, "0.2")], ids=str
)
def test_a_child_whose_step_takes_too_much_processor_time_is_given_up(
    fork_server: ForkServer, rows: list[int], row: int | None, seconds: str
) -> None:
    child = Child(fork_server.address, serving, None, SHARE, {Stage.DECODE: 0.2})
    assert child(("wait", None)) == child.pid  # longer than that, but at no cost
    with pytest.raises(ProcessDiedError) as died:
        child(("compute", rows))
    assert (died.value.stage, died.value.code, died.value.row) == (Stage.DECODE, ErrorCode.TIMEOUT, row)
    assert died.value.message == f"took more than {seconds} s of processor time"
    child.end()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("segfault", None), "signal SIGSEGV"),
        (("abort", None), "signal SIGABRT"),
        (("exit", None), "exit code 7"),
        (("raise", OSError("the device is gone")), "OSError: the device is gone"),
    ],
)
def test_how_and_in_which_stage_a_child_died_is_told(
    child: Child, request_: tuple[str, object], message: str
) -> None:
    with pytest.raises(ProcessDiedError) as died:
        child(request_)
    assert (died.value.stage, died.value.code) == (Stage.DETECT, ErrorCode.WORKER_CRASHED)
    assert died.value.message == message


def test_a_child_that_started_and_one_that_crashed_leave_a_line_in_the_log(
    fork_server: ForkServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="workers.process.child")
    child = Child(fork_server.address, serving, None, SHARE)
    assert child(("echo", 1)) == 1
    with pytest.raises(ProcessDiedError):
        child(("segfault", None))
    why = "crashed in stage detect: WORKER_CRASHED: signal SIGSEGV"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", f"child process {child.pid} started"),
        ("WARNING", f"child process {child.pid} {why}"),
    ]


def test_a_child_that_raises_memory_error_died_of_memory(child: Child) -> None:
    with pytest.raises(ProcessDiedError, match="OUT_OF_MEMORY: MemoryError"):
        child(("raise", MemoryError()))


def test_raylabels_own_exceptions_come_back_and_the_child_lives(child: Child) -> None:
    with pytest.raises(ManifestError, match="no such row"):
        child(("raise", ManifestError("no such row")))
    assert child(("echo", 1)) == 1


def test_what_kept_a_child_from_being_built_is_raised_by_every_call(fork_server: ForkServer) -> None:
    child = Child(fork_server.address, serving, ManifestError("no manifest"), SHARE)
    for _ in range(2):
        with pytest.raises(ManifestError, match="no manifest"):
            child(("echo", 1))
    child.end()


def test_a_child_over_its_share_is_ended_only_where_the_machine_is_nearly_full(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert child(("hoard", 1)) is None
    monkeypatch.setattr(memory, "NEARLY_FULL", 0.0)
    assert child(("echo", 1)) == 1
    with pytest.raises(ProcessDiedError, match="more than its share of 300 MB") as died:
        child(("hoard", 60))
    assert died.value.code == ErrorCode.OUT_OF_MEMORY


@pytest.fixture
def small_container() -> Iterator[Path]:
    """A control group with 300 MB, where this process may make one."""
    group = Path("/sys/fs/cgroup/memory/raylabel-test")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(300 * 2**20))
    except OSError:
        pytest.skip("only root, with control groups of version 1, may make a small container here")
    yield group
    group.rmdir()


def test_a_child_that_the_kernel_killed_for_its_memory_died_of_memory(
    child: Child, small_container: Path
) -> None:
    (small_container / "cgroup.procs").write_text(str(child.pid))
    with pytest.raises(ProcessDiedError, match="signal SIGKILL, out of memory") as died:
        child(("hoard", 60))
    assert died.value.code == ErrorCode.OUT_OF_MEMORY


def test_a_child_that_somebody_killed_crashed(child: Child) -> None:
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ProcessDiedError, match="signal SIGKILL") as died:
        child(("echo", 1))
    assert died.value.code == ErrorCode.WORKER_CRASHED


def test_a_child_ends_when_its_parent_is_killed() -> None:
    code = (
        "from tests.workers.process.test_child import *\n"
        "child = Child(ForkServer('json').address, serving, None, 1)\n"
        "print(child(('pid', None)), flush=True)\n"
        "child(('hoard', 600))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    fork_server = child.parent()
    assert fork_server
    folder = Path(fork_server.cmdline()[-2]).parent
    assert folder.is_dir()
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    gone, _ = psutil.wait_procs([child, fork_server], timeout=10)
    assert set(gone) == {child, fork_server}
    assert not folder.exists()


@pytest.mark.parametrize("last", ["child(('hold the lock', None))", "time.sleep(600)"])
def test_all_that_a_child_started_ends_when_its_parent_is_killed_whatever_it_does(last: str) -> None:
    code = (
        "from tests.workers.process.test_child import *\n"
        "child = Child(ForkServer('json').address, serving, None, 1)\n"
        "print(child(('pid', None)), child(('spawn', None)), flush=True)\n" + last
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert parent.stdout
    assert parent.stderr
    left = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    if "lock" in last:
        parent.stderr.readline()  # of the child: it is at it
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    gone, alive = psutil.wait_procs(left, timeout=30)
    for process in alive:
        process.kill()
    assert set(gone) == set(left)


def test_texts_have_the_same_hash_in_the_children_of_every_fork_server() -> None:
    hashes = set()
    for _ in range(2):
        fork_server = ForkServer("json")
        child = Child(fork_server.address, serving, None, SHARE)
        hashes.add(child(("hash", "sky")))
        child.end()
        fork_server.end()
    assert len(hashes) == 1


def test_a_child_lives_on_when_its_fork_server_was_killed_and_no_other_comes() -> None:
    fork_server = ForkServer("tests.workers.process.test_child")
    child = Child(fork_server.address, serving, None, SHARE)
    assert child(("echo", 1)) == 1
    fork_server.end()
    assert child(("echo", 2)) == 2
    with pytest.raises(FileNotFoundError):
        Child(fork_server.address, serving, None, SHARE)
    with pytest.raises(ProcessDiedError, match="ended together with the fork server that started it"):
        child(("abort", None))


def test_a_child_has_the_context_of_the_process_that_it_serves(
    fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OF_MINE", "1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    child = Child(fork_server.address, serving, None, SHARE)
    context = child(("context", None))
    child.end()
    assert context == ProcessContext.here()


def test_a_child_has_a_folder_where_that_of_its_fork_server_and_that_of_its_process_were_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    fork_server = ForkServer("json")
    (tmp_path / "gone").rmdir()
    child = Child(fork_server.address, serving, None, SHARE)
    context: ProcessContext = child(("context", None))
    child.end()
    fork_server.end()
    assert context.folder == "/"
