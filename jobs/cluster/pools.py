"""How many actors some nodes have room for, and what each asks of Ray: arithmetic."""

import sys
from dataclasses import dataclass, field, replace

from schemas.exceptions import RaylabelError
from schemas.prediction import Cluster
from schemas.spec import ActorRange, ComputeSpec


@dataclass(frozen=True)
class Pool:
    """How many actors of a kind there are, and what each asks of Ray.

    Attributes:
        actors: at first.
        least: that there must be.
        most: that there may be, as the cluster grows.
        num_cpus: of each actor.
        num_gpus: of each actor; 0 on CPUs.
        threads: that each actor may compute with, or decode with beside a GPU.
        memory_share: the part of its node's memory that each actor may count on.
        resources: of each actor; Ray's custom ones.
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
    """How many actors with models some nodes have room for: one a GPU, or one a CPU where there is no GPU.

    On a CPU node the actors together ask for one CPU less than it has; beside a GPU an actor decodes with
    its share of the CPUs but one. The task that hands out bundles has it. Where others decode, the actors ask
    for no CPU: their GPUs or `resources` say how many there are, and decoders cannot keep them from a node.

    Args:
        compute: device, number of actors and what they ask for, where the user sets it.
        nodes: resources of each node, as Ray names them: "CPU", "GPU".

    Raises:
        RaylabelError: a GPU or a resource is asked for and there is none, or there is no CPU.
    """
    fitting = [node for node in nodes if _times(compute.resources, node)]
    if nodes and not fitting and not isinstance(compute.actors, ActorRange):
        known = sorted({name for node in nodes for name in node if not name.startswith("node:")})
        raise RaylabelError(
            f"compute.resources asks for {compute.resources}, which no node of the Ray cluster has; there "
            f"are: {', '.join(known)}. Where such nodes are to come, set compute.actors to {{min: 1, max: N}}"
        )
    gpus = [node for node in fitting if node.get("GPU", 0) >= 1]
    if compute.device != "cpu" and (gpus or compute.device == "cuda"):
        pool = _gpu_pool(compute, gpus)
    else:
        pool = _cpu_pool(compute, fitting or nodes)
    return replace(pool, num_cpus=0) if compute.decoders else pool


def pool_on(compute: ComputeSpec, cluster: Cluster) -> Pool:
    """The actors with models on a cluster that is only thought of, each of which decodes for itself.

    Its nodes have the custom resources that are asked for.

    Raises:
        RaylabelError: see `plan_pool`.
    """
    alone = compute.model_copy(update={"actors": "auto", "resources": {}, "decoders": 0})
    one = plan_pool(alone, [{"CPU": cluster.cpus, "GPU": cluster.gpus}])
    actors, least, most = _wanted(compute.actors, one.actors * cluster.nodes)
    return replace(one, actors=actors, least=least, most=most)


def plan_decoders(compute: ComputeSpec, nodes: list[dict[str, float]], labelling: Pool) -> Pool | None:
    """How many actors that only decode some nodes have room for: one a CPU, but one; None where none are.

    Raises:
        RaylabelError: nothing but CPUs says how many actors label.
    """
    if compute.decoders == 0:
        return None
    if not labelling.num_gpus and not labelling.resources:
        raise RaylabelError(
            "compute.decoders is for models on GPUs, and the Ray cluster has none; on CPUs images are "
            "decoded where they are labelled. Leave compute.decoders out, or set compute.resources to what "
            "marks the nodes that label"
        )
    cores = [int(node.get("CPU", 0)) for node in nodes]
    room = sum(cores) - 1
    actors, least, most = _wanted(compute.decoders, max(1, room))
    each = min(1, room / actors)  # more than there is room for share it
    return Pool(actors, least, most, each, 0, threads=1, memory_share=1 / max(cores))


def _cpu_pool(compute: ComputeSpec, nodes: list[dict[str, float]]) -> Pool:
    """One actor a CPU, or for as many as each is to have."""
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise RaylabelError("the Ray cluster has no CPU to run on; `ray status` shows its resources")
    cpus = 1 if compute.cpus == "auto" else compute.cpus
    each = cpus * (min(cores) - 1) / min(cores)
    if isinstance(compute.actors, int):  # more than there is room for share it
        each = min(each, (sum(cores) - len(cores)) / compute.actors)
    room = sum(min(int(node.get("CPU", 0)) // cpus, _times(compute.resources, node)) for node in nodes)
    share = cpus / max(cores)
    return Pool(*_wanted(compute.actors, room), each, 0, cpus, share, compute.resources)


def _gpu_pool(compute: ComputeSpec, nodes: list[dict[str, float]]) -> Pool:
    """One actor a GPU, on nodes that are there or, where the number of actors is a range, that will come."""
    if not nodes and (compute.cpus == "auto" or not isinstance(compute.actors, ActorRange)):
        raise RaylabelError(
            "compute.device is cuda, but the Ray cluster has no GPU; allowed here: auto, cpu. Where nodes "
            "with GPUs are to come, set compute.actors to {min: 1, max: N}, and compute.cpus to the CPUs "
            "beside each GPU"
        )
    room = sum(min(int(node["GPU"]), _times(compute.resources, node)) for node in nodes)
    if compute.cpus == "auto":
        share = int(min(node.get("CPU", 0) // node["GPU"] for node in nodes))
    else:
        share = compute.cpus
    cpus = share - 1 if share > 1 else share / 2
    memory = 1 / max((int(node["GPU"]) for node in nodes), default=1)
    return Pool(*_wanted(compute.actors, room), cpus, 1, max(1, share - 1), memory, compute.resources)


def _times(resources: dict[str, float], node: dict[str, float]) -> int:
    """How many actors that ask for some custom resources a node has room for."""
    return min((int(node.get(name, 0) / amount) for name, amount in resources.items()), default=sys.maxsize)


def _wanted(actors: int | ActorRange | str, room: int) -> tuple[int, int, int]:
    """How many actors there are at first, at least and at most, of those that there is room for."""
    match actors:
        case ActorRange(min=least, max=most):
            return min(max(room, least), most), least, most
        case int(count):
            return count, count, count
        case _:
            return room, room, room
