"""How accurate a prediction of `raylabel plan` was, by the run that it was made for."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from jobs.prepare.resolve import ResolvedJob
from jobs.run.console import Meter
from schemas.exceptions import DamagedFileError, StorageError
from schemas.ledger import PREDICTION
from schemas.prediction import Cluster, SavedPrediction
from workers.ledger.damage import parse
from workers.storage.store import Store


@dataclass(frozen=True)
class PredictionAccuracy:
    """A prediction next to what the run took.

    Attributes:
        images_per_s: predicted.
        seconds: predicted, for the images that the attempt labelled.
        cluster: that it was predicted for.
        actual_images_per_s: since the first images were labelled; None where that was the last.
        actual_seconds: the attempt, its start included.
        actual_nodes: how many nodes of which CPUs and GPUs it ran on.
    """

    images_per_s: float
    seconds: float
    cluster: Cluster
    actual_images_per_s: float | None
    actual_seconds: float
    actual_nodes: dict[tuple[int, int], int]

    @property
    def relative_error(self) -> float | None:
        """Part of the time taken that the prediction was wrong by; None: it was for another cluster."""
        if self.actual_nodes != {(self.cluster.cpus, self.cluster.gpus): self.cluster.nodes}:
            return None
        return abs(self.seconds - self.actual_seconds) / self.actual_seconds

    def to_dict(self) -> dict[str, Any]:
        """The accuracy for a program."""
        return {
            "images_per_s": round(self.images_per_s, 2),
            "seconds": round(self.seconds, 1),
            "cluster": asdict(self.cluster),
            "actual_images_per_s": self.actual_images_per_s and round(self.actual_images_per_s, 2),
            "relative_error": self.relative_error and round(self.relative_error, 4),
        }

    def __str__(self) -> str:
        rate = f" ({self.actual_images_per_s:,.1f} images/s)" if self.actual_images_per_s else ""
        if self.relative_error is None:
            ran_on = " and ".join(
                str(Cluster(count, *node)) for node, count in sorted(self.actual_nodes.items(), reverse=True)
            )
            return (
                f"{self.images_per_s:,.1f} images/s by `raylabel plan`, but for {self.cluster}; it ran on "
                f"{ran_on or 'no node with a CPU'} and took {self.actual_seconds:,.0f} s{rate}"
            )
        return (
            f"{self.images_per_s:,.1f} images/s and {self.seconds:,.0f} s by `raylabel plan`; it took "
            f"{self.actual_seconds:,.0f} s{rate}: {self.relative_error:.0%} off"
        )


def accuracy_of(
    job: ResolvedJob,
    meter: Meter,
    seconds: float,
    machines: list[dict[str, float]],
    message: Callable[[str], None] = lambda _: None,
) -> PredictionAccuracy | None:
    """How good the prediction was that is kept in a job's output; None where there is none of this very job.

    Args:
        job: the job.
        meter: what an attempt at it did; one that did the rest of a run is held against what that would take.
        seconds: that the attempt took.
        machines: the resources of the nodes it ran on, as Ray names them.
        message: called with a sentence for a person, where the prediction cannot be read.
    """
    store = Store(job.spec.output)
    try:
        kept = parse(SavedPrediction, store, PREDICTION, store.read(PREDICTION))
    except FileNotFoundError:
        return None
    except (DamagedFileError, StorageError) as error:  # a run is not worth less for it
        message(f"note: {error}")
        return None
    if kept.job != job.digest() or not meter.done:
        return None
    prediction = kept.prediction
    whole = meter.done == prediction.rows
    nodes = Counter((int(m["CPU"]), int(m.get("GPU", 0))) for m in machines if m.get("CPU", 0) >= 1)
    return PredictionAccuracy(
        images_per_s=prediction.images_per_s,
        seconds=prediction.seconds if whole else prediction.startup_s + meter.done / prediction.images_per_s,
        cluster=prediction.cluster,
        actual_images_per_s=meter.images_per_s,
        actual_seconds=seconds,
        actual_nodes=dict(nodes),
    )
