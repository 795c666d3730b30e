"""What of a pass is committed and published: read from the files, then kept up to date."""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from schemas.exceptions import ReconcileError
from schemas.ledger import (
    COMMITS,
    MANIFEST,
    PARTS,
    PUBLICATIONS,
    SUCCESS,
    TEMPORARY,
    Commit,
    Shard,
    pass_name,
    shard_number,
)
from schemas.ranges import from_ranges
from schemas.tables import TABLES
from workers.ledger.commit import merge_commits
from workers.ledger.directory import RunDirectory
from workers.storage.store import Store

MERGE_AT = 256
"""Commit entries of one shard that are made into one."""


class PassState:
    """What of a pass is done, committed and published: read from the files, then kept up to date.

    Attributes:
        run: the pass.
        failed: images of it that failed, by code.
        published: shards that it has published.
        done: rows of it in a final state: labelled or failed.
        publishable: shards whose units are all committed and that are not published yet.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.failed: Counter[str] = Counter()
        self.published: set[int] = set()
        self.publishable: set[int] = set()
        self.done = 0
        self._committed = np.ones(run.plan.units, bool)
        self._committed[run.current.units] = False
        self._left = Counter((run.current.units // run.plan.shard_units).tolist())
        self._single: dict[int, list[Commit]] = {}
        self._failing: dict[str, Commit] = {}

    @classmethod
    def read(cls, run: RunDirectory) -> "PassState":
        """The state of a pass, from its shards and commits."""
        state = cls(run)
        for shard in run.read(Shard):
            if shard.retry == run.retry:
                state._add_shard(shard)
        keys = run.list(Commit, pass_name(run.retry))
        commits = run.read(Commit, (key for key in keys if state._is_open(key)))
        for _, of_shard in groupby(commits, key=lambda commit: commit.shard):
            # the largest first: where merging was cut short, entries are there next to the one made of them
            for commit in sorted(of_shard, key=lambda commit: -len(from_ranges(commit.units))):
                state.add(commit)
        return state

    def _is_open(self, key: str) -> bool:
        """Whether a commit's shard is not published yet."""
        return shard_number(key.split("/")[-2]) not in self.published

    def _add_shard(self, shard: Shard) -> None:
        self.published.add(shard.shard)
        self.failed.update(shard.failed)
        self.done += len(self.run.current.rows_of_shard(shard.shard))
        self._committed[self.run.current.units_of_shard(shard.shard)] = True
        self._left[shard.shard] = 0

    def add(self, commit: Commit) -> None:
        """Counts a commit; units that are counted already are not counted again."""
        units = from_ranges(commit.units)
        new = units[~self._committed[units]]
        if len(new):
            self._committed[new] = True
            self.done += sum(len(self.run.current.rows_of_unit(unit)) for unit in new.tolist())
            self.failed.update(commit.failed)
            self._failing.update(dict.fromkeys(commit.failed, commit))
            self._left[commit.shard] -= len(new)
            if not self._left[commit.shard]:
                self.publishable.add(commit.shard)
        if len(new) == len(units) and len(commit.files["labels"]) < MERGE_AT:
            self._single.setdefault(commit.shard, []).append(commit)

    def merge(self, shard: int) -> None:
        """Makes a shard's commit entries one where they are many, so that resuming takes few reads."""
        entries = self._single.get(shard, [])
        if len(entries) >= MERGE_AT and self._left[shard]:
            merge_commits(self.run, entries)
            del self._single[shard]

    def example(self, code: str) -> str:
        """An image that failed so and why, from the last commit that has one."""
        files = self._failing[code].files["errors"] if code in self._failing else []
        errors = (row for t in self.run.ledger.read_tables(f.key for f in files) for row in t.to_pylist())
        return next((f"{row['uri']}: {row['message']}" for row in errors if row["code"] == code), "none kept")

    @property
    def rows(self) -> int:
        """Rows that the pass has to do."""
        return self.run.current.size

    @property
    def pending(self) -> NDArray[np.int64]:
        """Units still to do, ascending."""
        return np.flatnonzero(~self._committed)


def read_success(store: Store) -> dict[str, int] | None:
    """Rows of each table of a run that was marked complete; None while it is not."""
    try:
        rows: dict[str, int] = json.loads(store.read(SUCCESS))
    except FileNotFoundError:
        return None
    return rows


def count_rows(shards: Iterable[Shard]) -> dict[str, int]:
    """Rows of each table of some published shards."""
    total = Counter(dict.fromkeys(TABLES, 0))
    for shard in shards:
        for name, file in shard.files.items():
            total[name] += file.rows
    return dict(total)


def finish_run(run: RunDirectory) -> dict[str, int]:
    """Marks a run complete when its published tables add up to its manifest, its work cleared away.

    Returns:
        Rows of each table.

    Raises:
        ReconcileError: they do not; `_SUCCESS` was not written.
    """
    rows = _added_up(run)
    _clear_work(run)
    if not run.store.create(SUCCESS, json.dumps(rows).encode()) and read_success(run.store) != rows:
        # one of the two is of an earlier pass, by an attempt that slept
        rows = _added_up(run)
        run.store.write(SUCCESS, json.dumps(rows).encode())
    run.store.clear(TEMPORARY)
    return rows


def _added_up(run: RunDirectory) -> dict[str, int]:
    """Rows of each table of a run, all of whose shards are published."""
    plan, shards = run.plan, list(run.read(Shard))
    rows = count_rows(shards)
    if [s.shard for s in shards] != list(range(plan.shards)) or rows["labels"] + rows["errors"] != plan.rows:
        raise ReconcileError(
            f"{len(shards)} of {plan.shards} shards are published, with {rows['labels']} labels and "
            f"{rows['errors']} errors for {plan.rows} manifest rows. Run the same command again"
        )
    return rows


def _clear_work(run: RunDirectory) -> None:
    """Deletes what a complete run needs no more: staged parts, commits, and what was made of its manifest.

    Not those of a later pass: an attempt that slept since it completed this one may find it started. The
    manifest as it was made into Parquet has each URL whole, with what may be secret.
    """
    run.store.clear(MANIFEST)
    for kind in (COMMITS, PUBLICATIONS, PARTS):
        for retry in range(run.retry + 1):
            run.ledger.clear(f"{kind}/{pass_name(retry)}")
