"""Stopping early: by a deadline, by SIGTERM (preemption), by Ctrl-C. What is committed stays."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from schemas.exit_codes import CTRL_C, DEADLINE, TERMINATED


class Stopped(BaseException):
    """The run was asked to stop. Not an Exception: code that continues after errors must not catch it."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


@contextmanager
def stoppable(seconds_left: float | None) -> Iterator[None]:
    """Makes a stop raise `Stopped` in the main thread for the length of a block.

    Enter it after `ray.init`, which puts a SIGTERM handler of its own in the place of any before it.

    Args:
        seconds_left: until the deadline; None: there is none.
    """
    handlers = {
        signal.SIGINT: _handler("Ctrl-C", CTRL_C),
        signal.SIGTERM: _handler("SIGTERM", TERMINATED),
        signal.SIGALRM: _handler("the deadline", DEADLINE),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    if seconds_left is not None:
        signal.setitimer(signal.ITIMER_REAL, max(seconds_left, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _handler(reason: str, exit_code: int) -> Callable[[int, FrameType | None], None]:
    def handle(_: int, __: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, _leave)
        raise Stopped(reason, exit_code)

    return handle


def _leave(number: int, _: FrameType | None) -> None:
    """A second stop: at once. Ray's processes end with this one."""
    os._exit(128 + number)
