"""The labelling actor: bundles of units in, commit entries out. A plain callable, ignorant of Ray."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import zip_longest

import pyarrow as pa

from workers.label import LabelSettings, LabelUnits
from workers.parts import RunFolder, commit_results


class CommitUnits:
    """Labels units, and commits each one while the next is labelled.

    Args:
        settings: the part of the job that is this actor's.
        run: where the results are committed.
        epoch: this attempt's number.
    """

    def __init__(self, settings: LabelSettings, run: RunFolder, epoch: int) -> None:
        self._label = LabelUnits(settings)
        self._commit = partial(commit_results, run, epoch)
        self._committer = ThreadPoolExecutor(1, "commit")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Does some bundles.

        Args:
            batch: column `units`, list<int64>: their numbers.

        Returns:
            Column `commit`, string: the entries that count, as JSON.

        Raises:
            ModelError: see `workers.label.LabelUnits`.
            StorageError: results could not be written.
        """
        units = [unit for bundle in batch["units"].to_pylist() for unit in bundle]
        commits = [
            self._committer.submit(self._commit, self._label(unit, then))
            for unit, then in zip_longest(units, units[1:])
        ]
        return pa.table({"commit": [entry.model_dump_json() for c in commits for entry in c.result()]})
