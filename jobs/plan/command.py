"""`raylabel plan`: how long a job would take, what holds it up, and what it would cost.

A few images of the manifest go through the labelling processes of this machine, as many at once as a run has
here. `jobs.plan.predict` makes hours of what they took. Needs no Ray cluster, and leaves no run.
"""

import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from jobs.cluster.pools import Pool, pool_on
from jobs.plan.predict import STARTUP_S, Load, nodes_within, predict, said_bottleneck
from jobs.plan.probe import Probe, probe_here, sample_locations, this_machine
from jobs.prepare.resolve import ResolvedJob, resolve
from schemas.exceptions import StorageError
from schemas.ledger import PREDICTION
from schemas.plan import Plan
from schemas.prediction import Cluster, Costs, KeptPrediction, Prediction
from schemas.spec import JobSpec
from workers.ledger.state import read_success
from workers.manifest.open import open_manifest
from workers.manifest.sources import Source
from workers.storage.store import Store
from workers.storage.uris import clean_uri

MIN_CPU_SHARE = 0.9
"""Part of the cores' time that a probe gets where nothing much else runs."""

SHARDS = 16
"""Tar files whose headers are read for a prediction; what the others hold is reckoned by their bytes."""

GPU_NOT_KNOWN = (
    "what the models take on a GPU, as this machine has none: tell it with --gpu-images-per-s, or plan on a "
    "machine that has one. What follows is what all else would allow"
)


@dataclass(frozen=True)
class PlanOptions:
    """What a prediction is for. What is None is as on this machine.

    Attributes:
        sample: images that each process probes.
        nodes: of the cluster.
        node_cpus: cores of each.
        node_gpus: of each; None: none where `node_cpus` is given.
        network_gbps: what each node can read, gigabits a second.
        price: of a node for an hour.
        gpu_images_per_s: what a GPU does of both models, where that is known and no GPU is here.
        within: seconds that the job may take.
        as_json: tell a program instead of a person.
    """

    sample: int
    nodes: int | None
    node_cpus: int | None
    node_gpus: int | None
    network_gbps: float | None
    price: float | None
    gpu_images_per_s: float | None
    within: float | None
    as_json: bool


@dataclass(frozen=True)
class PlanReport:
    """What is told of a prediction.

    Attributes:
        job: the job.
        probe: what was measured.
        found: what was predicted of it.
        within: seconds that the job may take; None: nothing was asked.
        smallest_cluster: the prediction for the fewest nodes that meet the deadline; None: none do, or there
            is no deadline.
        saved: whether the run's report will say how good it was.
    """

    job: ResolvedJob
    probe: Probe
    found: Prediction
    within: float | None
    smallest_cluster: Prediction | None
    saved: bool

    def facts(self) -> Iterator[tuple[str, str]]:
        """The prediction for a person, who was told of the job before: name and value."""
        yield from self._measured()
        found, known = self.found, self.found.model_parts is not None
        yield "cluster", str(found.cluster)
        if not known:
            yield "not known", GPU_NOT_KNOWN
        yield "speed", f"{'' if known else 'at most '}{_number(found.images_per_s)} images/s"
        time_ = f"{_time(found.seconds)}, of it {_time(found.startup_s)} to start"
        yield "time", f"{'' if known else 'at least '}{time_}"
        yield "cost", f"{'' if known else 'at least '}{_hours(found)}"
        held_up, help_ = said_bottleneck(found)
        yield "bottleneck", f"{held_up}; advice: {help_}"
        busy = sorted(found.utilization.items(), key=lambda item: -item[1])
        yield "utilization", ", ".join(f"{name} {share:.0%}" for name, share in busy if share >= 0.005)
        if self.within is not None:
            yield f"within {_time(self.within)}", self._within()
        if self.saved:
            yield "saved", "when this job has run, its report says how good this was"

    def _measured(self) -> Iterator[tuple[str, str]]:
        """What was probed, and what an image takes."""
        probe, costs, found = self.probe, self.probe.costs, self.found
        yield (
            "probed",
            f"{probe.images:,} of {_counted(found.rows, 'image')}, on {probe.device} by each of "
            f"{_counted(probe.processes, 'process', 'es')} at once, in {_time(probe.seconds)}",
        )
        if probe.failed:
            failed = ", ".join(f"{count:,} {code}" for code, count in sorted(probe.failed.items()))
            yield "failed", f"{sum(probe.failed.values()):,} of them: {failed}; for example {probe.example}"
        if probe.share < MIN_CPU_SHARE:
            yield (
                "note",
                f"the probe got {probe.share:.0%} of its cores' time, other processes the rest. While they "
                "go on, a run here takes longer than predicted",
            )
        yield "an image has", f"{costs.file_bytes / 1000:,.0f} KB, read in {_ms(costs.fetch_s)}"
        yield "it takes of a core", _parts(found.cpu_parts)
        if found.model_parts and found.cpu_parts.keys().isdisjoint(found.model_parts):
            yield "it takes of a GPU", _parts(found.model_parts)

    def _within(self) -> str:
        if self.smallest_cluster is None:
            return "no number of such nodes is enough: the bottleneck is elsewhere"
        found = self.smallest_cluster
        what = "" if found.model_parts else "at least "
        return f"{what}{found.cluster}: {_time(found.seconds)}, {_hours(found)}"

    def to_dict(self) -> dict[str, Any]:
        """The prediction for a program."""
        probe = {**asdict(self.probe), "rows": self.found.rows}
        return {
            "output": clean_uri(self.job.spec.output),
            "probe": probe,
            **_plain(self.found),
            "within": None
            if self.within is None
            else {
                "seconds": self.within,
                "smallest_cluster": self.smallest_cluster and _plain(self.smallest_cluster),
            },
            "saved": self.saved,
        }


