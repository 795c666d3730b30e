import contextlib
import json
import os
import re
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.results.status import find_status, show_status, speed, state_of, unfinished
from jobs.run.stop import Stopped
from schemas.exceptions import FailureBudgetError, StorageError
from schemas.ledger import SUCCESS, Attempt, HeartbeatRecord, Retry
from schemas.metrics import NO_USAGE
from schemas.plan import Pass, Plan
from schemas.ranges import to_ranges
from tests.jobs.results.test_datasets import begun, publish
from tests.workers.ledger.test_attempts import driver
from tests.workers.tables.made_results import record, results_of, run_directory
from workers.ledger.attempts import start_attempt
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.heartbeat import Heartbeat
from workers.ledger.publish import publish_shard
from workers.ledger.runs import begin_run
from workers.ledger.state import PassState, finish_run
from workers.storage.store import Store

PLAN = Plan(rows=50, unit_rows=4, shard_units=6)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def run(output: str) -> RunDirectory:
    """A run of 50 images in three shards, of which nothing is done yet."""
    begin_run(Store(output), record())
    return run_directory(output, PLAN)


def heartbeat_of(run: RunDirectory) -> Heartbeat:
    """Of an attempt that this process starts."""
    return Heartbeat(run, start_attempt(run, pytest.fail))


def show_progress(heartbeat: Heartbeat, run: RunDirectory, done: int, **failed: int) -> None:
    """Lets a heartbeat know how far a pass is."""
    state = PassState(run)
    state.done, state.failed = done, Counter(failed)
    heartbeat.on_progress(state, NO_USAGE)


