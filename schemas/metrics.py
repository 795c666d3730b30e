"""The metrics that a run exports to Prometheus: names, units and meanings.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` at the end of counters.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from schemas.errors import Stage
from schemas.tasks import TASKS

PREFIX = "ray_"
"""What Ray puts in front of the name of each metric."""

COMMIT = "commit"
"""The stage in which results are written and committed."""

STAGES = (Stage.FETCH, Stage.DECODE, *(task.stage for task in TASKS), COMMIT)
"""The stages whose seconds are counted, in the order in which an image passes them."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as Prometheus sees it.
        kind: a counter only grows, until its node ends; a gauge has the current value.
        unit: unit of its value.
        labels: names of the labels that distinguish its series.
        help: what it measures, in a sentence.
    """

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    labels: tuple[str, ...]
    help: str

    @property
    def own_name(self) -> str:
        """The name without Ray's prefix, as it is registered with Ray."""
        return self.name.removeprefix(PREFIX)


IMAGES = Metric(
    "ray_raylabel_images_total",
    "counter",
    "images",
    ("run", "outcome"),
    "Images that were brought into a final state and committed, by outcome: labelled or failed.",
)
FAILURES = Metric(
    "ray_raylabel_failures_total",
    "counter",
    "images",
    ("run", "code"),
    "Images among them that failed, by the code in the errors table.",
)
FETCHED = Metric(
    "ray_raylabel_fetched_bytes_total",
    "counter",
    "bytes",
    ("run",),
    "Bytes of the image files that were read, those that could not be decoded included.",
)
STAGE_SECONDS = Metric(
    "ray_raylabel_stage_seconds_total",
    "counter",
    "seconds",
    ("run", "stage"),
    f"Seconds that a stage took: {', '.join(STAGES[:-1])} or {COMMIT}. What goes on at once is added up: "
    "of fetch, the seconds of each read from asking for a file until it is there, pauses and repetitions "
    "included.",
)
ACCELERATOR_SECONDS = Metric(
    "ray_raylabel_accelerator_seconds_total",
    "counter",
    "seconds",
    ("run", "state"),
    "Seconds in which an actor's GPU ran the models (busy) or did not (idle, loading the models included). "
    "Without a GPU it is the cores that the actor computes on, which decode as well. The two states together "
    "are the seconds of all actors.",
)
PENDING = Metric(
    "ray_raylabel_pending_images",
    "gauge",
    "images",
    ("run",),
    "Images of the run that are in no final state yet.",
)

METRICS = (IMAGES, FAILURES, FETCHED, STAGE_SECONDS, ACCELERATOR_SECONDS, PENDING)


class Usage(BaseModel):
    """The time and bytes that some work took, measured by the processes that did it.

    Attributes:
        fetched_bytes: bytes of the files that were read.
        stage_s: seconds by stage, one of `STAGES`.
        busy_s: seconds in which the accelerator computed.
        idle_s: seconds in which it did not.
    """

    model_config = ConfigDict(frozen=True)

    fetched_bytes: int = 0
    stage_s: dict[str, float] = {}
    busy_s: float = 0.0
    idle_s: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        """The sum of both."""
        return Usage(
            fetched_bytes=self.fetched_bytes + other.fetched_bytes,
            stage_s={
                stage: self.stage_s.get(stage, 0) + other.stage_s.get(stage, 0)
                for stage in self.stage_s | other.stage_s
            },
            busy_s=self.busy_s + other.busy_s,
            idle_s=self.idle_s + other.idle_s,
        )


NO_USAGE = Usage()
