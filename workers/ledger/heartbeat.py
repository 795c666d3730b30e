"""The heartbeat of a running attempt, and how the attempt notices that it was superseded."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from schemas.exceptions import OutputConflictError, StorageError
from schemas.ledger import RUN, Attempt, HeartbeatRecord, RunRecord
from schemas.metrics import Usage
from workers.ledger.directory import RunDirectory
from workers.ledger.state import PassState
from workers.storage.uris import clean_uri

HEARTBEAT_S = 4.0
"""Seconds from one heartbeat to the next."""

HEARTBEAT_TIMEOUT_S = 5 * HEARTBEAT_S
"""Seconds without a heartbeat after which an attempt counts as dead."""


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
        self._checked_at = time.time()
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
            # no heartbeat while the store cannot be written
            with suppress(StorageError, FileNotFoundError):
                self._check()
                self._beat("running")

    def _check(self) -> None:
        """Reads whether the run was restarted, or another attempt was started."""
        record = RunRecord.model_validate_json(self._run.store.read(RUN))
        newest = self._run.last(Attempt)
        self._checked_at = time.time()
        if record.id != self._run.record.id:
            self._restarted = True
            self._superseded_by = f"a run started with --restart at {record.created_at:%F %T} UTC"
        elif newest and newest.number != self._attempt.number:
            self._superseded_by = str(newest)

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
