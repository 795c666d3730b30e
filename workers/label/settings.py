"""The settings and requests of labelling actors and their children, as plain values."""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from schemas.errors import Stage
from schemas.exceptions import ImageError, ModelError
from schemas.identity import PILLOW_HEIF
from schemas.metrics import Usage
from schemas.models import EncodedTexts
from schemas.plan import Pass
from schemas.spec import ComputeSpec, DecodeSpec, FetchSpec, Runtime, StorageMap
from schemas.tables import RunTables
from schemas.tasks import TASKS, DetectorSpec, ModelSpec, TilesSpec
from workers.decode.heif import installed
from workers.decode.picture import Limits
from workers.label.transfer import SharedImages
from workers.manifest.manifest import Manifest
from workers.process.memory import memory
from workers.process.serve import StageCallback

MIN_CHUNK = 8
"""Fewest images of a chunk: what a stage does once a chunk costs too much for a single image."""

MIN_ROWS_TO_EXPORT = 64
"""Fewest rows of a run for which "auto" exports the networks: an export takes an actor about a second, which
a few images do not save."""


NONE_FAILED: Mapping[int, ImageError] = {}


class UnitRequest(NamedTuple):
    """The rows of a unit that a child decodes or labels.

    Attributes:
        unit: its number.
        rows: its manifest rows to do, ascending.
        prefetch: manifest rows that will probably be requested next.
        decoded: the images of the rows, where another process decoded them.
        failed: why rows that the child is not to try again have failed.
    """

    unit: int
    rows: Sequence[int]
    prefetch: Sequence[int] = ()
    decoded: SharedImages | None = None
    failed: Mapping[int, ImageError] = NONE_FAILED

    def part(self, start: int, stop: int) -> "UnitRequest":
        """The request for some of its rows, by their positions in `rows`; without a prefetch."""
        decoded = self.decoded and self.decoded.part(start, stop)
        return UnitRequest(self.unit, self.rows[start:stop], (), decoded, self.failed)

    def without(self, row: int, error: ImageError) -> "UnitRequest":
        """The request with one more row that has failed."""
        return self._replace(failed={**self.failed, row: error})


LabelFunction = Callable[[UnitRequest, StageCallback], tuple[pa.Table, Usage]]
"""Returns the results of a request's rows, and the usage since its previous call."""


@dataclass(frozen=True)
class LabelSettings:
    """The part of a job that a labelling or decoding actor needs.

    Attributes:
        manifest: where the rows of a unit are read from.
        current: the pass, which says the rows of each unit to do.
        tables: of the run.
        models: those of the job, by name.
        fingerprints: theirs, in their order, as the driver resolved them.
        fetch: how files are read; `rate` is this actor's share.
        storage: how the files below each URL are reached.
        decode: how files become pixels.
        compute: batch size and precision.
        device: "cpu" or "cuda".
        runtime: what computes the networks.
        threads: to compute with on a CPU, to decode with where a GPU computes.
        memory_share: the part of the machine's memory that one child may use.
        fork_server: the address of the driver's; an actor on another machine starts its own.
        run_id: of run.json, for log lines; None where there is no run, as in `raylabel plan`.
        texts: the labels of zero-shot models as the driver encoded them, by the models' names.
        heif: what the driver decodes HEIC images with; see `workers.decode.heif.installed`.
    """

    manifest: Manifest
    current: Pass
    tables: RunTables
    models: Mapping[str, ModelSpec]
    fingerprints: tuple[str, ...]
    fetch: FetchSpec
    storage: StorageMap
    decode: DecodeSpec
    compute: ComputeSpec
    device: str
    runtime: Runtime
    threads: int
    memory_share: float
    fork_server: str
    run_id: str | None = None
    texts: Mapping[str, EncodedTexts] = field(default_factory=dict)
    heif: str | None = field(default_factory=installed)

    @property
    def batch_size(self) -> int:
        """Images in one batch of a model."""
        return self.compute.images_at_once(self.device)

    @property
    def chunk_size(self) -> int:
        """Images that are decoded, then sent through one model after the other, before the next chunk."""
        return max(MIN_CHUNK, self.batch_size)

    @property
    def held_pixels(self) -> int | None:
        """Pixels of images that a child is to hold at once, where they may be large; one image may have more.

        None: the number of images alone counts.
        """
        return self.decode.max_pixels if tiles_of(self.models) else None

    @property
    def most_parts(self) -> int:
        """The most parts of an image that a detector gets, where its sides are at least a tile's."""
        pixels = self.decode.max_pixels
        return 1 + max((tiles.most_in(pixels) for tiles in tiles_of(self.models)), default=0)

    @property
    def reading(self) -> tuple[FetchSpec, Limits, str, int, int, tuple[str, ...]]:
        """The arguments of a `workers.label.reader.ImageReader` on this machine."""
        decoders = self.threads if self.device == "cuda" else 1
        share = int(self.memory_share * memory().limit / decoders)
        limits = Limits(self.decode.max_pixels, share, self.held_pixels)
        return self.fetch, limits, self.device, self.threads, self.chunk_size, self.tables.facts

    @property
    def timeouts(self) -> dict[Stage, float]:
        """Processor seconds that one image may take in each stage; of one in tiles each part of it."""
        return {
            Stage.DECODE: self.decode.timeout_s,
            **{task.stage: self.compute.timeout_s for task in TASKS},
        }

    def describe(self) -> str:
        """The models and what runs them, for a log line."""
        models = ", ".join(self.fingerprints) or "none"
        return f"models {models}; device {self.device}, runtime {self.runtime}, {self.threads} threads"

    def assert_same_decoders(self) -> None:
        """Refuses to decode where HEIC images would come out otherwise than the run's identity says.

        Raises:
            ModelError: another version is installed here than where the run was started, or one is missing.
        """
        if (here := installed()) != self.heif:
            raise ModelError(
                f"{socket.gethostname()} decodes HEIC images with {_pillow_heif(here)}, the driver with "
                f"{_pillow_heif(self.heif)}: install the same on every node and where the job is started "
                "(pip install 'raylabel[heif]'), or on none"
            )

    def assert_same_models(self, built: tuple[str, ...]) -> None:
        """Refuses to label with other models than the run's, by their fingerprints.

        Raises:
            ModelError: one differs.
        """
        if built != self.fingerprints:
            raise ModelError(
                f"a worker built {built} where the driver resolved {self.fingerprints}: the weights, "
                "modules of your own or the installed libraries differ between machines, or changed during "
                "the run; or a factory builds another model at each call"
            )


def _pillow_heif(version: str | None) -> str:
    return f"{PILLOW_HEIF} {version}" if version else "nothing"


def runtime_of(compute: ComputeSpec, rows: int, models: Mapping[str, ModelSpec]) -> Runtime:
    """The runtime of a run with so many rows; the same in every attempt. An image in tiles is many."""
    has_few = rows < MIN_ROWS_TO_EXPORT and not tiles_of(models)
    return "torch" if compute.runtime == "auto" and has_few else compute.runtime


def tiles_of(models: Mapping[str, ModelSpec]) -> list[TilesSpec]:
    """The tiles of the detectors that have some."""
    detectors = (model for model in models.values() if isinstance(model, DetectorSpec))
    return [detector.tiles for detector in detectors if detector.tiles]
