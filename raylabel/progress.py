"""How far a job is, as a line that changes: below a notebook's cell, at a terminal, now and then in a log."""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from raylabel.child import Event
from raylabel.own import own_modules

with own_modules():
    from jobs.run.console import ProgressEvent, format_rows

Progress = bool | None | Callable[[Event], object]
"""Whether progress is shown; or what is called with each event instead."""

LOG_S = 15
"""Seconds between two lines in a log."""

STARTING = "starting: Ray, and the models"


class Line(Protocol):
    """A line that changes."""

    def show(self, text: str) -> None:
        """Puts a text in the place of the last one."""

    def keep(self, text: str) -> None:
        """Prints a text that stays."""

    def end(self) -> None:
        """Leaves the last text as it is."""


@contextlib.contextmanager
def shown(progress: Progress) -> Iterator[Callable[[Event], object]]:
    """What is called with each event of a job, for the length of a block."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda _: None
    else:
        with contextlib.closing(_Words(_line_here())) as words:
            yield words


class _Words:
    """Puts events into words."""

    def __init__(self, line: Line) -> None:
        self._line = line
        line.show(STARTING)

    def __call__(self, event: Event) -> None:
        """Shows an event."""
        if event["event"] == "message":
            self._line.keep(event["text"])
        elif text := in_words(event):
            self._line.show(text)

    def close(self) -> None:
        """Ends the line."""
        self._line.end()


def in_words(event: Event) -> str | None:
    """An event in words; None of one that there are no words for."""
    match event["event"]:
        case "started":
            return "starting: actors load the models"
        case "progress":
            return str(ProgressEvent(**{name: event[name] for name in ProgressEvent.__dataclass_fields__}))
        case "complete":
            when = "before" if event["up_to_date"] else f"in {event['seconds']:.0f} s"
            return f"{format_rows(event)} {when}"
        case "stopped":
            return f"stopped: {event['reason']}"
    return None


def _line_here() -> Line:
    """The line that fits where this process prints."""
    ipython = sys.modules.get("IPython")
    if ipython and hasattr(ipython.get_ipython(), "kernel"):
        return _CellLine()
    return _TerminalLine() if sys.stderr.isatty() else _LogLines()


class _CellLine:
    """An output of a notebook's cell, in place of which the next one is displayed."""

    def __init__(self) -> None:
        self._display: Any = None

    def show(self, text: str) -> None:
        from IPython.display import display

        shown = {"text/plain": text}
        if self._display is None:
            self._display = display(shown, raw=True, display_id=True)
        else:
            self._display.update(shown, raw=True)

    def keep(self, text: str) -> None:
        print(text)

    def end(self) -> None:
        pass


class _TerminalLine:
    """The last line of a terminal, on stderr."""

    def show(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)

    def keep(self, text: str) -> None:
        print(f"\r\x1b[K{text}", file=sys.stderr)

    def end(self) -> None:
        print(file=sys.stderr)


class _LogLines:
    """Lines on stderr every `LOG_S` seconds, and the last one."""

    def __init__(self) -> None:
        self._printed, self._due, self._last = "", time.monotonic() + LOG_S, ""

    def show(self, text: str) -> None:
        self._last = text
        if time.monotonic() >= self._due:
            self._print()

    def keep(self, text: str) -> None:
        print(text, file=sys.stderr)

    def end(self) -> None:
        if self._last != self._printed:
            self._print()

    def _print(self) -> None:
        self._printed, self._due = self._last, time.monotonic() + LOG_S
        print(self._last, file=sys.stderr, flush=True)
