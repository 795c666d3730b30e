"""The labelling actor: bundles of units in, commit entries out. A plain callable, ignorant of Ray."""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import zip_longest

import pyarrow as pa

from schemas.ledger import Commit
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
            batch: column `units`, list<int64>: their numbers.

        Returns:
            Column `commit`, string: the entries that count, as JSON.

        Raises:
            ModelError: see `workers.label.LabelUnits`.
            StorageError: results could not be written.
        """
        units = [unit for bundle in batch["units"].to_pylist() for unit in bundle]
        commits: list[Future[list[Commit]]] = []
        for unit, then in zip_longest(units, units[1:]):
            commits.append(self._committer.submit(self._commit, self._label(unit, then)))
            for commit in commits:
                if commit.done():
                    commit.result()  # what cannot be written ends the job before more is labelled
        return pa.table({"commit": [entry.model_dump_json() for c in commits for entry in c.result()]})
