"""Publishing shards as Ray tasks while the job goes on."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import ray

from jobs import cluster
from schemas.plan import Plan
from workers.publish import publish_shard
from workers.storage import Store


class Publisher:
    """Publishes each shard once, when it is told that the shard is committed."""

    def __init__(self, store: Store, plan: Plan, carried: pa.Schema) -> None:
        self._arguments = (store, plan)
        self._carried = carried
        self._started: dict[int, Any] = {}

    def publish(self, shards: Iterable[int]) -> None:
        """Starts publishing; a shard that was started before is passed over."""
        task = ray.remote(num_cpus=0, max_retries=3)(publish_shard)
        for shard in set(shards) - self._started.keys():
            self._started[shard] = task.remote(*self._arguments, shard, self._carried)

    def finish(self) -> None:
        """Waits for all.

        Raises:
            ReconcileError: the parts of a shard do not hold its rows exactly once.
            StorageError: a file could not be read or written.
        """
        with cluster.own_exceptions():
            ray.get(list(self._started.values()))
