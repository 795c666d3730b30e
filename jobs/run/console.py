"""What a run shows while it goes on: a bar at a terminal, lines in a log, JSON Lines for a program."""

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from workers.ledger.state import Ledger

LINES_S = 15
"""Seconds between two lines of progress in a log."""


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        rows: rows to do: those of the manifest, or of a retry.
        done: of them labelled or failed, earlier attempts included.
        failed: of them failed.
        images_per_s: since this attempt's first commit; None before its second.
        seconds_left: at that rate; None before there is one.
    """

    rows: int
    done: int
    failed: int
    images_per_s: float | None
    seconds_left: float | None


class Meter:
    """Turns ledgers into states. Speed counts from this attempt's first commit: until then actors start.

    Attributes:
        labelled: rows that this attempt brought into a final state so far.
        images_per_s: as of the last state.
    """

    def __init__(self) -> None:
        self.labelled = 0
        self.images_per_s: float | None = None
        self._before: int | None = None
        self._first: tuple[float, int] | None = None

    def __call__(self, ledger: Ledger) -> State:
        """The state that a ledger shows now; the first call shows what was done before this attempt."""
        now = time.monotonic()
        if self._before is None:
            self._before = ledger.done
        rate = left = None
        if self._first:
            rate = (ledger.done - self._first[1]) / max(now - self._first[0], 1e-9)
            left = (ledger.rows - ledger.done) / rate if rate else None
        elif ledger.done > self._before:
            self._first = now, ledger.done
        self.labelled, self.images_per_s = ledger.done - self._before, rate
        return State(ledger.rows, ledger.done, sum(ledger.failed.values()), rate, left)


class Reporter:
    """Tells of a run while it goes on. This one only prints what is to be said in words.

    Args:
        console: where to.

    Attributes:
        meter: what it was shown.
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
        self._console.print(text, markup=False)

    def show(self, ledger: Ledger) -> None:
        """Called after each commit."""
        self.meter(ledger)


class Lines(Reporter):
    """A line now and then: for a person who reads a log."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._last = time.monotonic()

    def show(self, ledger: Ledger) -> None:
        """Prints the state, where it is time."""
        state = self.meter(ledger)
        if time.monotonic() - self._last >= LINES_S:
            self._last = time.monotonic()
            self.message(said(state))


class JsonLines(Reporter):
    """One JSON object a line; of progress at most one a second, and one when all is done."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._last = -math.inf  # the first state is printed, however short a time this machine is up

    def message(self, text: str) -> None:
        """Prints a sentence as an event."""
        print(json.dumps({"event": "message", "text": text}), flush=True)

    def show(self, ledger: Ledger) -> None:
        """Prints the state."""
        state = self.meter(ledger)
        now = time.monotonic()
        if now - self._last >= 1 or state.done == state.rows:
            self._last = now
            print(json.dumps({"event": "progress", **asdict(state)}), flush=True)


class Bar(Reporter):
    """One bar for the whole job."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        said = TextColumn("{task.description}")
        self._bar = Progress(SpinnerColumn(), BarColumn(bar_width=30), said, console=console)
        self._task = self._bar.add_task("starting: actors load the models", total=None)

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, ledger: Ledger) -> None:
        """Draws the state; before this attempt's first commit there is only what was done before."""
        state = self.meter(ledger)
        if state.done:
            self._bar.update(self._task, total=state.rows, completed=state.done, description=said(state))


def said(state: State) -> str:
    """A state in a line."""
    line = f"{state.done:,} of {state.rows:,} images"
    if state.failed:
        line += f", {state.failed:,} failed"
    if state.images_per_s is not None and state.seconds_left is not None:
        line += f", {state.images_per_s:.1f} a second, {timedelta(seconds=round(state.seconds_left))} left"
    return line


class RunConsole:
    """What is told of a job: sentences for a person, or JSON Lines for a program."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.began = time.monotonic()
        self.console = Console(quiet=as_json, highlight=False, soft_wrap=True)

    def message(self, text: str) -> None:
        """A sentence for a person."""
        self.console.print(text, markup=False)

    def event(self, event: str, **facts: object) -> None:
        """An event for a program."""
        if self._as_json:
            print(json.dumps({"event": event, **facts}), flush=True)

    def reporter(self) -> Reporter:
        """What shows the progress."""
        if self._as_json:
            return JsonLines(self.console)
        return Bar(self.console) if sys.stdout.isatty() else Lines(self.console)

    @property
    def seconds(self) -> float:
        """Since the command began."""
        return time.monotonic() - self.began
