"""Publishing shards as Ray tasks while the job goes on."""

from collections.abc import Iterable
from typing import Any

import ray

from jobs.cluster import connect as cluster
from workers.ledger.commit import RunFolder
from workers.ledger.publish import publish_shard


class Publisher:
    """Publishes each shard once, when it is told that the shard is committed."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._started: dict[int, Any] = {}

    def publish(self, shards: Iterable[int]) -> None:
        """Starts publishing; a shard that was started before is passed over."""
        for shard in sorted(set(shards) - self._started.keys()):
            self._started[shard] = cluster.start_task(publish_shard, self._run, shard)

    def finish(self) -> None:
        """Waits for all.

        Raises:
            ReconcileError: the parts of a shard do not hold its rows exactly once.
            StorageError: a file could not be read or written.
        """
        with cluster.own_exceptions():
            ray.get(list(self._started.values()))
