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
from schemas.ledger import EPOCHS, RUN, Beat, Epoch, RunRecord
from workers.storage.store import Store
from workers.storage.uris import clean_uri

BEAT_S = 4.0
"""Seconds from one heartbeat to the next."""

STALE_S = 5 * BEAT_S
"""Seconds without a heartbeat after which an attempt counts as dead."""


def last_epoch(ledger: Store) -> Epoch | None:
    """The newest attempt at a run; None before the first."""
    keys = ledger.list(EPOCHS)
    return Epoch.model_validate_json(ledger.read(keys[-1])) if keys else None


def last_beat(ledger: Store, epoch: Epoch) -> Beat | None:
    """The last sign of life of an attempt; None where it gave none."""
    try:
        return Beat.model_validate_json(ledger.read(epoch.beat_key))
    except FileNotFoundError:
        return None


def begin_epoch(ledger: Store, say: Callable[[str], None]) -> Epoch:
    """Takes the next number for this attempt; no two attempts get the same.

    Raises:
        OutputConflictError: an attempt is running.
    """
    while True:
        before = last_epoch(ledger)
        if before:
            assert_over(ledger, before, say)
        epoch = Epoch(
            number=before.number + 1 if before else 1,
            started_at=datetime.now(UTC),
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
        )
        if ledger.create(epoch.key, epoch.to_json()):
            return epoch
        if last_epoch(ledger) == epoch:  # it was sent again, as its answer was lost
            return epoch


def assert_over(ledger: Store, epoch: Epoch, say: Callable[[str], None]) -> None:
    """Refuses to begin while another attempt is running.

    One that did not say that it ended, and whose process is not known to be gone, is watched: it is running
    when it gives a sign of life. If it does so later, it finds that it was succeeded, and stops.

    Raises:
        OutputConflictError: naming the attempt.
    """
    beat = last_beat(ledger, epoch)
    if (beat and beat.state != "running") or is_gone(epoch):
        return
    say(f"{epoch} did not say that it ended: watching it for up to {STALE_S:.0f} s")
    end = time.monotonic() + STALE_S
    while time.monotonic() < end:
        time.sleep(0.5)
        now = last_beat(ledger, epoch)
        if now and now.state != "running":
            return
        if now != beat:
            raise OutputConflictError(
                f"{epoch} is running here. Two at once would do all work twice: wait for it to end, or stop "
                "it, and run the same command again"
            )


def is_gone(epoch: Epoch) -> bool:
    """Whether the attempt's process ran on this machine and does not any more."""
    if epoch.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(epoch.pid)
        other = abs(process.create_time() - epoch.process_started) > 1
        return other or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Heart:
    """Says every few seconds that an attempt is alive, and notices when it was succeeded by another.

    Args:
        store: the run directory.
        record: the run.
        ledger: the folder of its ledger.
        epoch: the attempt.
    """

    def __init__(self, store: Store, record: RunRecord, ledger: Store, epoch: Epoch) -> None:
        self._store = store
        self._record = record
        self._ledger = ledger
        self._epoch = epoch
        self._progress: Callable[[], tuple[int, dict[str, int]]] | None = None
        self._succeeded_by: str | None = None
        self._restarted = False
        self._looked = time.time()
        self._ended = threading.Event()

    @contextmanager
    def beating(self) -> Iterator["Heart"]:
        """Beats for the length of a block, and says at its end how it ended."""
        self._beat("running")
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
                self._beat(state, reason)

    def watch(self, progress: Callable[[], tuple[int, dict[str, int]]]) -> None:
        """From now on says with each beat how far the pass is: rows done, and failed by code."""
        self._progress = progress

    def assert_newest(self) -> None:
        """Stops an attempt that another one has succeeded.

        It knows from the last beat; where that is too long ago, as this process slept, it looks itself.

        Raises:
            OutputConflictError: naming the other.
        """
        if time.time() - self._looked > 2 * BEAT_S:
            with suppress(StorageError, FileNotFoundError):
                self._look()
        if self._succeeded_by:
            raise OutputConflictError(
                f"{self._succeeded_by} has taken over {clean_uri(self._store.url)}, as this attempt, number "
                f"{self._epoch.number}, gave no sign of life for {STALE_S:.0f} s. This one stops; what it "
                "committed counts"
            )

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(
                StorageError, FileNotFoundError
            ):  # no sign of life while the store cannot be written
                self._look()
                self._beat("running")

    def _look(self) -> None:
        run = RunRecord.model_validate_json(self._store.read(RUN))
        newest = last_epoch(self._ledger)
        self._looked = time.time()
        if run.id != self._record.id:
            self._restarted = True
            self._succeeded_by = f"a run begun with --restart at {run.created_at:%F %T} UTC"
        elif newest and newest.number != self._epoch.number:
            self._succeeded_by = str(newest)

    def _beat(self, state: str, reason: str | None = None) -> None:
        if self._restarted:  # its ledger is deleted, and a beat would begin it again
            return
        done, failed = self._progress() if self._progress else (None, {})
        beat = Beat(at=datetime.now(UTC), state=state, reason=reason, done=done, failed=failed)
        self._ledger.write(self._epoch.beat_key, beat.to_json())
