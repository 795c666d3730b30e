import os
import pty
import sys
from typing import Any

import pytest

from raylabel import progress
from raylabel.progress import in_words, shown

EVENTS: list[dict[str, Any]] = [
    {"event": "started", "output": "out", "ray_logs": "logs", "seconds": 6.2, "new": 1},
    {"event": "message", "text": "note: a store that overwrites"},
    {
        "event": "progress",
        "rows": 1000,
        "done": 128,
        "failed": 1,
        "images_per_s": 31.7,
        "seconds_left": 27.5,
        "new": 1,
    },
    {
        "event": "complete",
        "output": "out",
        "up_to_date": False,
        "seconds": 44.0,
        "labels": 999,
        "boxes": 1804,
        "errors": 1,
    },
]
DONE = "999 images labelled, 1,804 objects, 1 image failed"


def test_each_event_has_words() -> None:
    assert [in_words(event) for event in EVENTS] == [
        "starting: actors load the models",
        None,
        "128 of 1,000 images, 1 failed, 31.7 images/s, 0:00:28 left",
        f"{DONE} in 44 s",
    ]
    up_to_date = {key: value for key, value in EVENTS[-1].items() if key != "seconds"}
    assert in_words({**up_to_date, "up_to_date": True}) == f"{DONE} before"
    assert in_words({"event": "stopped", "reason": "SIGTERM"}) == "stopped: SIGTERM"
    assert in_words({"event": "of a later version"}) is None


def show(events: list[dict[str, Any]]) -> None:
    with shown(True) as on_event:
        for event in events:
            on_event(event)


def test_a_log_has_what_stays_and_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    show(EVENTS)
    assert capsys.readouterr() == ("", f"note: a store that overwrites\n{DONE} in 44 s\n")


def test_a_log_has_a_line_whenever_it_is_due(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_S", 0)
    show(EVENTS[:1])
    assert capsys.readouterr().err == f"{progress.STARTING}\nstarting: actors load the models\n"


def test_a_terminal_has_one_line_that_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as terminal, os.fdopen(reader, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", terminal)
        show(EVENTS)
        text = b""
        while not text.endswith(b"labelled\r\n"):
            text += screen.read(10_000)
    assert text.decode().split("\r\x1b[K") == [
        "",
        "starting: Ray, and ",
        "starting: actors lo",
        "note: a store that overwrites\r\n",
        "128 of 1,000 images",
        "999 images labelled\r\n",
    ]


@pytest.mark.parametrize("nothing", [None, False])
def test_nothing_is_shown_where_nobody_wants_it(
    nothing: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown(nothing) as on_event:
        on_event(EVENTS[0])
    assert capsys.readouterr() == ("", "")


def test_a_function_gets_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    got: list[dict[str, Any]] = []
    with shown(got.append) as on_event:
        for event in EVENTS:
            on_event(event)
    assert got == EVENTS
    assert capsys.readouterr() == ("", "")
