"""`raylabel status`: how a run stands by its files, while it runs and after. Reads little, writes nothing."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

import pyarrow as pa
from rich.console import Console

from schemas.errors import ErrorCode
from schemas.ledger import SHARDS, Beat, Epoch, Retry
from workers.ledger.attempts import STALE_S, is_gone, last_beat, last_epoch
from workers.ledger.commit import RunFolder
from workers.ledger.runs import find_run, folder_of, last_retry
from workers.ledger.state import Ledger, read_shards, read_success
from workers.storage.store import Store
from workers.storage.uris import clean_uri

State = Literal["not begun", "running", "silent", "died", "stopped", "failed", "complete"]


@dataclass(frozen=True)
class Progress:
    """How far a pass is, or a complete run.

    Attributes:
        rows: to do.
        done: of them labelled or failed; None: the attempt has not said so yet.
        failed: of them failed, by code.
        shards: to publish.
        published: of them published.
        tables: rows of each table of a complete run; None before.
    """

    rows: int
    done: int | None
    failed: dict[str, int]
    shards: int
    published: int
    tables: dict[str, int] | None = None


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Attributes:
        output: the run directory.
        state: see `state_of`.
        retry: the pass over failed rows that it is in; None in the first pass, and when it is complete.
        epoch: the last attempt at it; None before the first.
        beat: that attempt's last sign of life.
        progress: how far it is.
        images_per_s: see `speed`; None unless it is running.
        now: when this was found, UTC.
    """

    output: str
    state: State
    retry: Retry | None
    epoch: Epoch | None
    beat: Beat | None
    progress: Progress
    images_per_s: float | None
    now: datetime

    @property
    def reason(self) -> str | None:
        """Why the last attempt ended, where it did not complete."""
        return self.beat.reason if self.beat and self.state in ("stopped", "failed") else None

    @property
    def next(self) -> str:
        """What to do."""
        retryable = sum(n for code, n in self.progress.failed.items() if ErrorCode(code).retryable)
        again = f"`raylabel retry {self.output}`" if self.retry else "the command that began it"
        match self.state:
            case "running":
                return "wait for it; SIGTERM or Ctrl-C to its process stops it, to be gone on with"
            case "silent":
                return (
                    f"look after its machine; {again} takes over, once it has watched it for {STALE_S:.0f} s"
                )
            case "failed":
                return f"mend that; {again} goes on from there"
            case "complete" if retryable:
                return f"`raylabel retry {self.output}` labels {retryable:,} images again that may do better"
            case "complete":
                return f"`raylabel show {self.output}` shows what was found"
            case _:
                return f"{again} goes on from there"

    def to_json(self) -> str:
        """The status as `--json` prints it: one object."""
        attempt = self.epoch and self.epoch.model_dump(
            mode="json", include={"number", "host", "pid", "started_at"}
        )
        progress = self.progress
        return json.dumps(
            {
                "output": self.output,
                "state": self.state,
                "reason": self.reason,
                "retry": self.retry and {"number": self.retry.number, "codes": self.retry.codes},
                "attempt": attempt,
                "last_beat": self.beat.model_dump(mode="json")["at"] if self.beat else None,
                "rows": progress.rows,
                "done": progress.done,
                "failed": progress.failed,
                "shards": progress.shards,
                "published_shards": progress.published,
                "images_per_s": self.images_per_s,
                "tables": progress.tables,
                "next": self.next,
            }
        )

    def facts(self) -> Iterator[tuple[str, str]]:
        """The status for a person: name and value."""
        yield "output", self.output
        yield "state", _SAID[self.state] + (f": {self.reason}" if self.reason else "")
        if self.retry:
            yield "retry", f"{self.retry.number}, of what failed with {', '.join(self.retry.codes)}"
        if self.epoch:
            yield "last attempt", str(self.epoch).removeprefix("attempt ")
        if self.beat:
            yield "last sign of life", f"{self.beat.at:%F %T} UTC, {_ago(self.now - self.beat.at)} ago"
        yield "images", self._images()
        yield "shards", f"{self.progress.published:,} of {self.progress.shards:,} published"
        if self.images_per_s is not None:
            yield (
                "speed",
                f"{self.images_per_s:.1f} images a second since the attempt began, its start included",
            )
        yield "next", self.next

    def _images(self) -> str:
        progress = self.progress
        if progress.done is None:
            return f"{progress.rows:,}; the attempt is starting, and has not said how many are done"
        codes = ", ".join(f"{n:,} {code}" for code, n in sorted(progress.failed.items()))
        failed = f"{sum(progress.failed.values()):,} failed" + (f" ({codes})" if codes else "")
        share = f" ({progress.done / progress.rows:.1%})" if 0 < progress.done < progress.rows else ""
        return f"{progress.done:,} of {progress.rows:,} done{share}, {failed}"