def told(output: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    show_status(output, as_json=True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def complete(run: RunDirectory) -> None:
    with heartbeat_of(run).running():
        commit_results(run, 1, results_of(PLAN, *range(PLAN.units)))
        for shard in range(PLAN.shards):
            publish_shard(run, shard)
        finish_run(run)


def test_a_run_is_followed_from_its_record_to_its_end(
    run: RunDirectory, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def facts(*names: str) -> list[Any]:
        found = told(output, capsys)
        return [found[name] for name in ("state", *names)]

    assert facts("attempt", "done", "next") == [
        "not_started",
        None,
        0,
        f"`raylabel run {output}` resumes",
    ]
    first = heartbeat_of(run)
    assert facts("last_heartbeat", "done") == ["running", None, 0]
    commit_results(run, 1, results_of(PLAN, 0, 1, 2, 3, 4, 5))
    publish_shard(run, 0)
    show_progress(first, run, 24, TRUNCATED=6)
    with contextlib.suppress(FailureBudgetError), first.running():
        assert facts("rows", "done", "failed", "published_shards", "shards") == [
            "running",
            *(50, 24, {"TRUNCATED": 6}, 1, 3),
        ]
        raise FailureBudgetError("6 of 24 images failed")
    found = told(output, capsys)
    assert (found["state"], found["reason"]) == ("failed", "FailureBudgetError: 6 of 24 images failed")
    assert found["next"] == f"fix the cause; `raylabel run {output}` resumes"
    with contextlib.suppress(Stopped), heartbeat_of(run).running():
        commit_results(run, 2, results_of(PLAN, 6))
        raise Stopped("SIGTERM", 143)
    assert facts("reason", "done", "failed", "published_shards") == [
        "stopped",
        "SIGTERM",
        28,
        {"TRUNCATED": 7},
        1,
    ]
    complete(run)
    assert facts("rows", "done", "failed", "published_shards", "tables", "next") == [
        "complete",
        50,
        50,
        {"TRUNCATED": 12},
        3,
        {"labels": 38, "boxes": 37, "tags": 62, "embeddings": 38, "object_embeddings": 37, "errors": 12},
        f"`raylabel show {output}` shows what was found; once the cause of the failures is removed, "
        f"`raylabel retry {output} --code TRUNCATED` labels those images again",
    ]
    assert told(output, capsys)["attempt"]["number"] == 3


def test_a_run_that_is_being_retried_says_so(
    run: RunDirectory, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(run)
    rows = [3, 7, 27]
    retry = Retry(number=1, codes=["TRUNCATED"], rows=to_ranges(rows))
    run.ledger.create(retry.key, retry.to_json())
    run.store.delete(["_SUCCESS"])
    again = run_directory(output, Pass(PLAN, np.array(rows), 1))
    found = told(output, capsys)
    assert found["retry"] == {"number": 1, "codes": ["TRUNCATED"]}
    assert [found[n] for n in ("state", "rows", "done", "shards")] == ["not_started", 3, 0, 2]
    assert found["next"] == f"`raylabel retry {output}` resumes"
    with heartbeat_of(again).running():
        commit_results(again, 2, results_of(again.current, 0, 1, cured=True))
        publish_shard(again, 0)
        found = told(output, capsys)
        assert [found[n] for n in ("state", "published_shards")] == ["running", 1]
        commit_results(again, 2, results_of(again.current, 6))
        publish_shard(again, 1)
        finish_run(again)
    found = told(output, capsys)
    assert [found[n] for n in ("state", "retry", "done", "failed")] == [
        "complete",
        None,
        50,
        {"TRUNCATED": 10},
    ]


def test_what_may_do_better_is_advised_to_be_retried(run: RunDirectory, output: str) -> None:
    complete(run)
    key = "shards/shard-00001.json"
    shard = json.loads(run.ledger.read(key))
    run.ledger.write(key, json.dumps({**shard, "errors": {"TRUNCATED": 4, "TIMEOUT": 2}}).encode())
    assert find_status(output).next == f"`raylabel retry {output}` retries 2 images that may succeed"


def test_a_code_of_a_newer_raylabel_is_counted_and_named(run: RunDirectory, output: str) -> None:
    complete(run)
    key = "shards/shard-00001.json"
    shard = json.loads(run.ledger.read(key))
    run.ledger.write(key, json.dumps({**shard, "errors": {"HAUNTED": 6}}).encode())
    assert "--code HAUNTED" in find_status(output).next


def test_a_killed_attempt_has_died_and_one_that_is_stopped_short_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    begin_run(store, record())
    process = driver(store)
    try:
        assert find_status(store.url).state == "running"
        os.kill(process.pid, signal.SIGSTOP)
        monkeypatch.setattr("jobs.results.status.HEARTBEAT_TIMEOUT_S", 0.0)
        assert find_status(store.url).state == "unresponsive"
    finally:
        process.kill()
        process.communicate()
    status = find_status(store.url)
    assert (status.state, status.attempt and status.attempt.pid) == ("crashed", process.pid)
    assert (
        "state",
        "crashed: its process is gone and did not say why (killed, or out of memory)",
    ) in status.facts()


FIRST = Attempt(number=1, started_at=NOW, host="there", pid=7, machine="there", process_started=0)


def heartbeat(seconds: float, state: Any = "running", done: int | None = None) -> HeartbeatRecord:
    return HeartbeatRecord(number=1, at=NOW + timedelta(seconds=seconds), state=state, done=done)


@pytest.mark.parametrize(
    ("heartbeat", "retry", "gone", "after", "state"),
    [
        (None, 0, False, 3, "running"),
        (None, 0, False, 30, "unresponsive"),
        (heartbeat(28), 0, False, 30, "running"),
        (heartbeat(28), 0, True, 30, "crashed"),
        (heartbeat(2), 0, False, 30, "unresponsive"),
        (heartbeat(40), 0, False, 30, "running"),  # a clock that is ahead
        (heartbeat(2, "stopped"), 0, True, 30, "stopped"),
        (heartbeat(2, "failed"), 1, True, 30, "failed"),
        (heartbeat(2, "complete"), 1, True, 30, "not_started"),  # the pass before was completed
        (heartbeat(2, "complete"), 0, True, 30, "stopped"),  # _SUCCESS is gone
    ],
)
def test_the_state_is_told_from_the_last_sign_of_life(
    heartbeat: HeartbeatRecord | None, retry: int, gone: bool, after: float, state: str
) -> None:
    now = NOW + timedelta(seconds=after)
    assert state_of(FIRST.started_at, heartbeat, retry=retry, gone=gone, now=now) == state


def test_the_speed_is_told_only_where_the_files_tell_it() -> None:
    second = FIRST.model_copy(update={"number": 2})
    assert speed(FIRST, None, heartbeat(10, done=50)) == 5
    assert speed(FIRST, None, heartbeat(10)) is None
    assert speed(FIRST, None, heartbeat(10, done=0)) is None
    assert speed(second, heartbeat(-5, "stopped", 30), heartbeat(10, done=50)) == 2
    assert (
        speed(second, heartbeat(-5, "complete", 30), heartbeat(10, done=50)) == 5
    )  # that was the pass before
    assert (
        speed(second, heartbeat(-5, "running", 30), heartbeat(10, done=50)) is None
    )  # killed: it may have done more
    assert speed(second, None, heartbeat(10, done=50)) is None


def test_a_person_is_told_in_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path)
    begin_run(Store(output), record(command="raylabel run job.yaml"))
    run = run_directory(output, PLAN)
    alive = heartbeat_of(run)
    show_progress(alive, run, 24, TRUNCATED=6, TIMEOUT=1)
    with alive.running():
        show_status(output, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        *("output", "state", "begun by", "last attempt", "last heartbeat"),
        *("images", "shards", "speed", "next"),
    ]
    assert lines[1:3] == ["state: running", "begun by: raylabel run job.yaml"]
    assert re.fullmatch(rf"last attempt: 1 \(process {os.getpid()} on \S+, since \S+ \S+ UTC\)", lines[3])
    assert re.fullmatch(r"last heartbeat: \S+ \S+ UTC, 0:00:0\d ago", lines[4])
    assert lines[5] == "images: 24 of 50 done (48.0%), 7 failed (6 TRUNCATED, 1 TIMEOUT)"
    assert lines[6] == "shards: 0 of 3 published"


def test_of_a_running_run_no_commit_is_read(run: RunDirectory, output: str) -> None:
    alive = heartbeat_of(run)
    show_progress(alive, run, 24)
    with alive.running():
        (commit,) = commit_results(run, 1, results_of(PLAN, 0))
        run.ledger.write(commit.key, b"no commit")
        assert find_status(output).progress.done == 24


def test_nothing_is_written(tmp_path: Path) -> None:
    begin_run(Store(str(tmp_path)), record())
    run = run_directory(tmp_path, PLAN)
    commit_results(run, 1, results_of(PLAN, 0))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert find_status(str(tmp_path)).progress.done == 4
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_where_no_run_is_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"found no run at {tmp_path}"):
        find_status(str(tmp_path))


def test_what_is_left_of_a_run_that_is_not_complete_is_said(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    publish(run, 0, 2)
    assert unfinished(run) == f"{tmp_path} is not complete: 2 of 3 shards are published"
    publish(run, 1)
    assert str(unfinished(run)).endswith("all shards are published, and what is left is to verify them")
    retry = Retry(number=1, codes=["TIMEOUT"], rows=[(0, 1)])
    run.ledger.write(retry.key, retry.to_json())
    assert str(unfinished(run)).endswith("the retry of images that failed has not ended")
    run.store.write(SUCCESS, b'{"labels": 1, "boxes": 1, "errors": 1}')
    assert unfinished(run) is None
