"""Stopping early: by a deadline, by SIGTERM (preemption), by Ctrl-C. What is committed stays."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from schemas.exit_codes import CTRL_C, DEADLINE, HUNG_UP, TERMINATED
from workers.process.leftovers import delete_leftovers
from workers.process.streams import print_error

SIGNALS = {
    signal.SIGINT: ("Ctrl-C", CTRL_C),
    signal.SIGTERM: ("SIGTERM", TERMINATED),
    signal.SIGHUP: ("SIGHUP", HUNG_UP),
}
"""The signals that stop a command: what they are called, and the exit codes."""

SHOW_CURSOR = b"\x1b[?25h"
"""What a terminal is told whose progress bar was not ended."""


AGAIN_S = 0.02
"""Seconds after which a stop is raised again that was raised where code cannot raise."""


class Stopped(BaseException):
    """The run was asked to stop. Not an Exception: code that continues after errors must not catch it."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return f"stopped by {self}; committed work stays, and the same command resumes"


class StopRequest:
    """Whether a block was asked to stop.

    Attributes:
        stopped: the exception that was raised in it; None: nobody asked.
    """

    stopped: Stopped | None = None


def leave_on_signals(*, resumes: bool = False) -> None:
    """From now on a signal that stops ends this process at once, with a sentence and its exit code.

    It is for all that needs no end of its own: until images are labelled, nothing is there but processes that
    end with this one. An exception would get lost in what libraries do while they are imported.

    Args:
        resumes: whether the same command resumes what was stopped, and the sentence says so.
    """

    def on_signal(number: int, _: FrameType | None = None) -> None:
        stop = Stopped(*SIGNALS[signal.Signals(number)])
        leave(stop.message if resumes else f"stopped by {stop}", stop.exit_code)

    _set_handlers(dict.fromkeys(SIGNALS, on_signal))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_leave_for_main, args=[reader, on_signal], name="signals", daemon=True).start()


def _leave_for_main(reader: int, on_signal: Callable[[int, None], None]) -> None:
    """Handles a signal while the main thread cannot, as it waits in native code, such as Ray's.

    Args:
        reader: of a pipe to which the numbers of signals are written as they arrive.
        on_signal: what leaves; in a `stoppable` block it is called for the second signal.
    """
    while number := os.read(reader, 1)[0]:
        if number in SIGNALS:
            _received.append(Stopped(*SIGNALS[signal.Signals(number)]))
            if not _blocks or len(_received) > 1:
                on_signal(number, None)


def received() -> Stopped | None:
    """The first signal that this process has received, if the main thread has handled it or not."""
    return _received[0] if _received else None


def ignore_signals() -> None:
    """From now on a signal changes nothing: all is done, and Python would end without a word and its code."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


_received: list[Stopped] = []
_blocks: list[StopRequest] = []
"""Signals so far, and the `stoppable` blocks that this process is in."""

_ending = threading.RLock()
_exit_codes: list[int] = []
"""Held by the thread that ends this process, which others then wait for; and the code that it ends with."""


def say_end(message: str, exit_code: int) -> None:
    """Says why this process ends; of two signals, or of a signal and the end of Ray, the first one counts."""
    with _ending:
        if not _exit_codes:
            _exit_codes.append(exit_code)
            print_error(message)


def leave(message: str, exit_code: int) -> NoReturn:
    """Ends this process and all that come from it at once, from any thread."""
    with _ending:
        try:
            say_end(message, exit_code)
            if forkserver := sys.modules.get("workers.process.forkserver"):  # slow to import
                forkserver.end_shared_fork_server()
            if family := sys.modules.get("workers.process.family"):
                family.end_family()
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), SHOW_CURSOR)
            delete_leftovers()
        finally:  # whatever was interrupted: a module that is half imported, a stream that is gone
            os._exit(_exit_codes[0] if _exit_codes else exit_code)


@contextmanager
def stoppable(seconds_left: float | None) -> Iterator[StopRequest]:
    """Makes a stop raise `Stopped` in the main thread for the length of a block, the first time.

    Args:
        seconds_left: until the deadline; None: there is none.
    """
    request = StopRequest()
    unraisable = sys.unraisablehook
    stops = {**SIGNALS, signal.SIGALRM: ("the deadline", DEADLINE)}
    before = {number: signal.getsignal(number) for number in stops}

    def on_signal(number: int, _: FrameType | None) -> None:
        _set_handlers(before)
        request.stopped = Stopped(*stops[signal.Signals(number)])
        raise request.stopped

    def on_unraisable(lost: Any) -> None:
        """A stop that was raised in code which cannot raise, such as `__del__`, is raised again soon."""
        if not isinstance(lost.exc_value, Stopped):
            unraisable(lost)
        elif request.stopped:
            signal.signal(signal.SIGALRM, raise_again)
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    def raise_again(*_: object) -> NoReturn:
        assert request.stopped is not None
        raise request.stopped

    _blocks.append(request)
    sys.unraisablehook = on_unraisable
    _set_handlers(dict.fromkeys(stops, on_signal))
    if seconds_left is not None:
        signal.setitimer(signal.ITIMER_REAL, max(seconds_left, 1e-3))
    try:
        with stops_as_raised():
            yield request
    finally:
        _set_handlers(before)
        _blocks.remove(request)
        sys.unraisablehook = unraisable


@contextmanager
def stops_as_raised() -> Iterator[None]:
    """Raises the stop of the block around it where other code has made another error of it, as Ray's may."""
    try:
        yield
    except Exception:
        if stop := next((block.stopped for block in _blocks if block.stopped), None):
            raise stop from None
        raise


def _set_handlers(handlers: dict[signal.Signals, Any]) -> None:
    """Sets what signals call, and takes back the deadline. An ignored SIGHUP, as under nohup, stays so."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in handlers.items():
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
