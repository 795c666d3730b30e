"""What `raylabel plan` measures, predicts, and saves for the run's report."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, field_validator

from schemas.words import counted


@dataclass(frozen=True)
class Cluster:
    """A cluster of equal nodes that a job may run on.

    Attributes:
        nodes: number of nodes.
        cpus: cores of each node.
        gpus: GPUs of each node.
        network_gbps: bandwidth of each node, gigabits per second; None: unknown.
        price: of a node-hour, in any currency; None: unknown.
    """

    nodes: int
    cpus: int
    gpus: int = 0
    network_gbps: float | None = None
    price: float | None = None

    def __str__(self) -> str:
        gpus = f" and {counted(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{counted(self.nodes, 'node')} of {counted(self.cpus, 'CPU')}{gpus}"


@dataclass(frozen=True)
class Costs:
    """What one row of a manifest takes, on average; rows that fail count too.

    Attributes:
        fetch_s: seconds from the request for its file until it is read.
        file_bytes: size of its file.
        fetch_cpu_s: core seconds to read the file.
        decode_cpu_s: core seconds from bytes to pixels.
        own_cpu_s: core seconds of raylabel and Ray themselves.
        models: core or GPU seconds by model name; None: unknown for the device that will run them.
    """

    fetch_s: float
    file_bytes: float
    fetch_cpu_s: float
    decode_cpu_s: float
    own_cpu_s: float
    models: dict[str, float] | None


@dataclass(frozen=True)
class Prediction:
    """The predicted speed and duration of a job on a cluster.

    Attributes:
        cluster: the cluster.
        rows: of the manifest.
        images_per_s: while it labels.
        startup_s: seconds before it labels.
        seconds: duration, startup included.
        bottleneck: what limits the speed: a key of `utilization`, or "units".
        utilization: used share of each resource, 0 to 1.
        cpu_parts: core seconds per image, by part.
        model_parts: core or GPU seconds per image, by model; None: unknown, and `images_per_s` is an upper
            bound, as if the models took no time.
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
        """Hours of all nodes together."""
        return self.cluster.nodes * self.seconds / 3600

    @property
    def cpu_hours(self) -> float:
        """Hours of all cores together, as they are paid for: idle ones too."""
        return self.cluster.cpus * self.node_hours

    @property
    def gpu_hours(self) -> float:
        """Hours of all GPUs together, as they are paid for: idle ones too."""
        return self.cluster.gpus * self.node_hours

    @property
    def cost(self) -> float | None:
        """Price of all node-hours; None where the price of one is unknown."""
        return None if self.cluster.price is None else self.cluster.price * self.node_hours


class SavedPrediction(BaseModel):
    """`_work/prediction.json`: the prediction that a run's report compares with the run.

    Attributes:
        job: `jobs.prepare.resolve.ResolvedJob.digest`; the prediction is not used for another job.
        at: when it was made, UTC.
        prediction: the prediction.
    """

    model_config = ConfigDict(frozen=True)

    job: str
    at: datetime
    prediction: Prediction

    @field_validator("prediction")
    @classmethod
    def _has_a_speed(cls, prediction: Prediction) -> Prediction:
        if not prediction.images_per_s > 0:
            raise ValueError("images_per_s must be above 0")
        return prediction


@dataclass(frozen=True)
class Probed:
    """What one process of a probe measured: sums over all images that it was given.

    Attributes:
        images: number of images.
        failed: number of failed images, by error code.
        example: an image that failed and why; "" where none did.
        fetch_s: mean seconds from the request for a file until it is read; without the first files, which
            open connections.
        file_bytes: size of all files.
        fetch_cpu_s: core seconds to read the files.
        decode_cpu_s: core seconds from bytes to pixels.
        models: seconds by model name; of a core where they run on the CPU, otherwise of the GPU.
        work_s: wall-clock seconds of decoding and labelling.
        work_cpu_s: core seconds in that time; fewer where other processes used the cores too.
        wrong: why a model that gets boxes, of which there were none, fails on a made-up one; "" where none
            does.
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
    wrong: str = ""
