"""What `raylabel plan` prints: a prediction as lines for a person, or as JSON for a program."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from jobs.plan.bottleneck import describe_bottleneck
from jobs.plan.probe import Probe
from jobs.prepare.resolve import ResolvedJob
from schemas.prediction import Prediction
from schemas.words import by_code, counted
from workers.storage.uris import clean_uri

MIN_CPU_SHARE = 0.9
"""Share of its cores' time that a probe gets on a machine where little else runs."""

GPU_UNKNOWN = (
    "the models' time on a GPU, because this machine has none. Set --gpu-images-per-s, or plan on a machine "
    "with a GPU. The lines below are bounds, as if the models took no time"
)


@dataclass(frozen=True)
class PlanReport:
    """A prediction with what it is based on.

    Attributes:
        job: the job.
        probe: what was measured.
        prediction: for the cluster that was asked about.
        within: the deadline, seconds; None: none was given.
        smallest_cluster: the prediction for the fewest nodes that meet the deadline; None: none do, or there
            is no deadline.
        saved: whether the run's report will compare the prediction with the run.
    """

    job: ResolvedJob
    probe: Probe
    prediction: Prediction
    within: float | None
    smallest_cluster: Prediction | None
    saved: bool

    def facts(self) -> Iterator[tuple[str, str]]:
        """Name and value of each line for a person; the job's own lines come before them."""
        yield from self._measured()
        prediction, known = self.prediction, self.prediction.model_parts is not None
        at_most, at_least = ("", "") if known else ("at most ", "at least ")
        bottleneck, advice = describe_bottleneck(prediction)
        yield "cluster", str(prediction.cluster)
        if not known:
            yield "unknown", GPU_UNKNOWN
        yield "speed", f"{at_most}{_number(prediction.images_per_s)} images/s"
        duration, startup = _duration(prediction.seconds), _duration(prediction.startup_s)
        yield "time", f"{at_least}{duration}, including {startup} to start"
        yield "cost", f"{at_least}{_cost(prediction)}"
        yield "bottleneck", f"{bottleneck}; advice: {advice}"
        yield "utilization", _utilization(prediction)
        if self.within is not None:
            yield f"within {_duration(self.within)}", self._within()
        if self.saved:
            yield "saved", "the run's report will compare this prediction with the run"

    def _measured(self) -> Iterator[tuple[str, str]]:
        """What was probed, and what an image takes."""
        probe, costs, prediction = self.probe, self.probe.costs, self.prediction
        yield (
            "probed",
            f"{probe.images:,} of {counted(prediction.rows, 'image')} in each of "
            f"{counted(probe.processes, 'process', 'processes')}, on {probe.device}, "
            f"in {_duration(probe.seconds)}",
        )
        if probe.failed:
            failed = sum(probe.failed.values())
            yield (
                "failed",
                f"{failed:,} of {probe.images:,}: {by_code(probe.failed)}; for example {probe.example}",
            )
        if probe.share < MIN_CPU_SHARE:
            yield (
                "note",
                f"the probe got {probe.share:.0%} of its cores' time; other processes took the rest. While "
                "they run, a run here takes longer than predicted",
            )
        yield "file size", f"{costs.file_bytes / 1000:,.0f} KB, read in {_ms(costs.fetch_s)}"
        yield "CPU time per image", _parts(prediction.cpu_parts)
        if prediction.model_parts and prediction.cpu_parts.keys().isdisjoint(prediction.model_parts):
            yield "GPU time per image", _parts(prediction.model_parts)

    def _within(self) -> str:
        """The smallest cluster that meets the deadline."""
        if self.smallest_cluster is None:
            return "no number of such nodes is enough: the bottleneck is elsewhere"
        prediction = self.smallest_cluster
        at_least = "" if prediction.model_parts else "at least "
        return f"{at_least}{prediction.cluster}: {_duration(prediction.seconds)}, {_cost(prediction)}"

    def to_dict(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        smallest = self.smallest_cluster and _as_dict(self.smallest_cluster)
        within = None if self.within is None else {"seconds": self.within, "smallest_cluster": smallest}
        return {
            "output": clean_uri(self.job.spec.output),
            "probe": {**asdict(self.probe), "rows": self.prediction.rows},
            **_as_dict(self.prediction),
            "within": within,
            "saved": self.saved,
        }


def _as_dict(prediction: Prediction) -> dict[str, Any]:
    """A prediction with its sums and its advice."""
    return {
        **asdict(prediction),
        "advice": describe_bottleneck(prediction)[1],
        "cpu_hours": prediction.cpu_hours,
        "gpu_hours": prediction.gpu_hours,
        "cost": prediction.cost,
    }


def _cost(prediction: Prediction) -> str:
    """CPU and GPU hours, and money where a price is known."""
    parts = [f"{_number(prediction.cpu_hours)} CPU hours"]
    if prediction.cluster.gpus:
        parts.append(f"{_number(prediction.gpu_hours)} GPU hours")
    if prediction.cost is not None:
        money = f"{prediction.cost:,.2f}" if prediction.cost >= 1 else f"{prediction.cost:.2g}"
        parts.append(f"{money} at {prediction.cluster.price:g} per node-hour")
    return ", ".join(parts)


def _utilization(prediction: Prediction) -> str:
    """Each resource's utilization, the highest first; below half a percent they are left out."""
    ranked = sorted(prediction.utilization.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in ranked if share >= 0.005)


def _parts(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {_ms(seconds)}" for name, seconds in parts.items())


def _ms(seconds: float) -> str:
    return f"{_number(1000 * seconds)} ms"


def _number(value: float) -> str:
    """Three significant digits; from 100 on a whole number."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 99.5 else str(timedelta(seconds=round(seconds)))
