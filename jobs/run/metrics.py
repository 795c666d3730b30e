"""A run's Prometheus metrics. The driver alone exports them, so that nothing is counted twice."""

import functools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from ray.util import metrics as ray_metrics

from schemas.metrics import (
    ACCELERATOR_SECONDS,
    FAILURES,
    FETCHED,
    IMAGES,
    PENDING,
    STAGE_SECONDS,
    Metric,
    Usage,
)
from workers.ledger.state import PassState
from workers.storage.uris import clean_uri

PRINTABLE = "".join(map(chr, range(ord(" "), ord("~") + 1)))
"""The characters of a label that stay as they are."""

REFRESH_S = 1.0
"""Seconds between two settings of the gauge. Ray 2.60 exports a gauge when it was set since the last export,
and drops it when two of its report intervals (ten seconds by default) brought nothing."""


class Exporter:
    """Counts one attempt at a run, for Ray, which exports the counts on a cluster.

    Args:
        output: the run directory; labels every metric, without credentials.
    """

    def __init__(self, output: str) -> None:
        self._run = ascii_label(clean_uri(output))
        self._done: int | None = None
        self._failed: Counter[str] = Counter()
        self._pending = 0
        self._ended = threading.Event()

    def on_progress(self, state: PassState, usage: Usage) -> None:
        """Counts what is new; what was there at the first call was done by earlier attempts, and is not.

        Args:
            state: of the pass, as it is now.
            usage: what was spent since the last call.
        """
        if self._done is not None:
            self._count_images(state.done - self._done, state.failed - self._failed)
        self._done, self._failed = state.done, state.failed.copy()
        self._pending = state.rows - state.done
        self._count_usage(usage)

    @contextmanager
    def exporting(self) -> Iterator["Exporter"]:
        """Sets the gauge again and again for the length of a block."""
        thread = threading.Thread(target=self._refresh, name="metrics", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _refresh(self) -> None:
        while True:
            ended = self._ended.wait(REFRESH_S)
            if self._done is not None:
                ray_metric(PENDING).set(self._pending, {"run": self._run})
            if ended:
                return

    def _count_images(self, done: int, failed: Counter[str]) -> None:
        self._count(IMAGES, done - failed.total(), outcome="labelled")
        self._count(IMAGES, failed.total(), outcome="failed")
        for code, images in failed.items():
            self._count(FAILURES, images, code=code)

    def _count_usage(self, usage: Usage) -> None:
        self._count(FETCHED, usage.fetched_bytes)
        for stage, seconds in usage.stage_s.items():
            self._count(STAGE_SECONDS, seconds, stage=stage)
        self._count(ACCELERATOR_SECONDS, usage.busy_s, state="busy")
        self._count(ACCELERATOR_SECONDS, usage.idle_s, state="idle")

    def _count(self, metric: Metric, value: float, **labels: str) -> None:
        if value > 0:  # Ray takes nothing else
            ray_metric(metric).inc(value, {"run": self._run, **labels})


def ascii_label(text: str) -> str:
    """A label's value as Ray takes it, in ASCII: what else a path holds is percent-encoded, as in a URL."""
    return quote(text, safe=PRINTABLE, errors="surrogateescape")


@functools.cache
def ray_metric(metric: Metric) -> Any:
    """Ray's counter or gauge for a metric, made once a process."""
    kind = ray_metrics.Counter if metric.kind == "counter" else ray_metrics.Gauge
    return kind(metric.own_name, metric.help, metric.labels)
