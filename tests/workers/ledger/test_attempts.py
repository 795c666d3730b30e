import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.exceptions import DamagedFileError, OutputConflictError
from schemas.ledger import Attempt, HeartbeatRecord
from schemas.metrics import NO_USAGE
from tests.workers.tables.made_results import record
from workers.ledger import attempts, heartbeat
from workers.ledger.attempts import is_gone, start_attempt
from workers.ledger.directory import RunDirectory
from workers.ledger.heartbeat import Heartbeat
from workers.ledger.runs import begin_run, find_run, replace_run
from workers.ledger.state import PassState
from workers.machine import started_at, this_machine
from workers.storage.store import Store

DRIVER = """
import sys, time
from workers.ledger import heartbeat
from workers.ledger.attempts import start_attempt
from workers.ledger.heartbeat import Heartbeat
from workers.ledger.runs import find_run
heartbeat.HEARTBEAT_S = float(sys.argv[2])
run = find_run(sys.argv[1])
with Heartbeat(run, start_attempt(run, print)).running() as watched:
    print("running", flush=True)
    while True:
        time.sleep(0.1)
        watched.assert_newest()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    begin_run(store, record())
    return store


@pytest.fixture
def run(store: Store) -> RunDirectory:
    return RunDirectory.first(store, record())


def driver(store: Store, heartbeat_s: float = heartbeat.HEARTBEAT_S) -> "subprocess.Popen[str]":
    """Another driver of the same run, that sends heartbeats."""
    command = [sys.executable, "-c", DRIVER, store.url, str(heartbeat_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "running\n"
    return process


def last_heartbeat(run: RunDirectory, number: int) -> HeartbeatRecord:
    heartbeat = run.get(HeartbeatRecord, number)
    assert heartbeat
    return heartbeat


def test_attempts_that_ended_are_succeeded_at_once(run: RunDirectory) -> None:
    for number in (1, 2, 3):
        attempt = start_attempt(run, pytest.fail)
        assert attempt.number == number
        with Heartbeat(run, attempt).running():
            pass
    latest = last_heartbeat(run, attempt.number)
    assert (latest.state, latest.reason) == ("complete", None)


def test_how_an_attempt_ended_is_said(run: RunDirectory) -> None:
    state = PassState(run)
    state.done, state.failed = 7, Counter(TIMEOUT=2)
    for error, ended in ((KeyError("x"), "failed"), (KeyboardInterrupt("Ctrl-C"), "stopped")):
        attempt = start_attempt(run, pytest.fail)
        watched = Heartbeat(run, attempt)
        watched.on_progress(state, NO_USAGE)
        with pytest.raises(type(error)), watched.running():
            raise error
        latest = last_heartbeat(run, attempt.number)
        assert (latest.state, latest.done, latest.failed) == (ended, 7, {"TIMEOUT": 2})


def test_an_attempt_whose_process_was_killed_is_succeeded_at_once(store: Store, run: RunDirectory) -> None:
    process = driver(store)
    process.kill()
    process.communicate()
    assert start_attempt(run, pytest.fail).number == 2


def test_a_second_attempt_is_refused_while_the_first_is_running(store: Store, run: RunDirectory) -> None:
    process = driver(store)
    try:
        said: list[str] = []
        with pytest.raises(OutputConflictError, match=rf"attempt 1 \(process {process.pid} on .* is running"):
            start_attempt(run, said.append)
        assert "did not say that it ended: watching it" in said[0]
        with pytest.raises(OutputConflictError, match="is running"):
            replace_run(store, record(id="other"), said.append)
    finally:
        process.kill()
        process.communicate()


def test_a_silent_attempt_is_succeeded_and_stops_when_it_wakes(
    store: Store, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "HEARTBEAT_TIMEOUT_S", 2)
    process = driver(store)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert start_attempt(run, lambda _: None).number == 2
        assert process.poll() is None
        os.kill(process.pid, signal.SIGCONT)
        _, complaint = process.communicate(timeout=30)
        assert "attempt 2 (process" in complaint
        assert "This one stops; what it committed counts" in complaint
    finally:
        process.kill()
        process.wait()
    newest = run.last(Attempt)
    assert newest
    latest = last_heartbeat(run, 1)
    assert newest.number == 2
    assert latest.state == "failed"


def test_an_attempt_that_slept_past_its_beats_looks_before_it_goes_on(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start_attempt(run, pytest.fail)
    sleeper, awake = Heartbeat(run, first), Heartbeat(run, first)
    awake.assert_newest()
    run.create(first.model_copy(update={"number": 2}))
    with pytest.raises(OutputConflictError, match="has taken over"):  # it slept since it took its number
        sleeper.assert_newest()
    awake.assert_newest()
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", -1)  # every beat is overdue
    with pytest.raises(OutputConflictError, match=r"attempt 2 \(process .* has taken over"):
        awake.assert_newest()


def test_an_attempt_that_slept_while_it_looked_looks_again(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.1)
    first = start_attempt(run, pytest.fail)
    asleep, woken, read = threading.Event(), threading.Event(), heartbeat.last_attempt

    def read_and_sleep(*args: Any) -> Attempt | None:
        found = read(*args)
        if threading.current_thread() is not threading.main_thread() and not asleep.is_set():
            asleep.set()
            assert woken.wait(60)
        return found

    monkeypatch.setattr(heartbeat, "last_attempt", read_and_sleep)
    sleeper = Heartbeat(run, first)
    looking = threading.Thread(target=sleeper._check)
    looking.start()
    assert asleep.wait(60)
    run.create(first.model_copy(update={"number": 2}))
    time.sleep(0.3)
    woken.set()
    looking.join()
    with pytest.raises(OutputConflictError, match=r"attempt 2 \(process .* has taken over"):
        sleeper.assert_newest()


def test_an_attempt_at_a_run_that_was_restarted_stops(store: Store) -> None:
    process = driver(store)
    store.write("run.json", record(id="other").to_json())
    _, complaint = process.communicate(timeout=30)
    assert process.returncode
    assert "a run started with --restart" in complaint


def test_no_damage_to_the_records_of_a_running_attempt_lets_another_start(
    store: Store, run: RunDirectory
) -> None:
    process, attempt, alive = driver(store, 0.5), Attempt.key_of(1), HeartbeatRecord.key_of(1)

    def renewed(key: str) -> bool:
        """Whether the driver puts a record again."""
        end = time.monotonic() + 60
        while time.monotonic() < end and not run.ledger.exists(key):
            time.sleep(0.1)
        return run.ledger.exists(key)

    def restart(_: RunDirectory, message: Callable[[str], None]) -> object:
        return replace_run(store, record(id="other"), message)

    damages: dict[str, Callable[[], object]] = {
        "a heartbeat cut": lambda: run.ledger.write(alive, run.ledger.read(alive)[:20]),
        "a heartbeat deleted": lambda: run.ledger.delete([alive]),
        "an attempt cut": lambda: run.ledger.write(attempt, run.ledger.read(attempt)[:20]),
        "an attempt deleted": lambda: run.ledger.delete([attempt]),
        "both empty": lambda: [run.ledger.write(key, b"") for key in (attempt, alive)],
        "run.json deleted": lambda: store.delete(["run.json"]),
        "run.json cut": lambda: store.write("run.json", b"{"),
    }
    try:
        for name, damage in damages.items():
            damage()
            notes: list[str] = []
            start = restart if name.startswith("run.json") else start_attempt
            with pytest.raises(OutputConflictError, match=r"attempt 1.* is running here"):
                start(run, notes.append)
            assert process.poll() is None, name
            if name == "an attempt deleted":
                assert renewed(attempt)
        assert f"{run.ledger.url}/{attempt} is damaged: it is empty" in notes[0]
    finally:
        process.kill()
        process.communicate()
    assert store.read("run.json") == b"{"


def test_a_process_is_known_by_its_machine_since_it_booted_and_by_when_it_began() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        began = started_at(process.pid)
        assert began
        values: dict[str, Any] = {"pid": process.pid, "machine": this_machine(), "process_started": began}
        attempt = Attempt(number=1, started_at=datetime.now(UTC), host="any name", **values)
        assert not is_gone(attempt)
        assert is_gone(attempt.model_copy(update={"process_started": began + 1}))  # its pid is used again
        process.kill()
        while started_at(process.pid):  # until it is a zombie
            time.sleep(0.01)
        assert is_gone(attempt)
        assert not is_gone(attempt.model_copy(update={"machine": "another"}))


def test_of_two_restarts_the_later_does_not_replace_the_run_of_the_earlier(
    store: Store, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "HEARTBEAT_TIMEOUT_S", 2)
    silent = start_attempt(run, pytest.fail)
    run.put(silent.model_copy(update={"machine": "another"}))
    drivers: list[subprocess.Popen[str]] = []

    def restart(_: str) -> None:
        """What another process does while this one watches the silent attempt."""
        if not drivers:
            store.write("run.json", record(id="other").to_json())
            drivers.append(driver(store, 0.2))

    try:
        with pytest.raises(OutputConflictError, match=r"attempt 1.* is running here"):
            replace_run(store, record(id="new"), restart)
        assert find_run(store.url).record.id == "other"
    finally:
        for process in drivers:
            process.kill()
            process.communicate()


def test_an_attempt_whose_number_another_took_stops(run: RunDirectory) -> None:
    first = start_attempt(run, pytest.fail)
    sleeper = Heartbeat(run, first)
    run.put(first.model_copy(update={"pid": first.pid + 1}))
    sleeper._check()
    with pytest.raises(
        OutputConflictError, match=rf"attempt 1 \(process {first.pid + 1} on .* has taken over"
    ):
        sleeper.assert_newest()


def test_a_dead_attempt_with_damaged_records_is_succeeded(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "HEARTBEAT_TIMEOUT_S", 0.6)
    first = start_attempt(run, pytest.fail)
    run.ledger.write(first.key, b"[]")
    run.ledger.write(HeartbeatRecord.key_of(1), b"")
    notes: list[str] = []
    assert start_attempt(run, notes.append).number == 2
    assert notes[0] == (
        f"{run.ledger.url}/{first.key} is damaged: it is no attempt of this version (Input should be an "
        "object): its heartbeat is watched"
    )
    assert "attempt 1, whose record is damaged or gone, did not say that it ended" in notes[1]


def test_a_folder_in_the_place_of_an_attempt_is_named(run: RunDirectory) -> None:
    run.ledger.write(f"{Attempt.key_of(1)}/x", b"")
    with pytest.raises(DamagedFileError, match=r"attempts/000001\.json is damaged: it is no file"):
        start_attempt(run, pytest.fail)


def test_of_attempts_at_the_same_moment_one_goes_on(store: Store, run: RunDirectory) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, store.url, str(heartbeat.HEARTBEAT_S)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    end = time.monotonic() + 60
    while sum(process.poll() is not None for process in processes) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.kill()
    complaints = [process.communicate()[1] for process in processes]
    assert len(running) == 1
    assert sum(f"(process {running[0].pid} on" in complaint for complaint in complaints) == 2
    newest = run.last(Attempt)
    assert newest
    assert newest.number == 1
