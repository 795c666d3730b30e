"""The standard streams, whatever they are: closed, full, not UTF-8, or closed by the reader in the middle."""

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any

from schemas.exceptions import StorageError
from schemas.exit_codes import BROKEN_PIPE, EXIT_CODES
from workers.printable import printable
from workers.process.leftovers import delete_leftovers

STDIN, STDOUT, STDERR = 0, 1, 2

READER_S = 60
"""Seconds that a job waits for whoever should read its output; for a person at a terminal it waits longer."""

PIPE_BYTES = select.PIPE_BUF
"""As many can be written to a pipe without waiting as soon as it takes any."""

_errors = STDERR
"""Where error messages go: stderr as it was when the command started. Ray's lines on stderr go to a file."""

_goes_on = False
"""Whether the command goes on where its output cannot be written."""


def prepare_streams() -> None:
    """Makes the standard streams usable for the rest of the process.

    A closed stream becomes /dev/null: its number would go to the next file that is opened. What an encoding
    cannot express is printed as "?".
    """
    global _errors  # noqa: PLW0603 - one process has one stderr
    for number in (STDIN, STDOUT, STDERR):
        _open_if_closed(number)
    _errors = os.dup(STDERR)
    sys.stdout = _text(STDOUT, sys.stdout, _on_unwritable)
    sys.stderr = _text(STDERR, sys.stderr, lambda _: None)


def go_on_without_output() -> None:
    """From now on the command goes on where its output cannot be written: it does more than print."""
    global _goes_on  # noqa: PLW0603 - one process has one stdout
    _goes_on = True


def print_error(message: str) -> None:
    """Prints an error message on stderr."""
    data = f"{printable(f'raylabel: {message}')}\n".encode(sys.stderr.encoding or "utf-8", "backslashreplace")
    with contextlib.suppress(OSError):  # nobody is left to be told
        os.write(_errors, data)


def _open_if_closed(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


def _text(number: int, before: Any, on_failure: Callable[[OSError], None]) -> io.TextIOWrapper:
    """A standard stream that never raises for what is written to it; `before` is Python's, or None."""
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Unfailing(number, on_failure)),
        encoding=before.encoding if before else "utf-8",
        errors="replace",
        line_buffering=number == STDERR or os.isatty(number),
        write_through=bool(before and before.write_through),
    )


class _Unfailing(io.FileIO):
    """A standard stream's file, for writing; from the first failure on all that is written is dropped.

    Args:
        number: the stream's file descriptor, which stays open.
        on_failure: called with the first failure.
    """

    def __init__(self, number: int, on_failure: Callable[[OSError], None]) -> None:
        super().__init__(number, "wb", closefd=False)
        self._on_failure = on_failure

    def write(self, data: Any) -> int:
        """Writes some, or drops all; returns the number of bytes in either case."""
        try:
            return super().write(self._at_once(data))
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            self._on_failure(error)
            return len(data)

    def _at_once(self, data: Any) -> Any:
        """What can be written without waiting.

        Raises:
            TimeoutError: nothing can, as nobody reads it.
        """
        if not _goes_on or self.isatty():
            return data
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        if not poll.poll(READER_S * 1000):
            raise TimeoutError(errno.ETIMEDOUT, f"nobody has read it for {READER_S} s")
        return data[:PIPE_BYTES]


def _on_unwritable(error: OSError) -> None:
    """Goes on without output, or ends the command whose output is all that it is for."""
    if _goes_on:
        print_error(f"cannot print any more ({error.strerror}); the job goes on, and its tables are written")
        return
    if error.errno != errno.EPIPE:
        print_error(f"cannot print the result: {error.strerror}")
    delete_leftovers()
    os._exit(BROKEN_PIPE if error.errno == errno.EPIPE else EXIT_CODES[StorageError])
