"""`raylabel plan`: predicts a job's duration, bottleneck and cost.

Some images of the manifest go through the labelling processes of this machine, as many processes at once as a
run has here. `jobs.plan.predict` extrapolates from their times. Needs no Ray cluster, and leaves no run.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from jobs.cluster.pools import Pool, pool_on
from jobs.plan.predict import STARTUP_S, Load, nodes_within, predict
from jobs.plan.probe import Probe, probe_here, sample_locations, this_machine
from jobs.plan.report import PlanReport
from jobs.prepare.resolve import ResolvedJob, resolve
from schemas.exceptions import StorageError
from schemas.ledger import PREDICTION
from schemas.locations import Location
from schemas.plan import Plan
from schemas.prediction import Cluster, Costs, Prediction, SavedPrediction
from schemas.spec import JobSpec
from workers.ledger.state import read_success
from workers.manifest.manifest import Manifest
from workers.manifest.open import map_here, open_manifest
from workers.manifest.sources import Source
from workers.printable import printable
from workers.process.forkserver import shared_fork_server
from workers.storage.store import Store

SAMPLE_TARS = 16
"""Tar files whose headers are read for a prediction; the rows of all others are estimated from bytes."""


@dataclass(frozen=True)
class PlanOptions:
    """The sample, and the cluster to predict for. None means: as on this machine, or not given.

    Attributes:
        sample: images that each process probes.
        nodes: of the cluster; None: 1.
        node_cpus: cores of each node.
        node_gpus: GPUs of each node; None: this machine's, or 0 where `node_cpus` is given.
        network_gbps: bandwidth of each node, gigabits per second.
        price: of a node-hour.
        gpu_images_per_s: images per second of one GPU with both models.
        within: deadline of the job, seconds.
        as_json: print JSON instead of lines.
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
class Sample:
    """Images of a manifest to probe, and what is known of the manifest from finding them.

    Attributes:
        manifest: of which the images are; of many tar files only some.
        locations: of the images.
        rows: of the whole manifest; estimated from bytes where only some tar files were read.
        opening_s: seconds that a run on the cluster takes to open the manifest.
    """

    manifest: Manifest
    locations: list[Location]
    rows: int
    opening_s: float


def plan_job(spec: JobSpec, options: PlanOptions) -> None:
    """Probes a job and prints the prediction for a cluster.

    Raises:
        RaylabelError: what would keep the job from running; the cluster lacks what the job asks for; no image
            of the sample can be labelled.
    """
    job, store = resolve(spec), Store(spec.output)
    job.assert_same_run(store)
    here = this_machine()
    cluster = cluster_of(options, here)
    pool = pool_on(spec.compute, cluster)
    console = Console(quiet=options.as_json, highlight=False, soft_wrap=True)
    _print(console, job.facts())
    sample = take_sample(job, options.sample, cluster)
    probe = probe_here(
        job, sample.rows, sample.locations, here if pool.device == "cuda" else replace(here, gpus=0)
    )
    costs, load = costs_on(pool, probe, options.gpu_images_per_s), load_of(spec, sample, pool)
    prediction = predict(costs, load, cluster)
    smallest_cluster = nodes_within(costs, load, cluster, options.within) if options.within else None
    saved = save_prediction(store, job, prediction)
    report = PlanReport(job, probe, prediction, options.within, smallest_cluster, saved)
    if options.as_json:
        print(json.dumps(report.to_dict()))
    _print(console, report.facts())


def take_sample(job: ResolvedJob, size: int, cluster: Cluster) -> Sample:
    """Opens the manifest in a temporary folder and finds the images to probe.

    The folder is in the fork server's, which is deleted however this process ends.
    """
    start = time.monotonic()
    parent = Path(shared_fork_server().address).parent
    with tempfile.TemporaryDirectory(prefix="plan-", dir=parent) as folder:
        sources, share = sample_sources(job.sources)
        manifest = open_manifest(job.spec.manifest, sources, Store(folder), map_here)
        opening_s = time.monotonic() - start
        locations = sample_locations(manifest, size)
    rows = manifest.rows
    if share < 1:  # a run reads the headers of as many tar files at once as the cluster has CPUs
        rows, opening_s = round(rows / share), opening_s / share / (cluster.nodes * cluster.cpus)
    return Sample(manifest, locations, rows, opening_s)


def sample_sources(sources: list[Source]) -> tuple[list[Source], float]:
    """Some of many tar files, spread over all, and their share of the bytes; other manifests whole."""
    if len(sources) <= SAMPLE_TARS or any(source.format != "tar" for source in sources):
        return sources, 1.0
    chosen = [sources[(2 * n + 1) * len(sources) // (2 * SAMPLE_TARS)] for n in range(SAMPLE_TARS)]
    part, whole = (sum(source.file.size for source in some) for some in (chosen, sources))
    return chosen, part / whole if part else len(chosen) / len(sources)


def cluster_of(options: PlanOptions, here: Cluster) -> Cluster:
    """The cluster to predict for."""
    gpus = options.node_gpus if options.node_gpus is not None else 0 if options.node_cpus else here.gpus
    return Cluster(
        options.nodes or 1, options.node_cpus or here.cpus, gpus, options.network_gbps, options.price
    )


def costs_on(pool: Pool, probe: Probe, gpu_images_per_s: float | None) -> Costs:
    """What an image takes on the actors of a pool; a probe on a CPU does not know what a GPU takes."""
    if pool.device == "cuda" and gpu_images_per_s:
        return replace(probe.costs, models={"models, as given": 1 / gpu_images_per_s})
    if pool.device != probe.device:
        return replace(probe.costs, models=None)
    return probe.costs


def load_of(spec: JobSpec, sample: Sample, pool: Pool) -> Load:
    """The job's side of a prediction."""
    # values of a Parquet column are read without fetch.rate
    rate = None if sample.manifest.image_column else spec.fetch.rate
    tables = [name for model in spec.models.values() for name in model.tables]
    plan, concurrency = Plan.of(sample.rows, spec.units, tables), spec.fetch.reads(pool.device)
    return Load(plan, spec.compute, concurrency, STARTUP_S + sample.opening_s, rate)


def save_prediction(store: Store, job: ResolvedJob, prediction: Prediction) -> bool:
    """Saves a prediction for the run's report; False where that is written already or the store refuses."""
    saved = SavedPrediction(job=job.digest(), at=datetime.now(UTC), prediction=prediction)
    with contextlib.suppress(StorageError):  # a plan needs no write access
        if prediction.model_parts is not None and not read_success(store, lambda _: None):
            store.write(PREDICTION, saved.model_dump_json(indent=1).encode())
            return True
    return False


def _print(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    for name, fact in facts:
        console.print(printable(f"{name}: {fact}"), markup=False)
