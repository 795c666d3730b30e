import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from jobs.run import console
from jobs.run.console import Bar, JsonLines, Lines, Meter, ProgressEvent
from schemas.ledger import Commit
from schemas.metrics import NO_USAGE
from schemas.plan import Plan
from schemas.ranges import to_ranges
from tests.clock import standing_still
from tests.workers.tables.made_results import run_directory
from workers.ledger.state import PassState

PLAN = Plan(rows=100, unit_rows=10, shard_units=100)


def state(*committed: int, failed: int = 0) -> PassState:
    state = PassState(run_directory(Path("nowhere"), PLAN))
    if committed:
        units = to_ranges(committed)
        state.add(
            Commit(attempt=1, retry=0, shard=0, units=units, files={"labels": []}, failed={"TIMEOUT": failed})
        )
    return state


def test_a_state_is_said_in_one_line() -> None:
    assert str(ProgressEvent(1000, 0, 0, None, None)) == "0 of 1,000 images"
    assert str(ProgressEvent(5000, 1500, 2, 12.34, 3_661.2)) == (
        "1,500 of 5,000 images, 2 failed, 12.3 images/s, 1:01:01 left"
    )


def test_the_bar_leaves_stderr_to_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    screen = io.StringIO()
    with Bar(Console(file=screen, force_terminal=True, width=100)):
        print("a log line", file=sys.stderr)
    assert capfd.readouterr().err == "a log line\n"
    assert "a log line" not in screen.getvalue()


def test_the_bar_shows_the_whole_job_on_a_terminal() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with Bar(console) as bar:
        bar.on_progress(state(), NO_USAGE)
        bar.on_progress(state(0, 1, 2, failed=4), NO_USAGE)
    shown = screen.getvalue()
    assert "starting: actors load the models" in shown
    assert "30 of 100 images, 4 failed" in shown


def test_a_log_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lines(Console()) as report:
        report.on_progress(state(0), NO_USAGE)
        monkeypatch.setattr(console, "LINES_S", 0)
        report.on_progress(state(0, 1, failed=2), NO_USAGE)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "resumes: 10 of 100 images done"
    assert second.startswith("20 of 100 images, 2 failed")


def test_speed_is_measured_anew_where_what_was_done_is_done_again() -> None:
    meter = Meter()
    for done in (range(0), range(4), range(8), range(2)):
        event = meter(state(*done))
    assert (event.done, event.images_per_s) == (20, None)


def test_a_job_that_begins_resumes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(Console()) as report:
        report.on_progress(state(), NO_USAGE)
    assert capsys.readouterr().out == ""


def test_json_lines_say_how_far_the_job_is(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines(Console()) as report:
        report.on_progress(state(), NO_USAGE)
        report.on_progress(state(0), NO_USAGE)
        report.on_progress(state(*range(10), failed=3), NO_USAGE)
    first, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert first == {
        "event": "progress",
        "rows": 100,
        "done": 0,
        "failed": 0,
        "images_per_s": None,
        "seconds_left": None,
    }
    assert (last["done"], last["failed"], last["seconds_left"]) == (100, 3, 0)
    assert last["images_per_s"] > 0


@pytest.mark.parametrize("up_s", [0.0, 0.5, 1e7])
def test_json_lines_begin_with_the_first_state_however_long_the_machine_is_up(
    up_s: float, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", standing_still(up_s))
    with JsonLines(Console()) as report:
        report.on_progress(state(0), NO_USAGE)
        report.on_progress(state(0, 1), NO_USAGE)  # within the same second
    (first,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert first["done"] == 10


def test_what_an_earlier_attempt_did_does_not_count_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines(Console()) as report:
        report.on_progress(state(*range(9)), NO_USAGE)
        report.on_progress(state(*range(10)), NO_USAGE)
    states = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(state["done"], state["images_per_s"]) for state in states] == [(90, None), (100, None)]
