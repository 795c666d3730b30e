"""What a run prints: sentences and progress, for a terminal, a log, or a program that reads JSON Lines."""

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from schemas.metrics import Usage
from schemas.tables import ALWAYS, TABLES
from schemas.words import counted
from workers.ledger.state import PassState
from workers.printable import printable

LINES_S = 15
"""Seconds between two lines of progress in a log."""


@dataclass(frozen=True)
class ProgressEvent:
    """How far a run is.

    Attributes:
        rows: rows to do: those of the manifest, or of a retry.
        done: rows labelled or failed, those of earlier attempts included.
        failed: rows that failed.
        images_per_s: since this attempt's first commit; None before its second.
        seconds_left: at that rate; None before there is one.
    """

    rows: int
    done: int
    failed: int
    images_per_s: float | None
    seconds_left: float | None

    def __str__(self) -> str:
        line = f"{self.done:,} of {counted(self.rows, 'image')}"
        if self.failed:
            line += f", {self.failed:,} failed"
        if self.images_per_s is not None and self.seconds_left is not None:
            line += f", {self.images_per_s:.1f} images/s, {timedelta(seconds=round(self.seconds_left))} left"
        return line


class Meter:
    """Measures progress. Speed counts from this attempt's first commit: until then actors start.

    Attributes:
        before: rows in a final state at the first measurement; None before it.
        done: rows that this attempt brought into a final state so far.
        images_per_s: as of the last measurement.
    """

    def __init__(self) -> None:
        self.before: int | None = None
        self.done = 0
        self.images_per_s: float | None = None
        self._first: tuple[float, int] | None = None

    def __call__(self, state: PassState) -> ProgressEvent:
        """The progress now; what is done at the first call was done by earlier attempts."""
        now = time.monotonic()
        if self.before is None:
            self.before = state.done
        rate = seconds_left = None
        if self._first and state.done < self._first[1]:  # what was damaged is done again
            self._first = None
        if self._first:
            rate = (state.done - self._first[1]) / max(now - self._first[0], 1e-9)
            seconds_left = (state.rows - state.done) / rate if rate else None
        elif state.done > self.before:
            self._first = now, state.done
        self.done, self.images_per_s = state.done - self.before, rate
        return ProgressEvent(state.rows, state.done, state.failed.total(), rate, seconds_left)


class Reporter:
    """Prints the messages of a running job; this one prints no progress.

    Args:
        console: to print on.

    Attributes:
        meter: measures the progress.
    """

    def __init__(self, console: Console) -> None:
        self.meter = Meter()
        self._console = console

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def message(self, text: str) -> None:
        """Prints a sentence."""
        self._console.print(printable(text), markup=False)

    def on_progress(self, state: PassState, usage: Usage) -> None:  # noqa: ARG002 - an observer's face
        """See `jobs.run.observers.Observer`."""
        self.show(self.meter(state))

    def show(self, progress: ProgressEvent) -> None:
        """Prints the progress, where that is due."""


class ForPeople(Reporter):
    """Says first what earlier attempts have done, if anything."""

    def on_progress(self, state: PassState, usage: Usage) -> None:
        """See `jobs.run.observers.Observer`."""
        if self.meter.before is None and state.done:
            self.message(f"resumes: {state.done:,} of {counted(state.rows, 'image')} done")
        super().on_progress(state, usage)


class Lines(ForPeople):
    """A line now and then: for a person who reads a log."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._last = time.monotonic()

    def show(self, progress: ProgressEvent) -> None:
        """Prints a line every `LINES_S` seconds."""
        if time.monotonic() - self._last >= LINES_S:
            self._last = time.monotonic()
            self.message(str(progress))


class JsonLines(Reporter):
    """One JSON object a line; of progress at most one a second, and one when all is done."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._last = -math.inf  # the first is printed, however short a time this machine is up

    def message(self, text: str) -> None:
        """Prints a sentence as an event."""
        print(json.dumps({"event": "message", "text": text}), flush=True)

    def show(self, progress: ProgressEvent) -> None:
        """Prints a progress event."""
        now = time.monotonic()
        if now - self._last >= 1 or progress.done == progress.rows:
            self._last = now
            print(json.dumps({"event": "progress", **asdict(progress)}), flush=True)


class Bar(ForPeople):
    """One bar for the whole job."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        description = TextColumn("{task.description}")
        # stderr stays as it is: log lines go to raylabel-driver.log, not above the bar
        columns = (SpinnerColumn(), BarColumn(bar_width=30), description)
        self._bar = Progress(*columns, console=console, redirect_stderr=False)
        self._task = self._bar.add_task("starting: actors load the models", total=None)

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, progress: ProgressEvent) -> None:
        """Draws the bar, from the first row that is done."""
        if progress.done:
            total, done = progress.rows, progress.done
            self._bar.update(self._task, total=total, completed=done, description=str(progress))


class RunConsole:
    """What a command prints of its job: sentences for a person, or events for a program.

    Attributes:
        started: when the command started, by the monotonic clock.
        terminal: what sentences are printed on.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.started = time.monotonic()
        self.terminal = Console(quiet=as_json, highlight=False, soft_wrap=True)

    def message(self, text: str) -> None:
        """Prints a sentence, for a person."""
        self.terminal.print(printable(text), markup=False)

    def event(self, event: str, **facts: object) -> None:
        """Prints an event as a JSON line, for a program."""
        if self._as_json:
            print(json.dumps({"event": event, **facts}), flush=True)

    def reporter(self) -> Reporter:
        """What shows the progress."""
        if self._as_json:
            return JsonLines(self.terminal)
        return Bar(self.terminal) if sys.stdout.isatty() else Lines(self.terminal)

    @property
    def seconds(self) -> float:
        """Since the command started."""
        return time.monotonic() - self.started


def format_rows(rows: dict[str, int]) -> str:
    """A run's rows in a sentence."""
    others = [name for name in TABLES if name in rows and name not in ALWAYS]
    further = "".join(f", {counted(rows[name], name[:-1].replace('_', ' '))}" for name in others)
    labels, boxes, errors = (rows[name] for name in ALWAYS)
    return (
        f"{counted(labels, 'image')} labelled, {counted(boxes, 'object')}{further}, "
        f"{counted(errors, 'image')} failed"
    )
