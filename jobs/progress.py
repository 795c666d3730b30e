"""What a run shows while it goes on: a bar for a person at a terminal, JSON Lines for a program."""

import json
import time
from dataclasses import asdict, dataclass
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from jobs.ledger import Ledger


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        rows: rows of the manifest.
        done: of them labelled or failed, earlier attempts included.
        failed: of them failed.
        images_per_s: of this attempt, since its first commit could come; None before it did.
        seconds_left: at that rate; None before there is one.
    """

    rows: int
    done: int
    failed: int
    images_per_s: float | None
    seconds_left: float | None


class Meter:
    """Turns ledgers into states: knows when this attempt began and what was done before it."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._before = 0

    def __call__(self, ledger: Ledger) -> State:
        """The state that a ledger shows now; the first call is the beginning."""
        now = time.monotonic()
        if self._began is None:
            self._began, self._before = now, ledger.done
        new, spent = ledger.done - self._before, now - self._began
        rate = new / spent if new and spent else None
        left = (ledger.plan.rows - ledger.done) / rate if rate else None
        return State(ledger.plan.rows, ledger.done, sum(ledger.failed.values()), rate, left)


class Quiet:
    """Shows nothing: for output that is not a terminal."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, ledger: Ledger) -> None:
        """Called after each commit."""


class JsonLines(Quiet):
    """One JSON object a line, at most one a second, and one when all is done."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._last = 0.0

    def __call__(self, ledger: Ledger) -> None:
        """Prints the state."""
        state = self._meter(ledger)
        now = time.monotonic()
        if now - self._last >= 1 or state.done == state.rows:
            self._last = now
            print(json.dumps({"event": "progress", **asdict(state)}), flush=True)


class Bar(Quiet):
    """One bar for the whole job."""

    def __init__(self, console: Console) -> None:
        self._meter = Meter()
        self._bar = Progress(
            TextColumn("labelling"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} images{task.fields[said]}"),
            console=console,
        )
        self._task = self._bar.add_task("labelling", total=None, completed=0, said=", starting")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, ledger: Ledger) -> None:
        """Draws the state."""
        state = self._meter(ledger)
        said = f", {state.failed:,} failed" if state.failed else ""
        if state.images_per_s is not None and state.seconds_left is not None:
            left = timedelta(seconds=round(state.seconds_left))
            said += f", {state.images_per_s:.1f} a second, {left} left"
        self._bar.update(self._task, total=state.rows, completed=state.done, said=said)
