"""Units to results, and the images found that crash what labels them. Knows nothing of Ray.

This process stays light: images and models are in a child of it, which may crash.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from schemas.errors import RowError
from schemas.exceptions import ModelError, ProcessDiedError
from schemas.metrics import NOTHING, Spent
from schemas.plan import Work
from schemas.spec import ClassifierSpec, ComputeSpec, DecodeSpec, DetectorSpec, FetchSpec, Places, Runtime
from workers.arena import Arena
from workers.child import Child, Note
from workers.handed import Handed, handed, new_arena
from workers.manifest import Manifest
from workers.nursery import LABELLER, Nursery
from workers.places import reach
from workers.results import ResultColumns, results_table

LEAST_CHUNK = 8
"""Images that go through a stage one after another: what is done once for all costs too much for one."""

EXPORTED_FROM = 64
"""Rows of a run from which on networks are made ready for another runtime by themselves: that takes an actor
about a second, and saves less on a few images."""

TRIES = 2
"""Of a whole unit, and of a row by itself, whose process died: it may not have been its fault."""

HOPELESS = 3
"""Rows that crashed one after another in an actor that labelled none: then it is not the images."""


class Request(NamedTuple):
    """What is asked of a process that labels.

    Attributes:
        unit: its number.
        rows: manifest rows of it, ascending.
        then: manifest rows that will probably be asked for next.
        decoded: the images of the rows, where another process decoded them.
    """

    unit: int
    rows: Sequence[int]
    then: Sequence[int] = ()
    decoded: Handed | None = None

    def part(self, start: int, stop: int) -> "Request":
        """The same for some of the rows, by their places."""
        decoded = self.decoded and self.decoded.part(start, stop)
        return Request(self.unit, self.rows[start:stop], (), decoded)


Label = Callable[[Request, Note], tuple[pa.Table, Spent]]
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
        nursery: the address of the driver's; an actor on another machine has one of its own.
    """

    manifest: Manifest
    work: Work
    classifier: ClassifierSpec | None
    detector: DetectorSpec | None
    fingerprints: tuple[str, ...]
    fetch: FetchSpec
    places: Places
    decode: DecodeSpec
    compute: ComputeSpec
    device: str
    runtime: Runtime
    threads: int
    memory_share: float
    nursery: str

    @property
    def batch_size(self) -> int:
        """Images that a model is given at once."""
        return self.compute.images_at_once(self.device)

    @property
    def chunk_size(self) -> int:
        """Images that are decoded, then classified, then sent through the detector, before the next ones."""
        return max(LEAST_CHUNK, self.batch_size)

    @property
    def reading(self) -> tuple[FetchSpec, DecodeSpec, str, int, int]:
        """The arguments of a `workers.images.ImageReader`."""
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