_SAID: dict[State, str] = {
    "not begun": "not begun",
    "running": "running",
    "silent": f"silent for over {STALE_S:.0f} s by this machine's clock, without having ended",
    "died": "died: its process is gone and did not say why (killed, or out of memory)",
    "stopped": "stopped",
    "failed": "failed",
    "complete": "complete",
}


def show_status(output: str, *, as_json: bool) -> None:
    """Prints how a run stands.

    Raises:
        StorageError: there is no run, or a file cannot be read.
    """
    print_status(find_status(output), as_json=as_json)


class Told(Protocol):
    """A status that can be told to a person or a program."""

    def facts(self) -> Iterator[tuple[str, str]]:
        """For a person: name and value."""

    def to_json(self) -> str:
        """For a program: one object."""


def print_status(status: Told, *, as_json: bool) -> None:
    """Prints a status: its facts for a person, or one object."""
    if as_json:
        print(status.to_json())
        return
    console = Console(highlight=False, soft_wrap=True)
    for name, fact in status.facts():
        console.print(f"{name}: {fact}", markup=False)


def find_status(output: str) -> Status:
    """How a run stands now.

    Of a running attempt its heartbeat says how far it is, so that few files are read; otherwise the ledger.

    Raises:
        StorageError: there is no run, or a file cannot be read.
    """
    store, record = find_run(output)
    run = folder_of(store, record, pa.schema([]))  # no table is read or written here
    epoch = last_epoch(run.ledger)
    beat = last_beat(run.ledger, epoch) if epoch else None
    tables, now = read_success(store), datetime.now(UTC)
    gone = epoch is not None and is_gone(epoch)
    state = state_of(epoch, beat, retry=run.retry, gone=gone, now=now) if tables is None else "complete"
    progress = _progress(run, beat if state == "running" else None, tables)
    return Status(
        output=clean_uri(output),
        state=state,
        retry=last_retry(run.ledger) if run.retry and tables is None else None,
        epoch=epoch,
        beat=beat,
        progress=progress,
        images_per_s=speed(epoch, _before(run.ledger, epoch), beat) if epoch and state == "running" else None,
        now=now,
    )


def state_of(epoch: Epoch | None, beat: Beat | None, *, retry: int, gone: bool, now: datetime) -> State:
    """The state of a run that is not marked complete.

    "not begun": there was no attempt at the pass yet. "silent": the attempt did not end, but gave no sign of
    life for `STALE_S`. "died": it did not end, but its process on this machine is gone.

    Args:
        epoch: the last attempt.
        beat: its last sign of life.
        retry: the pass it is in.
        gone: whether the attempt's process is known to be gone.
        now: UTC.
    """
    if epoch is None or (retry and beat and beat.state == "complete"):  # that attempt was at the pass before
        return "not begun"
    if beat and beat.state != "running":
        return "stopped" if beat.state == "complete" else beat.state
    if gone:
        return "died"
    silence = now - (beat.at if beat else epoch.started_at)
    return "running" if silence.total_seconds() < STALE_S else "silent"


def speed(epoch: Epoch, before: Beat | None, beat: Beat | None) -> float | None:
    """Images a second since an attempt began, its start included; None where the files do not tell.

    Args:
        epoch: the attempt.
        before: the last heartbeat of the attempt before; where that was killed, its last rows are not known.
        beat: the attempt's own last heartbeat.
    """
    done = 0
    if epoch.number > 1 and (before is None or before.state != "complete"):  # not the first of its pass
        if before is None or before.done is None or before.state == "running":
            return None
        done = before.done
    if beat is None or not beat.done or beat.done <= done or beat.at <= epoch.started_at:
        return None
    return (beat.done - done) / (beat.at - epoch.started_at).total_seconds()


def _before(ledger: Store, epoch: Epoch | None) -> Beat | None:
    return last_beat(ledger, epoch.model_copy(update={"number": epoch.number - 1})) if epoch else None


def _progress(run: RunFolder, beat: Beat | None, tables: dict[str, int] | None) -> Progress:
    """How far a run is.

    Args:
        run: its newest pass.
        beat: the heartbeat of a running attempt; None: none runs.
        tables: rows of each table, of a complete run.
    """
    if tables is not None:
        shards = read_shards(run.ledger)
        failed = sum((Counter(shard.errors) for shard in shards), Counter[str]())
        return Progress(run.plan.rows, run.plan.rows, dict(failed), run.plan.shards, len(shards), tables)
    rows, shards_to_do = run.work.size, len(run.work.shards)
    if beat is None:
        ledger = Ledger.read(run)
        return Progress(rows, ledger.done, dict(ledger.failed), shards_to_do, len(ledger.published))
    if run.retry:
        published = sum(shard.retry == run.retry for shard in read_shards(run.ledger))
    else:
        published = len(run.ledger.list(SHARDS))
    return Progress(rows, beat.done, beat.failed, shards_to_do, published)


def _ago(span: timedelta) -> str:
    return str(timedelta(seconds=max(0, round(span.total_seconds()))))
