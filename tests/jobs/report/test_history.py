from pathlib import Path
from typing import Literal

import pytest

from jobs.report.facts import Rate
from jobs.report.history import MAX_ATTEMPTS, find_history
from schemas.ledger import Attempt, HeartbeatRecord
from tests.jobs.report.made_runs import at
from tests.jobs.results.test_datasets import begun
from workers.ledger.directory import RunDirectory


def add(
    run: RunDirectory,
    number: int,
    began: float,
    ended: float | None,
    state: Literal["running", "complete", "stopped", "failed"] = "complete",
) -> None:
    attempt = Attempt(number=number, started_at=at(began), host="node", pid=1, machine="m", process_started=1)
    run.ledger.write(attempt.key, attempt.to_json())
    if ended is not None:
        heartbeat = HeartbeatRecord(number=number, at=at(ended), state=state, done=10 * number)
        run.ledger.write(heartbeat.key, heartbeat.to_json())


def test_an_attempt_took_until_its_last_sign_of_life(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    add(run, 1, 0, 60, "stopped")
    add(run, 2, 100, None)
    history = find_history(run)
    assert [one.seconds for one in history.attempts] == [60, None]
    assert [one.heartbeat.done if one.heartbeat else None for one in history.attempts] == [10, None]
    assert history.number == 2


def test_of_many_attempts_the_last_ones_are_shown(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    for number in range(1, 15):
        add(run, number, number, number + 1)
    history = find_history(run)
    assert [one.number for one in history.attempts] == list(range(15 - MAX_ATTEMPTS, 15))
    assert history.number == 14


def test_a_run_that_was_never_attempted_has_no_history(tmp_path: Path) -> None:
    history = find_history(begun(str(tmp_path)))
    assert (history.attempts, history.number) == ((), 0)


def test_a_damaged_record_is_passed_over(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    add(run, 1, 0, 60)
    run.ledger.write(Attempt.key_of(1), b"{")
    (only,) = find_history(run).attempts
    assert (only.record, only.seconds) == (None, None)
    assert only.heartbeat.state == "complete"


def test_of_a_run_of_one_attempt_it_is_known_where_the_time_went(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    add(run, 1, 0, 100)
    phases = find_history(run).phases(Rate(at(12), at(95), 1, (2,)))
    assert [seconds for _, seconds in phases] == [12, 83, 5]


@pytest.mark.parametrize(
    ("attempts", "first", "last"),
    [
        (
            [(0, 100, "complete"), (200, 300, "complete")],
            210,
            290,
        ),  # each had a start
        ([(0, 100, "stopped")], 12, 95),
        ([(0, 100, "running")], 12, 95),
        ([(0, None, "running")], 12, 95),
        ([(0, 100, "complete")], 12, 101),  # another machine's clock
        ([], 12, 95),
    ],
)
def test_where_it_is_not_known_nothing_is_said(
    tmp_path: Path,
    attempts: list[tuple[float, float | None, Literal["running", "complete", "stopped"]]],
    first: float,
    last: float,
) -> None:
    run = begun(str(tmp_path))
    for number, (began, ended, state) in enumerate(attempts, 1):
        add(run, number, began, ended, state)
    assert find_history(run).phases(Rate(at(first), at(last), 1, (2,))) == []
    assert find_history(run).phases(None) == []