def plan_job(spec: JobSpec, options: PlanOptions) -> None:
    """Probes a job and prints what is to be expected of it on a cluster.

    Raises:
        RaylabelError: what would keep the job from running; the cluster has not what it asks for; no image of
            the sample can be labelled.
    """
    job, store = resolve(spec), Store(spec.output)
    job.assert_same_run(store)
    here = this_machine()
    cluster = cluster_of(options, here)
    pool = pool_on(spec.compute, cluster)
    console = Console(quiet=options.as_json, highlight=False, soft_wrap=True)
    _print(console, job.facts())
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="raylabel-plan-") as folder:
        sources, share = sampled(job.sources)
        manifest = open_manifest(spec.manifest, sources, Store(folder), _map_here)
        opening = time.monotonic() - began
        locations = sample_locations(manifest, options.sample)
    rows = manifest.rows
    if share < 1:  # a run reads the headers of as many shards at once as the cluster has CPUs
        rows, opening = round(rows / share), opening / share / (cluster.nodes * cluster.cpus)
    here = here if pool.device == "cuda" else dataclasses.replace(here, gpus=0)
    probe = probe_here(job, rows, locations, here)
    costs = costs_on(pool, probe, options.gpu_images_per_s)
    plan = Plan.of(rows, spec.units)
    rate = None if manifest.image_column else spec.fetch.rate  # values of a column are read without it
    load = Load(plan, spec.compute, spec.fetch.reads(pool.device), STARTUP_S + opening, rate)
    found = predict(costs, load, cluster)
    smallest_cluster = nodes_within(costs, load, cluster, options.within) if options.within else None
    saved = save(store, job, found)
    told = PlanReport(job, probe, found, options.within, smallest_cluster, saved)
    if options.as_json:
        print(json.dumps(told.to_dict()))
    _print(console, told.facts())


def sampled(sources: list[Source]) -> tuple[list[Source], float]:
    """Some of many tar files, spread over all, and their part of the bytes; other manifests whole."""
    if len(sources) <= SHARDS or any(source.form != "tar" for source in sources):
        return sources, 1.0
    chosen = [sources[(2 * n + 1) * len(sources) // (2 * SHARDS)] for n in range(SHARDS)]
    part, whole = (sum(source.file.size for source in some) for some in (chosen, sources))
    return chosen, part / whole if part else len(chosen) / len(sources)


def cluster_of(options: PlanOptions, here: Cluster) -> Cluster:
    """The cluster that a prediction is asked for."""
    gpus = options.node_gpus if options.node_gpus is not None else 0 if options.node_cpus else here.gpus
    return Cluster(
        options.nodes or 1, options.node_cpus or here.cpus, gpus, options.network_gbps, options.price
    )


def costs_on(pool: Pool, probe: Probe, gpu_images_per_s: float | None) -> Costs:
    """What an image takes where it is to be labelled; what a GPU takes is not known from a CPU."""
    if pool.device == "cuda" and gpu_images_per_s:
        return dataclasses.replace(probe.costs, models={"models, as told": 1 / gpu_images_per_s})
    if pool.device != probe.device:
        return dataclasses.replace(probe.costs, models=None)
    return probe.costs


def save(store: Store, job: ResolvedJob, found: Prediction) -> bool:
    """Keeps a prediction for the run's report, unless that is written already or nothing can be."""
    kept = KeptPrediction(job=job.digest(), at=datetime.now(UTC), prediction=found)
    with contextlib.suppress(StorageError):
        if found.model_parts is not None and not read_success(store):
            store.write(PREDICTION, kept.model_dump_json(indent=1).encode())
            return True
    return False


def _map_here(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    return [function(*each) for each in arguments]


def _print(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    for name, fact in facts:
        console.print(f"{name}: {fact}", markup=False)


def _plain(found: Prediction) -> dict[str, Any]:
    help_ = said_bottleneck(found)[1]
    sums = {"cpu_hours": found.cpu_hours, "gpu_hours": found.gpu_hours, "cost": found.cost}
    return {**asdict(found), "advice": help_, **sums}


def _hours(found: Prediction) -> str:
    said = f"{_number(found.cpu_hours)} CPU hours"
    if found.cluster.gpus:
        said += f", {_number(found.gpu_hours)} GPU hours"
    if found.cost is not None:
        cost = f"{found.cost:,.2f}" if found.cost >= 1 else f"{found.cost:.2g}"
        said += f", costs {cost} at {found.cluster.price:g} a node and hour"
    return said


def _parts(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {_ms(seconds)}" for name, seconds in parts.items())


def _ms(seconds: float) -> str:
    return f"{_number(1000 * seconds)} ms"


def _number(value: float) -> str:
    """Three digits, or all of a whole number of more."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 99.5 else str(timedelta(seconds=round(seconds)))


def _counted(count: int, what: str, plural: str = "s") -> str:
    return f"{count:,} {what}{'' if count == 1 else plural}"
