"""What a labelling actor and its child are told, as plain values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from schemas.exceptions import ModelError
from schemas.metrics import Usage
from schemas.plan import Pass
from schemas.spec import ClassifierSpec, ComputeSpec, DecodeSpec, DetectorSpec, FetchSpec, Runtime, StorageMap
from workers.label.transfer import SharedImages
from workers.manifest.manifest import Manifest
from workers.process.serve import StageCallback

MIN_CHUNK = 8
"""Images that go through a stage one after another: what is done once for all costs too much for one."""

MIN_ROWS_TO_EXPORT = 64
"""Rows of a run from which on networks are made ready for another runtime by themselves: that takes an actor
about a second, and saves less on a few images."""


class Request(NamedTuple):
    """What is asked of a process that labels.

    Attributes:
        unit: its number.
        rows: manifest rows of it, ascending.
        prefetch: manifest rows that will probably be asked for next.
        decoded: the images of the rows, where another process decoded them.
    """

    unit: int
    rows: Sequence[int]
    prefetch: Sequence[int] = ()
    decoded: SharedImages | None = None

    def part(self, start: int, stop: int) -> "Request":
        """The same for some of the rows, by their places."""
        decoded = self.decoded and self.decoded.part(start, stop)
        return Request(self.unit, self.rows[start:stop], (), decoded)


Label = Callable[[Request, StageCallback], tuple[pa.Table, Usage]]
"""Gives the results of the rows that it is asked for, and what was spent since it was asked last."""


@dataclass(frozen=True)
class LabelSettings:
    """What a labelling actor needs of the job.

    Attributes:
        manifest: where the rows of a unit are read from.
        work: which rows of a unit are to be done.
        classifier: None where none runs.
        detector: None where none runs.
        fingerprints: of the models, as the driver resolved them.
        fetch: how files are read; `rate` is this actor's share.
        places: how the files below a URL are reached.
        decode: how files become pixels.
        compute: batch size and precision.
        device: "cpu" or "cuda".
        runtime: what computes the networks.
        threads: to compute with on a CPU, to decode with where a GPU computes.
        memory_share: the part of a machine's memory that one actor may count on.
        fork_server: the address of the driver's; an actor on another machine has one of its own.
    """

    manifest: Manifest
    work: Pass
    classifier: ClassifierSpec | None
    detector: DetectorSpec | None
    fingerprints: tuple[str, ...]
    fetch: FetchSpec
    places: StorageMap
    decode: DecodeSpec
    compute: ComputeSpec
    device: str
    runtime: Runtime
    threads: int
    memory_share: float
    fork_server: str

    @property
    def batch_size(self) -> int:
        """Images that a model is given at once."""
        return self.compute.images_at_once(self.device)

    @property
    def chunk_size(self) -> int:
        """Images that are decoded, then classified, then sent through the detector, before the next ones."""
        return max(MIN_CHUNK, self.batch_size)

    @property
    def reading(self) -> tuple[FetchSpec, DecodeSpec, str, int, int]:
        """The arguments of a `workers.label.reader.ImageReader`."""
        return self.fetch, self.decode, self.device, self.threads, self.chunk_size

    def assert_same_models(self, built: tuple[str, ...]) -> None:
        """Refuses to label with other models than the run's, by their fingerprints.

        Raises:
            ModelError: one differs.
        """
        if built != self.fingerprints:
            raise ModelError(
                f"a worker built {built} where the driver resolved {self.fingerprints}: the weights or the "
                "installed libraries differ between machines, or changed during the run"
            )


def runtime_of(compute: ComputeSpec, rows: int) -> Runtime:
    """What computes the networks of a run of so many rows; the same in every attempt at it."""
    return "torch" if compute.runtime == "auto" and rows < MIN_ROWS_TO_EXPORT else compute.runtime
