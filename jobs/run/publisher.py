"""Publishing shards as Ray tasks while the job runs."""

from typing import Any

import ray

from jobs.cluster import connect as cluster
from schemas.metrics import Usage
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.ledger.state import PassState


class Publisher:
    """Publishes each shard once, as soon as all its units are committed.

    Args:
        run: whose.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run.for_workers()
        self._started: dict[int, Any] = {}

    def on_progress(self, state: PassState, usage: Usage) -> None:  # noqa: ARG002 - an observer's face
        """Starts to publish what can be published and was not started before."""
        for shard in sorted(state.publishable - self._started.keys()):
            self._started[shard] = cluster.start_task(publish_shard, self._run, shard)

    def finish(self) -> None:
        """Waits for all.

        Raises:
            ReconcileError: the parts of a shard do not hold its rows exactly once.
            StorageError: a file could not be read or written.
        """
        with cluster.own_exceptions():
            ray.get(list(self._started.values()))
