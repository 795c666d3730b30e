"""The actors: units in, commit entries or decoded images out. Plain callables, ignorant of Ray."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import zip_longest

import pyarrow as pa

from schemas.ledger import Commit
from workers.handover import DecodeUnits
from workers.label import LabelSettings, LabelUnits
from workers.parts import RunFolder, commit_results
from workers.places import reach

COMMITS_AT_ONCE = 4
"""A commit is four requests one after another: 0.2 s on S3, where a GPU may label a unit in 0.05."""


class CommitUnits:
    """Labels units, and commits each one while the next is labelled.

    Args:
        settings: the part of the job that is this actor's.
        run: where the results are committed.
        epoch: this attempt's number.
    """

    def __init__(self, settings: LabelSettings, run: RunFolder, epoch: int) -> None:
        reach(settings.places)
        self._label = LabelUnits(settings)
        self._commit = partial(commit_results, run, epoch)
        self._committer = ThreadPoolExecutor(COMMITS_AT_ONCE, "commit")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Does some bundles.

        Args:
            batch: column `units`, list<int64>: their numbers; or what `HandOver` gives.

        Returns:
            Column `commit`, string: the entries that count, as JSON.

        Raises:
            ModelError: see `workers.label.LabelUnits`.
            StorageError: results could not be written.
        """
        commits: list[Future[list[Commit]]] = []
        for results in self._labelled(batch):
            commits.append(self._committer.submit(self._commit, results))
            for commit in commits:
                if commit.done():
                    commit.result()  # what cannot be written ends the job before more is labelled
        return pa.table({"commit": [entry.model_dump_json() for c in commits for entry in c.result()]})

    def _labelled(self, batch: pa.Table) -> Iterator[pa.Table]:
        """The results of each unit."""
        if "decoded" in batch.column_names:
            for unit, images in zip(batch["unit"].to_pylist(), batch["decoded"], strict=True):
                yield self._label(unit, decoded=pa.Table.from_struct_array(images.values))
            return
        units = units_of(batch)
        for unit, then in zip_longest(units, units[1:]):
            yield self._label(unit, then)


class HandOver:
    """Decodes units for the actors that label.

    Args:
        settings: the part of the job that is this actor's.
    """

    def __init__(self, settings: LabelSettings) -> None:
        reach(settings.places)
        self._decode = DecodeUnits(settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Decodes a bundle of one unit.

        Args:
            batch: column `units`, list<int64>: its number.

        Returns:
            One row, until the next call: column `unit`, int64, and `decoded`, list of structs as
            `schemas.tables.DECODED`.

        Raises:
            ModelError: see `workers.handover.DecodeUnits`.
        """
        (unit,) = units_of(batch)
        images = self._decode(unit).to_struct_array().combine_chunks()
        return pa.table({"unit": [unit], "decoded": pa.ListArray.from_arrays([0, len(images)], images)})


def units_of(batch: pa.Table) -> list[int]:
    """The units of some bundles, column `units`."""
    return [unit for bundle in batch["units"].to_pylist() for unit in bundle]
