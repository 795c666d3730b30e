"""Attempts: one at a time at a run, each with its number; the next one starts when the last one has ended."""

import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

import psutil

from schemas.exceptions import OutputConflictError
from schemas.ledger import Attempt, HeartbeatRecord
from workers.ledger.directory import RunDirectory
from workers.ledger.heartbeat import HEARTBEAT_TIMEOUT_S

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
    """
    while True:
        before = assert_not_running(run, message)
        attempt = Attempt(
            number=before.number + 1 if before else 1,
            started_at=datetime.now(UTC),
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
        )
        if run.create(attempt):
            return attempt
        if run.last(Attempt) == attempt:  # the request was sent again, as its answer was lost
            return attempt


def assert_not_running(run: RunDirectory, message: Callable[[str], None]) -> Attempt | None:
    """Refuses to start while the last attempt is running; gives that attempt.

    One that did not say that it ended, and whose process is not known to be gone, is watched: it is running
    when it sends a heartbeat. If it sends one later, it finds that it was superseded, and stops.

    Raises:
        OutputConflictError: naming the attempt.
    """
    attempt = run.last(Attempt)
    if attempt is None or is_gone(attempt) or _has_ended(heartbeat := _heartbeat_of(run, attempt)):
        return attempt
    message(f"{attempt} did not say that it ended: watching it for up to {HEARTBEAT_TIMEOUT_S:.0f} s")
    end = time.monotonic() + HEARTBEAT_TIMEOUT_S
    while time.monotonic() < end:
        time.sleep(WATCH_S)
        now = _heartbeat_of(run, attempt)
        if _has_ended(now):
            return attempt
        if now != heartbeat:
            raise OutputConflictError(
                f"{attempt} is running here. Two at once would do all work twice: wait for it to end, or "
                "stop it, and run the same command again"
            )
    _log.warning("%s sent no heartbeat for %.0f s and is superseded", attempt, HEARTBEAT_TIMEOUT_S)
    return attempt


def _heartbeat_of(run: RunDirectory, attempt: Attempt) -> HeartbeatRecord | None:
    return run.get(HeartbeatRecord, attempt.number)


def _has_ended(heartbeat: HeartbeatRecord | None) -> bool:
    """Whether the attempt itself said so."""
    return heartbeat is not None and heartbeat.state != "running"


def is_gone(attempt: Attempt) -> bool:
    """Whether the attempt's process ran on this machine and does not any more."""
    if attempt.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(attempt.pid)
        other = abs(process.create_time() - attempt.process_started) > 1
        return other or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