class UnitsInChild(ABC):
    """Has a process of its own do whole units, and finds the images that make that process die.

    A unit whose process died is tried once more in a new one, since anything may kill a process. If that
    dies too, the unit is halved, and halved again, at the borders of chunks while it is longer than one, so
    that the other images are labelled in the batches that they would have been in. A row that dies by itself
    becomes a row of the errors table.

    Args:
        settings: the part of the job that is this actor's.
        build: called in the child with the settings; gives what does rows of a unit there, and tells what was
            spent since it was asked last.
    """

    def __init__(self, settings: LabelSettings, build: Callable[[LabelSettings], Any]) -> None:
        self._settings = settings
        self._build = build
        self._own_nursery: Nursery | None = None
        self._child: Child | None = self._new_child()
        self._succeeded = False
        self._crashed = 0
        self._spent = NOTHING

    @abstractmethod
    def _failed(self, unit: int, row: int, error: RowError) -> pa.Table:
        """What is given for a row of a unit that the process died of, every time."""

    def _done(self, request: Request) -> pa.Table:
        return pa.concat_tables(self._parts(request, TRIES))

    def _parts(self, request: Request, tries: int) -> list[pa.Table]:
        """What some rows of a unit come to; smaller and smaller parts of them while the process dies."""
        count = len(request.rows)
        for _ in range(TRIES if count == 1 else tries):
            try:
                results: pa.Table = self._ask(request)
            except ProcessDiedError as death:
                last = death
            else:
                self._succeeded |= results["error"].null_count > 0
                return [results]
        if count == 1:
            return [self._crash(request.unit, request.rows[0], last)]
        cut = middle(count, self._settings.chunk_size)
        return self._parts(request.part(0, cut), 1) + self._parts(request.part(cut, count), 1)

    def take_spent(self) -> Spent:
        """What was spent since this was called last; not what a process had spent when it died."""
        spent, self._spent = self._spent, NOTHING
        return spent

    def close(self) -> None:
        """Ends the process, and the nursery if it is this actor's own."""
        if self._child:
            self._child.end()
        if self._own_nursery:
            self._own_nursery.end()

    def _ask(self, request: Request) -> Any:
        self._child = self._child or self._new_child()
        try:
            done, spent = self._child(request)
        except ProcessDiedError:
            self._child.end()
            self._child = None
            raise
        self._spent += spent
        return done

    def _crash(self, unit: int, row: int, death: ProcessDiedError) -> pa.Table:
        self._crashed += 1
        if not self._succeeded and self._crashed >= HOPELESS:
            raise ModelError(
                f"the labelling process died at each of the first {HOPELESS} images, the last time in stage "
                f"{death.stage} ({death.message}): the models, their libraries or the machine are at fault"
            )
        message = f"the process that was given this image alone died ({death.message}), {TRIES} times"
        return self._failed(unit, row, RowError(death.stage, death.code, message, TRIES, datetime.now(UTC)))

    def _new_child(self) -> Child:
        address = self._own_nursery.address if self._own_nursery else self._settings.nursery
        try:
            return Child(address, self._build, self._settings, self._settings.memory_share)
        except OSError:  # it is on another machine, or was killed
            self._own_nursery = Nursery(LABELLER)
            return Child(self._own_nursery.address, self._build, self._settings, self._settings.memory_share)


class LabelUnits(UnitsInChild):
    """Labels whole units.

    Args:
        settings: the part of the job that is this actor's.
        build: called in the child with the settings; gives what labels rows of a unit there.
    """

    def __init__(
        self, settings: LabelSettings, build: Callable[[LabelSettings], Label] | None = None
    ) -> None:
        super().__init__(settings, build or _labeller)
        self._arena: Arena | None = None

    def __call__(self, unit: int, then: int | None = None, decoded: pa.Table | None = None) -> pa.Table:
        """The results of a unit.

        Args:
            unit: its number.
            then: the unit that will be asked for next, where that is known: its files are read meanwhile.
            decoded: its images under `schemas.tables.DECODED`, where another process decoded them.

        Returns:
            One row a manifest row under `schemas.tables.results_schema`.

        Raises:
            ModelError: the models cannot be loaded here, are not the ones that the driver resolved, or crash
                at every image.
        """
        rows_of = self._settings.work.rows_of_unit
        given = None if decoded is None else self._handed(decoded)
        return self._done(Request(unit, rows_of(unit), () if then is None else rows_of(then), given))

    def _handed(self, decoded: pa.Table) -> Handed:
        self._arena = self._arena or new_arena()
        return handed(decoded, self._arena)

    def _failed(self, unit: int, row: int, error: RowError) -> pa.Table:
        manifest = self._settings.manifest
        columns = ResultColumns(None, None, manifest.carried)
        return results_table(unit, manifest.read([row]).table, [error], columns)


def runtime_of(compute: ComputeSpec, rows: int) -> Runtime:
    """What computes the networks of a run of so many rows; the same in every attempt at it."""
    return "torch" if compute.runtime == "auto" and rows < EXPORTED_FROM else compute.runtime


def middle(count: int, chunk: int) -> int:
    """Where to halve some rows: at the border of a chunk, where they are more than one."""
    half = count // 2
    return half if count <= chunk else max(half // chunk, 1) * chunk


def _labeller(settings: LabelSettings) -> Label:
    """What the child does: only there is torch imported."""
    from workers.labeller import Labeller

    reach(settings.places)
    return Labeller(settings)
