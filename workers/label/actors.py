"""The actors: units in, commit entries or decoded images out. Plain callables, ignorant of Ray."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest

import pyarrow as pa

from schemas.errors import Stage
from schemas.ledger import Commit
from schemas.metrics import COMMIT, NO_USAGE, Usage
from workers.label.settings import LabelSettings
from workers.label.supervise import DecodeUnits, LabelUnits
from workers.label.usage import UsageMeter
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.storage.options import configure_storage

COMMITS_AT_ONCE = 4
"""A commit is four requests one after another: 0.2 s on S3, where a GPU may label a unit in 0.05."""

COMPUTED = {"cuda": {Stage.CLASSIFY, Stage.DETECT}, "cpu": {Stage.DECODE, Stage.CLASSIFY, Stage.DETECT}}
"""The stages in which the accelerator is busy, by device."""


class LabelActor:
    """Labels units, and commits each one while the next is labelled.

    Args:
        settings: the part of the job that is this actor's.
        run: where the results are committed.
        attempt: this attempt's number.
    """

    def __init__(self, settings: LabelSettings, run: RunDirectory, attempt: int) -> None:
        configure_storage(settings.places)
        self._since = time.perf_counter()
        self._label = LabelUnits(settings)
        self._run, self._attempt = run, attempt
        self._computed = COMPUTED[settings.device]
        self._meter = UsageMeter()
        self._elsewhere = NO_USAGE
        self._committer = ThreadPoolExecutor(COMMITS_AT_ONCE, "commit")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Does some bundles.

        Args:
            batch: column `units`, list<int64>: their numbers; or what `DecodeActor` gives.

        Returns:
            Column `commit`, string: the entries that count, as JSON. Column `usage`, string: what was spent
            on them all and since the call before, as JSON, in the first row; nothing in the others.

        Raises:
            ModelError: see `workers.label.supervise.LabelUnits`.
            StorageError: results could not be written.
        """
        commits: list[Future[list[Commit]]] = []
        for results in self._labelled(batch):
            commits.append(self._committer.submit(self._commit, results))
            for commit in commits:
                if commit.done():
                    commit.result()  # what cannot be written ends the job before more is labelled
        entries = [entry.model_dump_json() for c in commits for entry in c.result()]
        usage = [self._take_usage(), *[NO_USAGE] * (len(entries) - 1)]
        return pa.table({"commit": entries, "usage": [each.model_dump_json() for each in usage]})

    def _labelled(self, batch: pa.Table) -> Iterator[pa.Table]:
        """The results of each unit."""
        if "decoded" in batch.column_names:
            for row in range(len(batch)):
                self._elsewhere += Usage.model_validate_json(batch["usage"][row].as_py())
                images = pa.Table.from_struct_array(batch["decoded"][row].values)
                yield self._label(batch["unit"][row].as_py(), decoded=images)
            return
        units = units_of(batch)
        for unit, prefetch in zip_longest(units, units[1:]):
            yield self._label(unit, prefetch)

    def _commit(self, results: pa.Table) -> list[Commit]:
        with self._meter.timing(COMMIT):
            return commit_results(self._run, self._attempt, results)

    def _take_usage(self) -> Usage:
        """What was spent since this was called last, and how much of that time the accelerator computed."""
        usage = self._label.take_usage() + self._meter.take()
        elsewhere, self._elsewhere = self._elsewhere, NO_USAGE
        before, self._since = self._since, time.perf_counter()
        busy = sum(seconds for stage, seconds in usage.stage_s.items() if stage in self._computed)
        return usage + elsewhere + Usage(busy_s=busy, idle_s=max(self._since - before - busy, 0))


class DecodeActor:
    """Decodes units for the actors that label.

    Args:
        settings: the part of the job that is this actor's.
    """

    def __init__(self, settings: LabelSettings) -> None:
        configure_storage(settings.places)
        self._decode = DecodeUnits(settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Decodes a bundle of one unit.

        Args:
            batch: column `units`, list<int64>: its number.

        Returns:
            One row, until the next call: column `unit`, int64, `decoded`, list of structs as
            `schemas.tables.DECODED`, and `usage`, string: what was spent on it, as JSON.

        Raises:
            ModelError: see `workers.label.supervise.DecodeUnits`.
        """
        (unit,) = units_of(batch)
        rows = self._decode(unit).to_struct_array().combine_chunks()
        usage = self._decode.take_usage().model_dump_json()
        images = pa.ListArray.from_arrays([0, len(rows)], rows)
        return pa.table({"unit": [unit], "decoded": images, "usage": [usage]})


def units_of(batch: pa.Table) -> list[int]:
    """The units of some bundles, column `units`."""
    return [unit for bundle in batch["units"].to_pylist() for unit in bundle]
