"""Log lines of `workers` and `jobs` on stderr, each with its run and unit.

In an actor and its child processes stderr is a file of Ray's worker logs; in the driver it is
`raylabel-driver.log`, or the terminal with `--verbose`. Without `configure` nothing is shown.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar

from workers.printable import printable

PACKAGES = ("jobs", "workers")
"""Whose loggers are configured. The root logger belongs to Ray and to the user's models."""

FORMAT = "%(asctime)s %(levelname)s %(name)s%(context)s %(message)s"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
"""Local time, as in Ray's own lines around ours."""

_unit: ContextVar[int | None] = ContextVar("unit", default=None)


class _StderrHandler(logging.Handler):
    """Writes to what `sys.stderr` is when a line is logged, as Ray, the fork server and tests replace it.

    Args:
        run: the id of the run; None where there is none yet.
    """

    def __init__(self, run: str | None) -> None:
        super().__init__()
        self._run = run
        self.setFormatter(logging.Formatter(FORMAT, TIME_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line in one piece: an actor and its children share the file."""
        unit = _unit.get()
        names = [f"run {self._run}"] * (self._run is not None) + [f"unit {unit}"] * (unit is not None)
        record.context = f" [{', '.join(names)}]" if names else ""
        try:
            sys.stderr.write(printable(f"{self.format(record)}\n"))
            sys.stderr.flush()
        except Exception:  # a full disk must not end a run
            self.handleError(record)


def configure(run: str | None = None, level: int = logging.INFO) -> None:
    """Shows lines of some level and above from now on; a further call replaces the run and the level.

    Args:
        run: the id of the run that lines are about; None where there is none yet.
        level: of `logging`.
    """
    reset()
    handler = _StderrHandler(run)
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.addHandler(handler)
        logger.setLevel(level)


def reset() -> None:
    """Shows no lines from now on."""
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.NOTSET)
        for handler in [handler for handler in logger.handlers if isinstance(handler, _StderrHandler)]:
            logger.removeHandler(handler)


@contextlib.contextmanager
def in_unit(unit: int) -> Iterator[None]:
    """Names a unit in the lines that this thread logs in a block."""
    token = _unit.set(unit)
    try:
        yield
    finally:
        _unit.reset(token)
