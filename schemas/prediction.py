"""What `raylabel plan` measures and predicts, and what of it is kept for the run's report."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class Cluster:
    """Machines that a job may run on, all alike.

    Attributes:
        nodes: how many.
        cpus: cores of each.
        gpus: of each.
        network_gbps: what each can read from storage, gigabits a second; None: not known.
        price: of each for an hour, in any currency; None: not known.
    """

    nodes: int
    cpus: int
    gpus: int = 0
    network_gbps: float | None = None
    price: float | None = None

    def __str__(self) -> str:
        gpus = f" and {_counted(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{_counted(self.nodes, 'node')} of {_counted(self.cpus, 'CPU')}{gpus}"


@dataclass(frozen=True)
class Costs:
    """What one row of a manifest takes, on average; rows that fail count too.

    Attributes:
        fetch_s: from the request for its file until that is read, seconds.
        file_bytes: of its file.
        fetch_cpu_s: of a core, to read the file.
        decode_cpu_s: of a core, from bytes to pixels.
        own_cpu_s: of a core, for raylabel and Ray themselves.
        models: by name, seconds of a core or of a GPU; None: not known for the device that is to run them.
    """

    fetch_s: float
    file_bytes: float
    fetch_cpu_s: float
    decode_cpu_s: float
    own_cpu_s: float
    models: dict[str, float] | None


@dataclass(frozen=True)
class Prediction:
    """How a job would go on a cluster.

    Attributes:
        cluster: the cluster.
        rows: of the manifest.
        images_per_s: while it labels.
        startup_s: before that.
        seconds: all in all.
        bottleneck: what it cannot be faster for: a key of `utilization`, or "units".
        utilization: how much of each resource is used, 0 to 1.
        cpu_parts: seconds of a core that an image takes, by part.
        model_parts: seconds that an image takes in each model; None: not known, and `images_per_s` is what
            all else would allow.
    """

    cluster: Cluster
    rows: int
    images_per_s: float
    startup_s: float
    seconds: float
    bottleneck: str
    utilization: dict[str, float]
    cpu_parts: dict[str, float]
    model_parts: dict[str, float] | None

    @property
    def node_hours(self) -> float:
        """Of all nodes together."""
        return self.cluster.nodes * self.seconds / 3600

    @property
    def cpu_hours(self) -> float:
        """Of all cores together, as they are paid for."""
        return self.cluster.cpus * self.node_hours

    @property
    def gpu_hours(self) -> float:
        """Of all GPUs together, as they are paid for."""
        return self.cluster.gpus * self.node_hours

    @property
    def cost(self) -> float | None:
        """What the nodes cost; None where no price is known."""
        return None if self.cluster.price is None else self.cluster.price * self.node_hours


class KeptPrediction(BaseModel):
    """`_work/prediction.json`: what was predicted of a job, until its run can say how it went.

    Attributes:
        job: see `jobs.prepare.resolve.ResolvedJob.digest`; a prediction is of no use for another job.
        at: when it was made, UTC.
        prediction: the prediction.
    """

    model_config = ConfigDict(frozen=True)

    job: str
    at: datetime
    prediction: Prediction


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Probed:
    """What a process measured, in seconds over all the images that it was given.

    Attributes:
        images: how many.
        failed: of them failed, by code.
        example: one that failed and why; "" where none did.
        fetch_s: the mean from asking for a file until it is read; not of the first, which open connections.
        file_bytes: of all files.
        fetch_cpu_s: of a core.
        decode_cpu_s: of a core.
        models: by name; of a core where they run on the CPU, otherwise of the GPU.
        work_s: while it decoded and labelled, on the clock.
        work_cpu_s: of a core, in that time; less where other processes wanted the cores too.
    """

    images: int
    failed: dict[str, int]
    example: str
    fetch_s: float
    file_bytes: int
    fetch_cpu_s: float
    decode_cpu_s: float
    models: dict[str, float]
    work_s: float
    work_cpu_s: float
