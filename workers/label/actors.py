"""The actors: units in, commit entries or decoded images out. Plain callables that know nothing of Ray."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest

import pyarrow as pa

from schemas.errors import Stage
from schemas.exceptions import RaylabelError
from schemas.ledger import Commit
from schemas.metrics import COMMIT, NO_USAGE, Usage
from schemas.tasks import TASKS
from workers import logs
from workers.label.settings import LabelSettings
from workers.label.supervise import DecodeUnits, LabelUnits
from workers.label.usage import UsageMeter
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.storage.options import configure_storage
from workers.storage.uris import clean_uri

COMMITS_AT_ONCE = 4
"""A commit takes four requests in sequence: 0.2 s on S3, while a GPU may label a unit in 0.05 s."""

_MODELS = {task.stage for task in TASKS}
COMPUTED = {"cuda": _MODELS, "cpu": {Stage.DECODE, *_MODELS}}
"""The stages in which the device is busy, by device."""

_log = logging.getLogger(__name__)


class LabelActor:
    """Labels units, and commits each while the next one is labelled.

    Args:
        settings: the part of the job that is this actor's.
        run: the folder that results are committed to.
        attempt: this attempt's number.
    """

    def __init__(self, settings: LabelSettings, run: RunDirectory, attempt: int) -> None:
        logs.configure(settings.run_id)
        configure_storage(settings.storage)
        _log.info("labelling in attempt %d: %s", attempt, settings.describe())
        self._since = time.perf_counter()
        self._label = LabelUnits(settings)
        self._run, self._attempt = run, attempt
        self._computed = COMPUTED[settings.device]
        self._meter = UsageMeter()
        self._decoders_usage = NO_USAGE
        self._committer = ThreadPoolExecutor(COMMITS_AT_ONCE, "commit")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Labels and commits some bundles of units.

        Args:
            batch: column `units`, list<int64>, the numbers of each bundle; or the result of `DecodeActor`.

        Returns:
            Column `commit`, string: a `Commit` as JSON. Column `usage`, string: a `Usage` as JSON, in the
            first row that of all since the previous call, in the others none.

        Raises:
            ModelError: see `workers.label.supervise.LabelUnits`.
            StorageError: results cannot be written.
        """
        commits: list[Future[list[Commit]]] = []
        for results in self._labelled(batch):
            commits.append(self._committer.submit(self._commit, results))
            for commit in commits:
                if commit.done():
                    commit.result()  # raises: a job that cannot write ends before it labels more
        entries = [entry.model_dump_json() for commit in commits for entry in commit.result()]
        usages = [self._take_usage(), *[NO_USAGE] * (len(entries) - 1)]
        return pa.table({"commit": entries, "usage": [usage.model_dump_json() for usage in usages]})

    def _labelled(self, batch: pa.Table) -> Iterator[pa.Table]:
        """The results of each unit."""
        if "decoded" in batch.column_names:
            for row in range(len(batch)):
                self._decoders_usage += Usage.model_validate_json(batch["usage"][row].as_py())
                images = pa.Table.from_struct_array(batch["decoded"][row].values)
                yield self._label(batch["unit"][row].as_py(), decoded=images)
            return
        units = units_of(batch)
        for unit, prefetch in zip_longest(units, units[1:]):
            yield self._label(unit, prefetch)

    def _commit(self, results: pa.Table) -> list[Commit]:
        with logs.in_unit(results["unit"][0].as_py()), self._meter.timing(COMMIT):
            try:
                return commit_results(self._run, self._attempt, results)
            except RaylabelError as error:
                # only its kind: the message quotes what the store's library says
                _log.error("cannot commit to %s: %s", clean_uri(self._run.store.url), type(error).__name__)
                raise

    def _take_usage(self) -> Usage:
        """The usage since the previous call, and how much of that time the device was busy."""
        usage = self._label.take_usage() + self._meter.take()
        decoders_usage, self._decoders_usage = self._decoders_usage, NO_USAGE
        previous, self._since = self._since, time.perf_counter()
        busy = sum(seconds for stage, seconds in usage.stage_s.items() if stage in self._computed)
        return usage + decoders_usage + Usage(busy_s=busy, idle_s=max(self._since - previous - busy, 0))


class DecodeActor:
    """Decodes units for labelling actors.

    Args:
        settings: the part of the job that is this actor's.
    """

    def __init__(self, settings: LabelSettings) -> None:
        logs.configure(settings.run_id)
        configure_storage(settings.storage)
        _log.info("decoding: %s", settings.describe())
        self._decode = DecodeUnits(settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Decodes a bundle of one unit.

        Args:
            batch: one row, column `units`, list<int64>: its number.

        Returns:
            One row: columns `unit`, int64; `decoded`, list of structs as `schemas.tables.DECODED`, valid
            until the next call; and `usage`, string: a `Usage` as JSON.

        Raises:
            ModelError: see `workers.label.supervise.DecodeUnits`.
        """
        (unit,) = units_of(batch)
        rows = self._decode(unit).to_struct_array().combine_chunks()
        usage = self._decode.take_usage().model_dump_json()
        images = pa.ListArray.from_arrays([0, len(rows)], rows)
        return pa.table({"unit": [unit], "decoded": images, "usage": [usage]})


def units_of(batch: pa.Table) -> list[int]:
    """The units of a batch of bundles, column `units`."""
    return [unit for bundle in batch["units"].to_pylist() for unit in bundle]
