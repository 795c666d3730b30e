"""How long a job takes on a cluster, and its bottleneck: arithmetic on what one image takes."""

import math
from dataclasses import dataclass, replace

from jobs.cluster.pools import pool_on
from schemas.plan import BUNDLES_LEFT, Plan, max_bundle_units
from schemas.prediction import Cluster, Costs, Prediction
from schemas.spec import ComputeSpec

OVERHEAD_CPU_S = 0.0005
"""Core seconds per image for Ray, the ledger and the tables: what a run takes beyond what is probed, which is
fetching (with a body's MD5), decoding (with the file's sha256) and the models. Measured: 0.35 to 0.5 ms."""

STARTUP_S = 12.0
"""Seconds from the command to the first labelled images: Ray and the models start."""

DRIVER_S_PER_BUNDLE = 0.010
"""The driver's seconds per bundle of units that it hands out, whatever the number of nodes."""

MAX_NODES = 2_000
"""The largest cluster that is tried for a deadline."""


@dataclass(frozen=True)
class Load:
    """What decides a job's speed, next to what an image takes.

    Attributes:
        plan: how the manifest is cut into units.
        compute: the device, and the number of actors.
        concurrency: files that an actor reads at once.
        startup_s: seconds until the first images are labelled.
        reads_per_s: that the job may start, in equal shares for its largest number of actors; None: no limit.
    """

    plan: Plan
    compute: ComputeSpec
    concurrency: int
    startup_s: float
    reads_per_s: float | None = None


def predict(costs: Costs, load: Load, cluster: Cluster) -> Prediction:
    """The speed and duration of a job on a cluster: as fast as the resource that is used up first.

    Raises:
        RaylabelError: the cluster lacks what `compute` asks for.
    """
    pool, plan = pool_on(load.compute, cluster), load.plan
    actors = min(pool.actors, plan.units)
    bundle_rows = _bundle_rows(plan, actors, pool.device)
    slots = min(load.concurrency, bundle_rows)
    cpu_parts = _cpu_parts(costs, pool.device)
    limits = {
        "models": _per_s(actors, sum((costs.models or {}).values())),
        "decode": _per_s(actors * pool.threads, costs.decode_cpu_s),
        "CPUs": _per_s(_cores(cluster, actors, pool.device), sum(cpu_parts.values())),
        "network": _per_s(cluster.nodes * (cluster.network_gbps or math.inf) * 1e9 / 8, costs.file_bytes),
        "reads": _per_s(actors * slots, costs.fetch_s),
        "fetch.rate": (load.reads_per_s or math.inf) * actors / pool.most,
        "driver": bundle_rows / DRIVER_S_PER_BUNDLE,
    }
    tightest = min(limits, key=lambda name: limits[name])
    working, waiting = _actor_seconds(costs, load, pool.device, actors, limits)
    rate = min(actors / (working + waiting), limits[tightest])
    # units do not come out even: some actors are idle in the last round
    idle = math.ceil(plan.units / actors) * actors / plan.units
    return Prediction(
        cluster=cluster,
        rows=plan.rows,
        images_per_s=rate,
        startup_s=load.startup_s,
        seconds=load.startup_s + plan.rows / rate * idle,
        bottleneck="units" if waiting > working and rate < limits[tightest] else tightest,
        utilization={
            **{name: rate / limit for name, limit in limits.items() if limit < math.inf},
            "reads": rate * costs.fetch_s / (actors * slots),
        },
        cpu_parts=cpu_parts,
        model_parts=costs.models,
    )


def _cpu_parts(costs: Costs, device: str) -> dict[str, float]:
    """Core seconds per image, by part; the models' where they run on CPUs."""
    parts = {"fetch": costs.fetch_cpu_s, "decode": costs.decode_cpu_s, "raylabel and Ray": costs.own_cpu_s}
    return parts | (costs.models or {}) if device == "cpu" else parts


def _cores(cluster: Cluster, actors: int, device: str) -> float:
    """Cores that do what `_cpu_parts` counts."""
    cores = cluster.nodes * cluster.cpus
    return cores if device == "cpu" else max(cores - actors, cores / 2)  # a thread per actor drives its GPU


def _bundle_rows(plan: Plan, actors: int, device: str) -> int:
    """Rows of the bundle of units that an actor is handed at once."""
    fair = max(1, plan.units // (BUNDLES_LEFT * actors))
    return min(max_bundle_units(plan.unit_rows, device), fair) * plan.unit_rows


def _actor_seconds(
    costs: Costs, load: Load, device: str, actors: int, limits: dict[str, float]
) -> tuple[float, float]:
    """Seconds per image that an actor works and waits.

    An actor has nothing prefetched at the start of a bundle: it waits for the first file. With a GPU it also
    waits at each unit, while the first batch is decoded or the last one labelled. On a CPU decoding and
    models take turns on the same cores anyway.
    """
    feed = min(limits["decode"], limits["CPUs"])
    working = actors / min(limits["models"], feed)
    waiting = costs.fetch_s / _bundle_rows(load.plan, actors, device)
    if device == "cuda":
        unit_rows = load.plan.unit_rows
        batch = min(load.compute.images_at_once(device), unit_rows)
        waiting += batch / unit_rows * actors / max(limits["models"], feed)
    return working, waiting


def nodes_within(costs: Costs, load: Load, cluster: Cluster, seconds: float) -> Prediction | None:
    """The prediction for the fewest such nodes that finish in time; None where no number does."""

    def with_nodes(nodes: int) -> Prediction:
        return predict(costs, load, replace(cluster, nodes=nodes))

    predictions = map(with_nodes, range(1, MAX_NODES + 1))  # one by one: more nodes are not always faster
    return next((prediction for prediction in predictions if prediction.seconds <= seconds), None)


def _per_s(capacity: float, cost: float) -> float:
    """Images per second that a capacity allows at a cost per image; infinite where they cost nothing."""
    return capacity / cost if cost else math.inf
