"""Epochs: one attempt at a run at a time, known to be alive by its heartbeat."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import psutil

from schemas.exceptions import OutputConflictError, StorageError
from schemas.ledger import ATTEMPTS, RUN, Attempt, HeartbeatRecord, RunRecord
from workers.storage.store import Store
from workers.storage.uris import clean_uri

HEARTBEAT_S = 4.0
"""Seconds from one heartbeat to the next."""

HEARTBEAT_TIMEOUT_S = 5 * HEARTBEAT_S
"""Seconds without a heartbeat after which an attempt counts as dead."""


def last_attempt(ledger: Store) -> Attempt | None:
    """The newest attempt at a run; None before the first."""
    keys = ledger.list(ATTEMPTS)
    return Attempt.model_validate_json(ledger.read(keys[-1])) if keys else None


def last_heartbeat(ledger: Store, attempt: Attempt) -> HeartbeatRecord | None:
    """The last sign of life of an attempt; None where it gave none."""
    try:
        return HeartbeatRecord.model_validate_json(ledger.read(attempt.heartbeat_key))
    except FileNotFoundError:
        return None


def start_attempt(ledger: Store, message: Callable[[str], None]) -> Attempt:
    """Takes the next number for this attempt; no two attempts get the same.

    Raises:
        OutputConflictError: an attempt is running.
    """
    while True:
        before = last_attempt(ledger)
        if before:
            assert_over(ledger, before, message)
        attempt = Attempt(
            number=before.number + 1 if before else 1,
            started_at=datetime.now(UTC),
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
        )
        if ledger.create(attempt.key, attempt.to_json()):
            return attempt
        if last_attempt(ledger) == attempt:  # it was sent again, as its answer was lost
            return attempt


def assert_over(ledger: Store, attempt: Attempt, message: Callable[[str], None]) -> None:
    """Refuses to begin while another attempt is running.

    One that did not say that it ended, and whose process is not known to be gone, is watched: it is running
    when it gives a sign of life. If it does so later, it finds that it was succeeded, and stops.

    Raises:
        OutputConflictError: naming the attempt.
    """
    heartbeat = last_heartbeat(ledger, attempt)
    if (heartbeat and heartbeat.state != "running") or is_gone(attempt):
        return
    message(f"{attempt} did not say that it ended: watching it for up to {HEARTBEAT_TIMEOUT_S:.0f} s")
    end = time.monotonic() + HEARTBEAT_TIMEOUT_S
    while time.monotonic() < end:
        time.sleep(0.5)
        now = last_heartbeat(ledger, attempt)
        if now and now.state != "running":
            return
        if now != heartbeat:
            raise OutputConflictError(
                f"{attempt} is running here. Two at once would do all work twice: wait for it to end, or "
                "stop it, and run the same command again"
            )


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


class Heartbeat:
    """Says every few seconds that an attempt is alive, and notices when it was succeeded by another.

    Args:
        store: the run directory.
        record: the run.
        ledger: the folder of its ledger.
        attempt: the attempt.
    """

    def __init__(self, store: Store, record: RunRecord, ledger: Store, attempt: Attempt) -> None:
        self._store = store
        self._record = record
        self._ledger = ledger
        self._attempt = attempt
        self._progress: Callable[[], tuple[int, dict[str, int]]] | None = None
        self._superseded_by: str | None = None
        self._restarted = False
        self._looked = time.time()
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator["Heartbeat"]:
        """Beats for the length of a block, and says at its end how it ended."""
        self._write("running")
        thread = threading.Thread(target=self._run, name="heart", daemon=True)
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
                self._write(state, reason)

    def watch(self, progress: Callable[[], tuple[int, dict[str, int]]]) -> None:
        """From now on says with each beat how far the pass is: rows done, and failed by code."""
        self._progress = progress

    def assert_newest(self) -> None:
        """Stops an attempt that another one has succeeded.

        It knows from the last beat; where that is too long ago, as this process slept, it looks itself.

        Raises:
            OutputConflictError: naming the other.
        """
        if time.time() - self._looked > 2 * HEARTBEAT_S:
            with suppress(StorageError, FileNotFoundError):
                self._look()
        if self._superseded_by:
            raise OutputConflictError(
                f"{self._superseded_by} has taken over {clean_uri(self._store.url)}, as this attempt, number "
                f"{self._attempt.number}, sent no heartbeat for {HEARTBEAT_TIMEOUT_S:.0f} s. "
                "This one stops; what it committed counts"
            )

    def _run(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with suppress(
                StorageError, FileNotFoundError
            ):  # no sign of life while the store cannot be written
                self._look()
                self._write("running")

    def _look(self) -> None:
        run = RunRecord.model_validate_json(self._store.read(RUN))
        newest = last_attempt(self._ledger)
        self._looked = time.time()
        if run.id != self._record.id:
            self._restarted = True
            self._superseded_by = f"a run begun with --restart at {run.created_at:%F %T} UTC"
        elif newest and newest.number != self._attempt.number:
            self._superseded_by = str(newest)

    def _write(self, state: str, reason: str | None = None) -> None:
        if self._restarted:  # its ledger is deleted, and a beat would begin it again
            return
        done, failed = self._progress() if self._progress else (None, {})
        heartbeat = HeartbeatRecord(
            at=datetime.now(UTC), state=state, reason=reason, done=done, failed=failed
        )
        self._ledger.write(self._attempt.heartbeat_key, heartbeat.to_json())
