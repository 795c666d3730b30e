"""The run directory: what a run is, which attempt this is, what is committed, and when it is complete."""

import json
import os
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from schemas.exceptions import OutputConflictError, ReconcileError
from schemas.ledger import EPOCHS, RUN, SHARDS, SUCCESS, Commit, Epoch, RunRecord, Shard
from schemas.plan import Plan
from schemas.tables import TABLES
from workers.publish import read_commits
from workers.storage import Store, clean_uri

MOST_DIFFERENCES = 20
"""Lines of difference shown where a run is refused."""


def read_run(store: Store) -> RunRecord | None:
    """The run that a directory holds; None where it holds none.

    Raises:
        OutputConflictError: there are tables in it that no run of raylabel's wrote.
    """
    try:
        return RunRecord.model_validate_json(store.read(RUN))
    except FileNotFoundError:
        strangers = [key for table in TABLES for key in store.list(table)]
        if strangers:
            raise OutputConflictError(
                f"{clean_uri(store.url)} has {len(strangers)} files that no run here wrote, {strangers[0]} "
                "among them. Choose another output"
            ) from None
        return None


def begin_run(store: Store, record: RunRecord) -> RunRecord:
    """Makes the run's record, or finds the one that an earlier attempt made of the same job.

    Raises:
        OutputConflictError: the directory holds another run; the difference is in the message.
    """
    found = read_run(store)
    if found is None and store.create(RUN, record.to_json()):
        return record
    found = found or RunRecord.model_validate_json(store.read(RUN))
    assert_same_run(store, found.identity(), record.identity())
    return found


def assert_same_run(store: Store, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuses to go on with a run that would mix its rows with others.

    Raises:
        OutputConflictError: naming every value that differs.
    """
    lines = sorted(
        f"  {key}: {_short(old)} there, {_short(new)} now" for key, old, new in _differences(there, here)
    )
    if lines:
        more = [f"  and {len(lines) - MOST_DIFFERENCES} more"] if len(lines) > MOST_DIFFERENCES else []
        raise OutputConflictError(
            f"{clean_uri(store.url)} holds a run whose rows would differ from this job's:\n"
            + "\n".join(lines[:MOST_DIFFERENCES] + more)
            + "\nChoose another output, or delete this one to begin again"
        )


def _differences(there: Any, here: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The deepest values at which two nested values part, with their dotted paths."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in there.keys() | here.keys():
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for number, pair in enumerate(zip(there, here, strict=True)):
            yield from _differences(*pair, f"{path}[{number}]")
    elif there != here:
        yield path, there, here


def _short(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case {"info": {"name": str(name)}}:  # a whole model
            return name
        case list():
            return f"{len(value)} of them"
        case _:
            text = str(value)
            return text if len(text) <= 60 else f"{text[:57]}..."


def begin_epoch(store: Store) -> Epoch:
    """Takes the next number for this attempt; no two attempts get the same."""
    number = len(store.list(EPOCHS))
    while True:
        number += 1
        epoch = Epoch(number=number, started_at=datetime.now(UTC), host=socket.gethostname(), pid=os.getpid())
        if store.create(f"{EPOCHS}/{number:06d}.json", epoch.to_json()):
            return epoch


def read_success(store: Store) -> dict[str, int] | None:
    """Rows of each table of a run that was marked complete; None while it is not."""
    try:
        found: dict[str, int] = json.loads(store.read(SUCCESS))
    except FileNotFoundError:
        return None
    return found


@dataclass
class Ledger:
    """What of a run is committed and published: read from the files, then kept up to date.

    Attributes:
        plan: how the manifest is cut.
        committed: units that some commit holds.
        failed: images that failed, by code.
        published: shards whose files are in place.
    """

    plan: Plan
    committed: set[int] = field(default_factory=set)
    failed: Counter[str] = field(default_factory=Counter)
    published: set[int] = field(default_factory=set)
    _left: dict[int, int] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store, plan: Plan) -> "Ledger":
        """The state of a run, from its shards and commits."""
        ledger = cls(plan)
        for shard in read_shards(store):
            ledger.published.add(shard.shard)
            ledger.failed.update(shard.failed)
            ledger.committed.update(plan.units_of_shard(shard.shard))
        for commit in read_commits(store):
            if commit.shard not in ledger.published:
                ledger.add(commit)
        return ledger

    def add(self, commit: Commit) -> None:
        """Counts a commit; units that are counted already are not counted again."""
        new = [unit for unit in commit.units if unit not in self.committed]
        if new:
            self.committed.update(new)
            self.failed.update(commit.failed)
            left = self._left.get(commit.shard, len(self.plan.units_of_shard(commit.shard)))
            self._left[commit.shard] = left - len(new)

    @property
    def pending(self) -> list[int]:
        """Units still to do, ascending."""
        return [unit for unit in range(self.plan.units) if unit not in self.committed]

    @property
    def done(self) -> int:
        """Manifest rows in a final state: labelled or failed."""
        short = self.plan.units * self.plan.unit_rows - self.plan.rows
        last = self.plan.units - 1 in self.committed
        return len(self.committed) * self.plan.unit_rows - (short if last else 0)

    @property
    def publishable(self) -> list[int]:
        """Shards whose units are all committed and that are not published yet."""
        return [shard for shard, left in self._left.items() if not left and shard not in self.published]


def read_shards(store: Store) -> list[Shard]:
    """The records of the published shards."""
    return [Shard.model_validate_json(store.read(key)) for key in store.list(SHARDS)]


def finish_run(store: Store, plan: Plan) -> dict[str, int]:
    """Marks a run complete when its published tables add up to its manifest.

    Returns:
        Rows of each table.

    Raises:
        ReconcileError: they do not; `_SUCCESS` was not written.
    """
    shards = read_shards(store)
    rows = {name: sum(shard.files[name].rows for shard in shards) for name in TABLES}
    if [s.shard for s in shards] != list(range(plan.shards)) or rows["labels"] + rows["errors"] != plan.rows:
        raise ReconcileError(
            f"{len(shards)} of {plan.shards} shards are published, with {rows['labels']} labels and "
            f"{rows['errors']} errors for {plan.rows} manifest rows. Run the same command again"
        )
    store.create(SUCCESS, json.dumps(rows).encode())
    return rows
