"""The heartbeat of a running attempt, and how the attempt notices that it was superseded."""

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from schemas.exceptions import DamagedFileError, OutputConflictError, StorageError
from schemas.ledger import RUN, Attempt, HeartbeatRecord, RunRecord
from schemas.metrics import Usage
from workers.ledger.damage import parse
from workers.ledger.directory import OnDamage, RunDirectory
from workers.ledger.state import PassState
from workers.printable import message_of, short_line
from workers.storage.uris import clean_uri

HEARTBEAT_S = 4.0
"""Seconds from one heartbeat to the next."""

HEARTBEAT_TIMEOUT_S = 5 * HEARTBEAT_S
"""Seconds without a heartbeat after which an attempt counts as dead."""


_log = logging.getLogger(__name__)


class Heartbeat:
    """Records every few seconds that an attempt is alive, and notices when another superseded it.

    Args:
        run: what is attempted.
        attempt: this process's.
    """

    def __init__(self, run: RunDirectory, attempt: Attempt) -> None:
        self._run = run
        self._attempt = attempt
        self._state: PassState | None = None
        self._superseded_by: str | None = None
        self._restarted = False
        self._checked_at = -math.inf
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator["Heartbeat"]:
        """Sends heartbeats for the length of a block; the last heartbeat says how the block ended."""
        self._beat("running")
        thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        thread.start()
        state, reason = "failed", None
        try:
            yield self
            state = "complete"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        except BaseException as stop:  # Ctrl-C and its like
            state, reason = "stopped", str(stop) or type(stop).__name__
            raise
        finally:
            self._ended.set()
            thread.join()
            with suppress(StorageError):
                self._beat(state, reason)

    def on_progress(self, state: PassState, usage: Usage) -> None:  # noqa: ARG002 - an observer's face
        """From now on each heartbeat says how far the pass is: rows done, and failed by code."""
        self._state = state

    def assert_newest(self) -> None:
        """Stops an attempt that another one has superseded.

        The last heartbeat tells; where that is too long ago, as this process slept, the run is read again.

        Raises:
            OutputConflictError: naming the other.
        """
        if time.time() - self._checked_at > 2 * HEARTBEAT_S:
            with suppress(StorageError, FileNotFoundError):
                self._check()
        if self._superseded_by:
            raise OutputConflictError(
                f"{self._superseded_by} has taken over {clean_uri(self._run.store.url)}, as this attempt, "
                f"number {self._attempt.number}, sent no heartbeat for {HEARTBEAT_TIMEOUT_S:.0f} s. "
                "This one stops; what it committed counts"
            )

    def _beat_on(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            try:
                self._check()
                self._beat("running")
            except Exception as error:  # as the store cannot be written: the next one may get there
                _log.warning("no heartbeat was sent: %s", message_of(error))

    def _check(self) -> None:
        """Reads whether the run was restarted, or another attempt was started."""
        run, own, began = self._run, self._attempt, time.time()
        restarted = self._read_restarted()
        number = last_number(run)
        newest = last_attempt(run, max(number, own.number))
        if restarted:
            self._restarted = True
            self._superseded_by = f"a run started with --restart at {restarted.created_at:%F %T} UTC"
        elif number > own.number:
            self._superseded_by = short_line(str(newest or f"attempt {number}"))
        elif newest is None:  # somebody deleted the own record: another attempt would take its number
            run.create(own)
        elif newest != own:
            self._superseded_by = short_line(str(newest))
        # true of the moment when it began: this process may have slept since then
        self._checked_at = began

    def _read_restarted(self) -> RunRecord | None:
        """The run that was started in the place of this one; a restart leaves no damaged record."""
        with suppress(DamagedFileError, FileNotFoundError):
            record = parse(RunRecord, self._run.store, RUN, self._run.store.read(RUN))
            return record if record.id != self._run.record.id else None
        return None

    def _beat(self, state: str, reason: str | None = None) -> None:
        if self._restarted:  # its ledger is deleted, and a heartbeat would make it again
            return
        done, failed = (self._state.done, dict(self._state.failed)) if self._state else (None, {})
        self._run.put(
            HeartbeatRecord(
                number=self._attempt.number,
                at=datetime.now(UTC),
                state=state,
                reason=reason,
                done=done,
                failed=failed,
            )
        )


def last_number(run: RunDirectory) -> int:
    """The number of the last attempt, 0 before the first. A heartbeat tells of one whose record is gone."""
    return max((0, *run.numbers(Attempt), *run.numbers(HeartbeatRecord)))


def last_attempt(run: RunDirectory, number: int, on_damage: OnDamage | None = None) -> Attempt | None:
    """The record of an attempt; None where it is gone or damaged: the attempt may be running all the same.

    Args:
        run: whose.
        number: the attempt's.
        on_damage: called where it is damaged.
    """
    return next(run.read(Attempt, [Attempt.key_of(number)], on_damage or _ignore), None)


def last_heartbeat(
    run: RunDirectory, number: int, on_damage: OnDamage | None = None
) -> HeartbeatRecord | None:
    """The heartbeat of an attempt; None where there is none, or a damaged one: a running attempt replaces it.

    Args:
        run: whose.
        number: the attempt's.
        on_damage: called where it is damaged.
    """
    return next(run.read(HeartbeatRecord, [HeartbeatRecord.key_of(number)], on_damage or _ignore), None)


def _ignore(error: DamagedFileError) -> None:
    """What is not known of an attempt is found by watching it."""
