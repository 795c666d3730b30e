"""Publishing shards as Ray tasks while the job runs."""

import logging
from collections import Counter
from typing import Any

import ray

from jobs.cluster import connect as cluster
from schemas.exceptions import ReconcileError
from schemas.metrics import Usage
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.ledger.state import PassState

_log = logging.getLogger(__name__)

MAX_ROUNDS = 3
"""How often a shard is published at most where a part of it is damaged each time."""


class Publisher:
    """Publishes each shard once, as soon as all its units are committed.

    Args:
        run: whose.

    Attributes:
        suspects: shards that could not be published at the last `finish`.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.suspects: frozenset[int] = frozenset()
        self._run = run.for_workers()
        self._started: dict[int, Any] = {}
        self._failures: Counter[int] = Counter()

    def on_progress(self, state: PassState, usage: Usage) -> None:  # noqa: ARG002 - an observer's face
        """Starts to publish what can be published and was not started before."""
        for shard in sorted(state.publishable - self._started.keys()):
            self._started[shard] = self.start(self._run, shard)

    def finish(self) -> bool:
        """Waits for all; whether all were published. Otherwise units of `suspects` are to be labelled again.

        Raises:
            ReconcileError: the parts of a shard do not hold its rows exactly once, however often it is tried.
            StorageError: a file could not be read or written.
        """
        started, self._started = self._started, {}
        self.suspects = frozenset(shard for shard in started if not self._is_published(shard, started[shard]))
        return not self.suspects

    def _is_published(self, shard: int, task: Any) -> bool:
        try:
            self.wait(task)
        except ReconcileError as error:
            self._failures[shard] += 1
            if self._failures[shard] == MAX_ROUNDS:
                raise
            _log.warning("shard %d is not published yet: %s", shard, error)
            return False
        return True

    @staticmethod
    def start(run: RunDirectory, shard: int) -> Any:
        """Starts to publish a shard; returns what `wait` takes."""
        return cluster.start_task(publish_shard, run, shard)

    @staticmethod
    def wait(task: Any) -> None:
        """Waits for a shard; raises what its publishing raised."""
        with cluster.own_exceptions():
            ray.get(task)
