"""Stopping early: by a deadline, by SIGTERM (preemption), by Ctrl-C. What is committed stays."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from schemas.exit_codes import CTRL_C, DEADLINE, TERMINATED
from workers.process.streams import print_error

SIGNALS = {signal.SIGINT: ("Ctrl-C", CTRL_C), signal.SIGTERM: ("SIGTERM", TERMINATED)}
"""The signals that stop a command: what they are called, and the exit codes."""

SHOW_CURSOR = b"\x1b[?25h"
"""What a terminal is told whose progress bar was not ended."""


class Stopped(BaseException):
    """The run was asked to stop. Not an Exception: code that continues after errors must not catch it."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return f"stopped by {self}; committed work stays, and the same command resumes"


def leave_on_signals(*, resumes: bool = False) -> None:
    """From now on a signal that stops ends this process at once, with a sentence and its exit code.

    It is for all that needs no end of its own: until images are labelled, nothing is there but processes that
    end with this one. An exception would get lost in what libraries do while they are imported.

    Args:
        resumes: whether the same command resumes what was stopped, and the sentence says so.
    """

    def on_signal(number: int, _: FrameType | None) -> None:
        stop = Stopped(*SIGNALS[signal.Signals(number)])
        leave(stop.message if resumes else f"stopped by {stop}", stop.exit_code)

    for number in SIGNALS:
        signal.signal(number, on_signal)


def leave(message: str, exit_code: int) -> NoReturn:
    """Ends this process and its fork server at once, from any thread; Ray's processes end with it."""
    print_error(message)
    try:
        if forkserver := sys.modules.get("workers.process.forkserver"):  # slow to import
            forkserver.end_shared_fork_server()
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), SHOW_CURSOR)
    finally:  # whatever was interrupted: a module that is half imported, a stream that is gone
        os._exit(exit_code)


class StopRequest:
    """Whether a block was asked to stop.

    Attributes:
        stopped: the exception that was raised in it; None: nobody asked.
    """

    stopped: Stopped | None = None


@contextmanager
def stoppable(seconds_left: float | None) -> Iterator[StopRequest]:
    """Makes a stop raise `Stopped` in the main thread for the length of a block, the first time.

    Args:
        seconds_left: until the deadline; None: there is none.
    """
    request = StopRequest()
    stops = {**SIGNALS, signal.SIGALRM: ("the deadline", DEADLINE)}
    before = {number: signal.getsignal(number) for number in stops}

    def on_signal(number: int, _: FrameType | None) -> None:
        _set_handlers(before)
        request.stopped = Stopped(*stops[signal.Signals(number)])
        raise request.stopped

    _set_handlers(dict.fromkeys(stops, on_signal))
    if seconds_left is not None:
        signal.setitimer(signal.ITIMER_REAL, max(seconds_left, 1e-3))
    try:
        yield request
    finally:
        _set_handlers(before)


def _set_handlers(handlers: dict[signal.Signals, Any]) -> None:
    """Sets what signals call, and takes back the deadline."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in handlers.items():
        signal.signal(number, handler)
