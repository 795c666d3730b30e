"""`raylabel status`: a run's state, progress and next step, by its files. Reads little, writes nothing."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from rich.console import Console

from schemas.errors import RETRYABLE
from schemas.exceptions import DamagedFileError
from schemas.ledger import Attempt, HeartbeatRecord, Retry, Shard
from schemas.words import by_code, counted, raylabel_command
from workers.ledger.attempts import is_gone
from workers.ledger.damage import MISSING
from workers.ledger.directory import RunDirectory
from workers.ledger.heartbeat import HEARTBEAT_TIMEOUT_S, last_attempt, last_heartbeat, last_number
from workers.ledger.runs import find_run
from workers.ledger.state import PassState, read_shards, read_success
from workers.printable import printable, short_line
from workers.storage.uris import clean_uri

State = Literal["not_started", "running", "unresponsive", "crashed", "stopped", "failed", "complete"]

MAX_CHARACTERS = 2_000
"""Of a line that is printed: some hold what a file says."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""When an attempt of which nothing is known may have started."""

MAX_CODES_NAMED = 3
"""Error codes that a command names one by one."""


@dataclass(frozen=True)
class Progress:
    """How far a pass is, or a complete run.

    Attributes:
        rows: to do.
        done: rows labelled or failed; None: the attempt has not recorded it yet.
        failed: rows that failed, by code.
        shards: to publish.
        published: shards that are published.
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
    """The status of a run.

    Attributes:
        output: the run directory.
        state: see `state_of`.
        retry: the pass over failed rows that it is in; None in the first pass, and when it is complete.
        attempt: the last attempt at it; None before the first.
        heartbeat: its last heartbeat.
        progress: how far it is.
        images_per_s: see `speed`; None unless it is running.
        now: when this was found, UTC.
        damage: a sentence for each damaged file that was come upon.
        command: the command line that began the run, without credentials.
    """

    output: str
    state: State
    retry: Retry | None
    attempt: Attempt | None
    heartbeat: HeartbeatRecord | None
    progress: Progress
    images_per_s: float | None
    now: datetime
    damage: tuple[str, ...] = ()
    command: str = ""

    @property
    def reason(self) -> str | None:
        """Why the last attempt ended, where it did not complete."""
        return self.heartbeat.reason if self.heartbeat and self.state in ("stopped", "failed") else None

    @property
    def next(self) -> str:
        """What to do."""
        again = raylabel_command("retry" if self.retry else "run", self.output)
        match self.state:
            case "running":
                return "wait for it; SIGTERM or Ctrl-C stops its process; the same command resumes"
            case "unresponsive":
                return (
                    f"check its machine; {again} takes over after {HEARTBEAT_TIMEOUT_S:.0f} s without a "
                    "heartbeat"
                )
            case "failed":
                return f"fix the cause; {again} resumes"
            case "complete":
                return self._next_when_complete()
            case _:
                return f"{again} resumes"

    def _next_when_complete(self) -> str:
        failed = self.progress.failed
        if retryable := sum(number for code, number in failed.items() if code in RETRYABLE):
            again = raylabel_command("retry", self.output)
            return f"{again} retries {counted(retryable, 'image')} that may succeed"
        shown = f"{raylabel_command('show', self.output)} shows what was found"
        if not failed:
            return shown
        again = retry_command(self.output, failed)
        return f"{shown}; once the cause of the failures is removed, {again} labels those images again"

    def to_json(self) -> str:
        """The status as `--json` prints it: one object."""
        attempt = self.attempt and self.attempt.model_dump(
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
                "last_heartbeat": self.heartbeat.model_dump(mode="json")["at"] if self.heartbeat else None,
                "rows": progress.rows,
                "done": progress.done,
                "failed": progress.failed,
                "shards": progress.shards,
                "published_shards": progress.published,
                "images_per_s": self.images_per_s,
                "tables": progress.tables,
                "damage": self.damage,
                "command": self.command,
                "next": self.next,
            }
        )

    def facts(self) -> Iterator[tuple[str, str]]:
        """The status for a person: name and value."""
        yield "output", self.output
        yield "state", _LABELS[self.state] + (f": {self.reason}" if self.reason else "")
        if self.command:
            yield "begun by", self.command
        if self.retry:
            yield "retry", f"{self.retry.number}, of what failed with {', '.join(self.retry.codes)}"
        if self.attempt:
            yield "last attempt", str(self.attempt).removeprefix("attempt ")
        if self.heartbeat:
            yield (
                "last heartbeat",
                f"{self.heartbeat.at:%F %T} UTC, {_ago(self.now - self.heartbeat.at)} ago",
            )
        yield "images", self._images()
        yield "shards", f"{self.progress.published:,} of {self.progress.shards:,} published"
        if self.images_per_s is not None:
            yield (
                "speed",
                f"{self.images_per_s:.1f} images/s since the attempt started, its start-up included",
            )
        for sentence in self.damage:
            yield "damage", sentence
        yield "next", self.next

    def _images(self) -> str:
        progress = self.progress
        if progress.done is None:
            return f"{progress.rows:,}; the attempt is starting"
        codes = f" ({by_code(progress.failed)})" if progress.failed else ""
        failed = f"{sum(progress.failed.values()):,} failed{codes}"
        share = f" ({progress.done / progress.rows:.1%})" if 0 < progress.done < progress.rows else ""
        return f"{progress.done:,} of {progress.rows:,} done{share}, {failed}"


def retry_command(output: str, failed: Mapping[str, int]) -> str:
    """The command that labels the images of a run again that failed with some codes."""
    codes = sorted(failed) if len(failed) <= MAX_CODES_NAMED else ["all"]
    return raylabel_command("retry", output, *(word for code in codes for word in ("--code", code)))


_LABELS: dict[State, str] = {
    "not_started": "not started",
    "running": "running",
    "unresponsive": f"unresponsive: no heartbeat for over {HEARTBEAT_TIMEOUT_S:.0f} s by this clock",
    "crashed": "crashed: its process is gone and did not say why (killed, or out of memory)",
    "stopped": "stopped",
    "failed": "failed",
    "complete": "complete",
}


def show_status(output: str, *, as_json: bool) -> None:
    """Prints the status of a run.

    Raises:
        StorageError: there is no run, or a file cannot be read.
    """
    print_status(find_status(output), as_json=as_json)


class Printable(Protocol):
    """What can be printed for a person or for a program."""

    def facts(self) -> Iterator[tuple[str, str]]:
        """For a person: name and value."""

    def to_json(self) -> str:
        """For a program: one object."""


def print_status(status: Printable, *, as_json: bool) -> None:
    """Prints a status: its facts for a person, or one object."""
    if as_json:
        print(status.to_json())
        return
    console = Console(highlight=False, soft_wrap=True)
    for name, fact in status.facts():
        console.print(short_line(printable(f"{name}: {fact}"), MAX_CHARACTERS), markup=False)


def find_status(output: str) -> Status:
    """The status of a run now.

    Of a running attempt its heartbeat says how far it is, so that few files are read; otherwise the ledger.

    Raises:
        StorageError: there is no run, or a file cannot be read.
        DamagedFileError: without the file nothing can be said of the run.
    """
    run, damage = find_run(output).newest(), list[str]()

    def on_damage(error: DamagedFileError) -> None:
        damage.append(str(error))

    number = last_number(run)
    attempt = last_attempt(run, number, on_damage) if number else None
    heartbeat = last_heartbeat(run, number, on_damage) if number else None
    tables, now = read_success(run.store, on_damage), datetime.now(UTC)
    if number not in (0, *run.numbers(Attempt)):
        on_damage(run.damaged(Attempt, Attempt.key_of(number), MISSING))
    if tables is None:
        gone = attempt is not None and is_gone(attempt)
        started_at = attempt.started_at if attempt else EPOCH if number else None
        state = state_of(started_at, heartbeat, retry=run.retry, gone=gone, now=now)
    else:
        state = "complete"
    progress, more = _progress(run, heartbeat if state == "running" else None, tables)
    return Status(
        output=clean_uri(output),
        state=state,
        retry=run.get(Retry, run.retry) if run.retry and tables is None else None,
        attempt=attempt,
        heartbeat=heartbeat,
        progress=progress,
        images_per_s=_speed_now(run, attempt, heartbeat) if state == "running" else None,
        now=now,
        damage=(*damage, *more),
        command=run.record.command,
    )


def unfinished(run: RunDirectory) -> str | None:
    """What to tell of a run whose tables do not have all its images yet; None of a complete one."""
    if read_success(run.store, lambda _: None) is not None:
        return None
    published, shards = len(run.list(Shard)), run.plan.shards
    if published < shards:
        left = f"{published:,} of {counted(shards, 'shard')} are published"
    elif run.numbers(Retry):
        left = "the retry of images that failed has not ended"
    else:
        left = "all shards are published, and what is left is to verify them"
    return f"{clean_uri(run.store.url)} is not complete: {left}"


def state_of(
    started_at: datetime | None, heartbeat: HeartbeatRecord | None, *, retry: int, gone: bool, now: datetime
) -> State:
    """The state of a run that is not marked complete.

    "not_started": there was no attempt at the pass yet. "unresponsive": the attempt did not end, but sent no
    heartbeat for `HEARTBEAT_TIMEOUT_S`. "crashed": it did not end, but its process on this machine is gone.

    Args:
        started_at: when the last attempt started; None: there was none.
        heartbeat: its last sign of life.
        retry: the pass it is in.
        gone: whether the attempt's process is known to be gone.
        now: UTC.
    """
    if started_at is None or (
        retry and heartbeat and heartbeat.state == "complete"
    ):  # that attempt was at the pass before
        return "not_started"
    if heartbeat and heartbeat.state != "running":
        return "stopped" if heartbeat.state == "complete" else heartbeat.state
    if gone:
        return "crashed"
    silence = now - (heartbeat.at if heartbeat else started_at)
    return "running" if silence.total_seconds() < HEARTBEAT_TIMEOUT_S else "unresponsive"


def speed(
    attempt: Attempt, before: HeartbeatRecord | None, heartbeat: HeartbeatRecord | None
) -> float | None:
    """Images a second since an attempt began, its start included; None where the files do not tell.

    Args:
        attempt: the attempt.
        before: the last heartbeat of the attempt before; where that was killed, its last rows are not known.
        heartbeat: the attempt's own last heartbeat.
    """
    done = 0
    if attempt.number > 1 and (before is None or before.state != "complete"):  # not the first of its pass
        if before is None or before.done is None or before.state == "running":
            return None
        done = before.done
    if (
        heartbeat is None
        or not heartbeat.done
        or heartbeat.done <= done
        or heartbeat.at <= attempt.started_at
    ):
        return None
    return (heartbeat.done - done) / (heartbeat.at - attempt.started_at).total_seconds()


def _speed_now(run: RunDirectory, attempt: Attempt | None, heartbeat: HeartbeatRecord | None) -> float | None:
    if attempt is None:
        return None
    return speed(attempt, last_heartbeat(run, attempt.number - 1), heartbeat)


def _progress(
    run: RunDirectory, heartbeat: HeartbeatRecord | None, tables: dict[str, int] | None
) -> tuple[Progress, list[str]]:
    """How far a run is, and a sentence for each damaged file.

    Args:
        run: its newest pass.
        heartbeat: the heartbeat of a running attempt; None: none runs.
        tables: rows of each table, of a complete run.
    """
    if tables is not None:
        return _complete(run, tables)
    rows, shards_to_do = run.current.size, len(run.current.shards)
    if heartbeat is None:
        state = PassState.read(run)
        damage = [str(damage) for damage in state.damage]
        return Progress(rows, state.done, dict(state.failed), shards_to_do, len(state.published)), damage
    if run.retry:
        published = sum(shard.retry == run.retry for shard in run.read_shards(lambda _: None))
    else:
        published = len(run.list(Shard))
    return Progress(rows, heartbeat.done, heartbeat.failed, shards_to_do, published), []


def _complete(run: RunDirectory, tables: dict[str, int]) -> tuple[Progress, list[str]]:
    """A complete run, of which a retry would begin with all its shards."""
    shards, errors = read_shards(run)
    failed = sum((Counter(shard.errors) for shard in shards.values()), Counter[str]())
    damage = [str(error) for error in errors.values()]
    missing = (shard for shard in range(run.plan.shards) if shard not in shards and shard not in errors)
    damage += [str(run.damaged(Shard, Shard.key_of(shard), MISSING)) for shard in missing]
    progress = Progress(run.plan.rows, run.plan.rows, dict(failed), run.plan.shards, len(shards), tables)
    return progress, damage


def _ago(span: timedelta) -> str:
    return str(timedelta(seconds=max(0, round(span.total_seconds()))))
