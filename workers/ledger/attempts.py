"""Attempts: one at a time at a run, each with its number; the next one starts when the last one has ended."""

import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

from schemas.exceptions import OutputConflictError
from schemas.ledger import Attempt, HeartbeatRecord
from workers.ledger.directory import RunDirectory
from workers.ledger.heartbeat import HEARTBEAT_TIMEOUT_S, last_attempt, last_heartbeat, last_number
from workers.machine import started_at, this_machine
from workers.printable import short_line

WATCH_S = 0.5
"""Seconds between two reads of the heartbeat of an attempt that may be dead."""

_log = logging.getLogger(__name__)


def start_attempt(run: RunDirectory, message: Callable[[str], None]) -> Attempt:
    """Takes the next number for this attempt; no two attempts get the same.

    Args:
        run: what is attempted.
        message: called with a sentence for a person, where it has to wait.

    Raises:
        OutputConflictError: an attempt is running.
        DamagedFileError: something that is no file has the place of the attempt's record.
    """
    while True:
        attempt = Attempt(
            number=assert_not_running(run, message) + 1,
            started_at=datetime.now(UTC),
            host=socket.gethostname(),
            pid=os.getpid(),
            machine=this_machine(),
            process_started=started_at(os.getpid()) or 0,
        )
        if run.create(attempt):
            return attempt
        if last_number(run) < attempt.number:
            raise run.damaged(Attempt, attempt.key, "it is no file. Move it elsewhere")
        if last_attempt(run, attempt.number) == attempt:  # sent again, as the answer was lost
            return attempt


def assert_not_running(run: RunDirectory, message: Callable[[str], None]) -> int:
    """Refuses to start while the last attempt is running; gives that attempt's number, 0 before the first.

    One that did not say that it ended, and whose process is not known to be gone, is watched: it is running
    when it sends a heartbeat. If it sends one later, it finds that it was superseded, and stops. So is one
    whose record or heartbeat is damaged: it may be running.

    Raises:
        OutputConflictError: naming the attempt.
    """
    number = last_number(run)
    if not number:
        return 0
    attempt = last_attempt(run, number, lambda error: message(f"{error.finding}: its heartbeat is watched"))
    gone = attempt is not None and is_gone(attempt)
    if gone or _has_ended(heartbeat := last_heartbeat(run, number)):
        return number
    name = short_line(str(attempt or f"attempt {number}, whose record is damaged or gone,"))
    message(f"{name} did not say that it ended: watching it for up to {HEARTBEAT_TIMEOUT_S:.0f} s")
    end = time.monotonic() + HEARTBEAT_TIMEOUT_S
    while time.monotonic() < end:
        time.sleep(WATCH_S)
        now = last_heartbeat(run, number)
        if _has_ended(now):
            return number
        if now != heartbeat:
            raise OutputConflictError(
                f"{name} is running here. Two at once would do all work twice: wait for it to end, or "
                "stop it, and run the same command again"
            )
    _log.warning("%s sent no heartbeat for %.0f s and is superseded", name, HEARTBEAT_TIMEOUT_S)
    return number


def _has_ended(heartbeat: HeartbeatRecord | None) -> bool:
    """Whether the attempt itself said so."""
    return heartbeat is not None and heartbeat.state != "running"


def is_gone(attempt: Attempt) -> bool:
    """Whether the attempt's process ran on this machine and does not any more."""
    return attempt.machine == this_machine() and started_at(attempt.pid) != attempt.process_started
