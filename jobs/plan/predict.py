"""How long a job takes on a cluster, and what holds it up: arithmetic on what one image takes."""

import math
from dataclasses import dataclass, replace

from jobs.cluster.pools import pool_on
from schemas.plan import BUNDLES_LEFT, Plan, max_bundle_units
from schemas.prediction import Cluster, Costs, Prediction
from schemas.spec import ComputeSpec

OVERHEAD_CPU_S = 0.0005
"""Of a core, for each image: Ray, the ledger, the tables. What a run takes beyond what is probed: fetching (a
body's MD5 is a part of it), decoding (so is the file's sha256) and its models; measured: 0.35 to 0.5 ms."""

STARTUP_S = 12.0
"""From the command until the first images are labelled: Ray and the models start."""

DRIVER_S_PER_BUNDLE = 0.010
"""Of the driver, for each bundle of units that it hands out, however many nodes there are."""

MOST_NODES = 2_000
"""More are not looked at when nodes are sought for a deadline."""


@dataclass(frozen=True)
class Load:
    """What of a job decides its speed, beside what an image takes.

    Attributes:
        plan: how the manifest is cut.
        compute: which device, and how many actors.
        concurrency: files that an actor reads at once.
        startup_s: until the first images are labelled.
        reads_per_s: that the job may begin, shared evenly by as many actors as it may have; None: no limit.
    """

    plan: Plan
    compute: ComputeSpec
    concurrency: int
    startup_s: float
    reads_per_s: float | None = None


def predict(costs: Costs, load: Load, cluster: Cluster) -> Prediction:
    """How a job goes on a cluster: as fast as the resource that is used up first.

    Every actor begins each bundle of units with an empty hand: it waits for the first file. Beside a GPU it
    waits at each unit, while the first batch is decoded or the last one labelled. Where units do not come out
    even, actors are idle in the last round.

    Raises:
        RaylabelError: the cluster has not what `compute` asks for.
    """
    pool = pool_on(load.compute, cluster)
    actors = min(pool.actors, load.plan.units)
    cores: float = cluster.nodes * cluster.cpus
    cpu_parts = {
        "fetch": costs.fetch_cpu_s,
        "decode": costs.decode_cpu_s,
        "raylabel and Ray": costs.own_cpu_s,
    }
    if pool.device == "cpu":
        cpu_parts |= costs.models or {}
    else:  # a thread of each actor attends to its GPU
        cores = max(cores - actors, cores / 2)
    unit_rows = load.plan.unit_rows
    fair = max(1, load.plan.units // (BUNDLES_LEFT * actors))
    bundle_rows = min(max_bundle_units(unit_rows, pool.device), fair) * unit_rows
    slots = min(load.concurrency, bundle_rows)
    limits = {
        "models": _per_s(actors, sum((costs.models or {}).values())),
        "decode": _per_s(actors * pool.threads, costs.decode_cpu_s),
        "CPUs": _per_s(cores, sum(cpu_parts.values())),
        "network": _per_s(cluster.nodes * (cluster.network_gbps or math.inf) * 1e9 / 8, costs.file_bytes),
        "reads": _per_s(actors * slots, costs.fetch_s),
        "fetch.rate": (load.reads_per_s or math.inf) * actors / pool.most,
        "driver": bundle_rows / DRIVER_S_PER_BUNDLE,
    }
    tightest = min(limits, key=lambda name: limits[name])
    fed = min(limits["decode"], limits["CPUs"])
    working, waiting = actors / min(limits["models"], fed), costs.fetch_s / bundle_rows
    if pool.device == "cuda":  # on a CPU decoding and models take turns on the same cores anyway
        batch = load.compute.images_at_once(pool.device)
        waiting += min(batch, unit_rows) / unit_rows * actors / max(limits["models"], fed)
    rate = min(actors / (working + waiting), limits[tightest])
    rounds = math.ceil(load.plan.units / actors)
    idle = rounds * actors / load.plan.units
    return Prediction(
        cluster=cluster,
        rows=load.plan.rows,
        images_per_s=rate,
        startup_s=load.startup_s,
        seconds=load.startup_s + load.plan.rows / rate * idle,
        bottleneck="units" if waiting > working and rate < limits[tightest] else tightest,
        utilization={
            **{name: rate / limit for name, limit in limits.items() if limit < math.inf},
            "reads": rate * costs.fetch_s / (actors * slots),
        },
        cpu_parts=cpu_parts,
        model_parts=costs.models,
    )


def nodes_within(costs: Costs, load: Load, cluster: Cluster, seconds: float) -> Prediction | None:
    """The smallest number of such nodes that is done in time; None where no number is."""

    def with_nodes(nodes: int) -> Prediction:
        return predict(costs, load, replace(cluster, nodes=nodes))

    predictions = map(with_nodes, range(1, MOST_NODES + 1))  # more are not always faster
    return next((found for found in predictions if found.seconds <= seconds), None)


def _per_s(many: float, seconds: float) -> float:
    return many / seconds if seconds else math.inf


ADVICE = {
    "models": "more or larger GPUs, or a smaller model",
    "actors": "more actors: compute.actors, or smaller units (units.rows)",
    "decode": "more CPUs for each GPU, or smaller images",
    "CPUs": "more cores",
    "network": "nodes with more bandwidth, or smaller files",
    "reads": "a larger fetch.concurrency",
    "fetch.rate": "a larger fetch.rate, if the store bears it",
    "units": "larger units (units.rows): each begins with a wait for its first images",
    "driver": "larger units (units.rows): each bundle of them takes the driver 10 ms",
}
"""What would make a job faster, by what holds it up."""

LABELS = {
    "reads": "fetch latency: as many reads are under way as may be",
    "fetch.rate": "fetch.rate: as many reads begin in a second as may",
    "units": "the beginnings of units",
}
"""What holds a job up in words, where its name does not say it."""


def said_bottleneck(found: Prediction) -> tuple[str, str]:
    """What holds a job up and what would help, in words."""
    on_gpus = found.cpu_parts.keys().isdisjoint(found.model_parts or {})
    match found.bottleneck:
        case "CPUs":
            models = {} if on_gpus else found.model_parts or {}
            part = max(found.cpu_parts, key=lambda name: found.cpu_parts[name])
            share = found.cpu_parts[part] / sum(found.cpu_parts.values())
            if part in models:
                return f"models ({part} {share:.0%} of the CPU time)", "more cores, a GPU, or a smaller model"
            return f"{part} ({share:.0%} of the CPU time)", ADVICE["decode" if on_gpus else "CPUs"]
        case "models" if found.model_parts:
            part = max(
                found.model_parts, key=lambda name: found.model_parts[name] if found.model_parts else 0
            )
            share = found.model_parts[part] / sum(found.model_parts.values())
            named = f"models ({part} {share:.0%} of their time)" if len(found.model_parts) > 1 else "models"
            return named, ADVICE["models" if on_gpus else "actors"]
        case name:
            return LABELS.get(name, name), ADVICE[name]
