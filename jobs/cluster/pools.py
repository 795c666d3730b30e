"""Sizes the pools of actors for some nodes: arithmetic."""

import sys
from dataclasses import dataclass, field, replace

from schemas.exceptions import ClusterError
from schemas.prediction import Cluster
from schemas.spec import ActorRange, ComputeSpec


@dataclass(frozen=True)
class Pool:
    """A pool of actors: their number, and the resources of each.

    Attributes:
        actors: number at first.
        least: minimum.
        most: maximum, as the cluster grows.
        num_cpus: that each actor asks Ray for.
        num_gpus: that each actor asks Ray for; 0 on CPUs.
        threads: of each actor, to compute with on a CPU or to decode with next to a GPU.
        memory_share: of its node's memory, for each actor, 0 to 1.
        resources: Ray's custom resources that each actor asks for.
    """

    actors: int
    least: int
    most: int
    num_cpus: float
    num_gpus: float
    threads: int
    memory_share: float
    resources: dict[str, float] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Where the models run: "cuda" or "cpu"."""
        return "cuda" if self.num_gpus else "cpu"


def plan_pool(compute: ComputeSpec, nodes: list[dict[str, float]]) -> Pool:
    """The pool of actors with models on some nodes: one per GPU, or one per CPU where there is no GPU.

    On a CPU node the actors together ask for one CPU less than it has, which is left for the task that hands
    out bundles. Next to a GPU an actor decodes with its share of the CPUs but one, for the same reason. With
    decoders the actors ask for no CPU: their GPUs or `resources` limit their number, and decoders cannot
    occupy their place on a node.

    Args:
        compute: device, number of actors and what they ask for.
        nodes: resources of each node by Ray's names ("CPU", "GPU", custom ones).

    Raises:
        ClusterError: no node has the GPU or the custom resource that is asked for, or there is no CPU.
    """
    fitting = [node for node in nodes if _actors_that_fit(compute.resources, node)]
    if nodes and not fitting and not isinstance(compute.actors, ActorRange):
        names = sorted({name for node in nodes for name in node if not name.startswith("node:")})
        raise ClusterError(
            f"compute.resources asks for {compute.resources}, which no node of the Ray cluster has; "
            f"there are: {', '.join(names)}. If such nodes will join later, set compute.actors to "
            "{min: 1, max: N}"
        )
    gpus = [node for node in fitting if node.get("GPU", 0) >= 1]
    if compute.device != "cpu" and (gpus or compute.device == "cuda"):
        pool = _gpu_pool(compute, gpus)
    else:
        pool = _cpu_pool(compute, fitting or nodes)
    return replace(pool, num_cpus=0) if compute.decoders else pool


def pool_on(compute: ComputeSpec, cluster: Cluster) -> Pool:
    """The pool of actors with models on a described cluster.

    Assumes that each actor decodes for itself, and that nodes have the custom resources that are asked for.

    Raises:
        ClusterError: see `plan_pool`.
    """
    plain = compute.model_copy(update={"actors": "auto", "resources": {}, "decoders": 0})
    node_pool = plan_pool(plain, [{"CPU": cluster.cpus, "GPU": cluster.gpus}])
    actors, least, most = _actor_range(compute.actors, node_pool.actors * cluster.nodes)
    return replace(node_pool, actors=actors, least=least, most=most)


def plan_decoders(compute: ComputeSpec, nodes: list[dict[str, float]], labelling: Pool) -> Pool | None:
    """The pool of actors that only decode: one per CPU, less one; None where `compute.decoders` is 0.

    Raises:
        ClusterError: the actors with models have neither GPUs nor custom resources.
    """
    if compute.decoders == 0:
        return None
    if not labelling.num_gpus and not labelling.resources:
        raise ClusterError(
            "compute.decoders is for models on GPUs, and the Ray cluster has none; on CPUs images are "
            "decoded where they are labelled. Leave compute.decoders out, or set compute.resources to the "
            "custom resource of the nodes that label"
        )
    cores = [int(node.get("CPU", 0)) for node in nodes]
    room = sum(cores) - 1
    actors, least, most = _actor_range(compute.decoders, max(1, room))
    cpus = min(1, room / actors)  # more actors than CPUs share them
    return Pool(actors, least, most, cpus, 0, threads=1, memory_share=1 / max(cores))


def _cpu_pool(compute: ComputeSpec, nodes: list[dict[str, float]]) -> Pool:
    """One actor per CPU, or per `compute.cpus` CPUs."""
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise ClusterError("the Ray cluster has no CPU to run on; `ray status` shows its resources")
    cpus = 1 if compute.cpus == "auto" else compute.cpus
    num_cpus = cpus * (min(cores) - 1) / min(cores)
    if isinstance(compute.actors, int):  # more actors than CPUs share them
        num_cpus = min(num_cpus, (sum(cores) - len(cores)) / compute.actors)
    room = sum(
        min(int(node.get("CPU", 0)) // cpus, _actors_that_fit(compute.resources, node)) for node in nodes
    )
    share = cpus / max(cores)
    return Pool(*_actor_range(compute.actors, room), num_cpus, 0, cpus, share, compute.resources)


def _gpu_pool(compute: ComputeSpec, nodes: list[dict[str, float]]) -> Pool:
    """One actor per GPU of the nodes there are, or where `compute.actors` is a range, of nodes to come."""
    if not nodes and (compute.cpus == "auto" or not isinstance(compute.actors, ActorRange)):
        raise ClusterError(
            "compute.device is cuda, but the Ray cluster has no GPU; allowed here: auto, cpu. If nodes "
            "with GPUs will join later, set compute.actors to {min: 1, max: N}, and compute.cpus to the CPUs "
            "per GPU"
        )
    room = sum(min(int(node["GPU"]), _actors_that_fit(compute.resources, node)) for node in nodes)
    if compute.cpus == "auto":
        share = int(min(node.get("CPU", 0) // node["GPU"] for node in nodes))
    else:
        share = compute.cpus
    cpus = share - 1 if share > 1 else share / 2
    memory = 1 / max((int(node["GPU"]) for node in nodes), default=1)
    return Pool(*_actor_range(compute.actors, room), cpus, 1, max(1, share - 1), memory, compute.resources)


def _actors_that_fit(resources: dict[str, float], node: dict[str, float]) -> int:
    """How many actors with these custom resources fit on a node."""
    return min((int(node.get(name, 0) / amount) for name, amount in resources.items()), default=sys.maxsize)


def _actor_range(actors: int | ActorRange | str, room: int) -> tuple[int, int, int]:
    """The initial, minimum and maximum number of actors where `room` of them fit."""
    match actors:
        case ActorRange(min=least, max=most):
            return min(max(room, least), most), least, most
        case int(count):
            return count, count, count
        case _:
            return room, room, room
