import io
import json
from collections import Counter

import pytest
from rich.console import Console

from jobs.ledger import Ledger
from jobs.progress import Bar, JsonLines, State, said
from schemas.plan import Plan

PLAN = Plan(rows=100, unit_rows=10, shard_units=100)


def ledger(*committed: int, failed: int = 0) -> Ledger:
    return Ledger(PLAN, committed=set(committed), failed=Counter(TIMEOUT=failed))


def test_a_state_is_said_in_one_line() -> None:
    assert said(State(1000, 0, 0, None, None)) == "0 of 1,000 images"
    assert said(State(5000, 1500, 2, 12.34, 3_661.2)) == (
        "1,500 of 5,000 images, 2 failed, 12.3 a second, 1:01:01 left"
    )


def test_the_bar_shows_the_whole_job_on_a_terminal() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with Bar(console) as bar:
        bar(ledger())
        bar(ledger(0, 1, 2, failed=4))
    shown = screen.getvalue()
    assert "starting: actors load the models" in shown
    assert "30 of 100 images, 4 failed" in shown


def test_json_lines_say_how_far_the_job_is(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines() as report:
        report(ledger())
        report(ledger(0))
        report(ledger(*range(10), failed=3))
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


def test_what_an_earlier_attempt_did_does_not_count_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines() as report:
        report(ledger(*range(9)))
        report(ledger(*range(10)))
    states = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(state["done"], state["images_per_s"]) for state in states] == [(90, None), (100, None)]
