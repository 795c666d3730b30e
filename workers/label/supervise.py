"""The parents: they have a child process do units, and find the images that crash it. Knows nothing of Ray.

The parent's process stays light: images and models are in its child, which may crash.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from schemas.errors import ErrorCode, RowError, Stage
from schemas.exceptions import ImageError, ModelError, ProcessDiedError
from schemas.metrics import NO_USAGE, Usage
from schemas.tables import DECODED
from workers import logs
from workers.label.children import build_decoder, build_labeller
from workers.label.settings import LabelFunction, LabelSettings, UnitRequest
from workers.label.transfer import SharedImages, from_shared, new_buffer, to_shared
from workers.process.child import HANG_TIMEOUT_S, Child
from workers.process.forkserver import LABELLER_MODULE, ForkServer
from workers.process.shared_buffer import SharedBuffer
from workers.tables.results import error_values, results_table

MAX_ATTEMPTS = 2
"""At a whole unit, and at a single row, whose process dies: something else may have killed it."""

MAX_CRASHES_BEFORE_SUCCESS = 3
"""Rows in succession that crash in an actor that has labelled none: then the images are not the cause."""

_log = logging.getLogger(__name__)


class SupervisedUnits(ABC):
    """Has a child process do whole units, and finds the rows that crash it.

    A unit whose process dies is tried once more in a new one, since anything may kill a process. If that one
    dies too, the unit is bisected until the crashing rows stand alone. Such a row becomes a row of the errors
    table. So does, at once, a row that alone was worked at for longer than its time.

    Args:
        settings: the part of the job that is this actor's.
        build: called in the child with the settings; returns a function that takes a `UnitRequest` and a
            `StageCallback`, and returns the results with the usage since its previous call.
    """

    def __init__(self, settings: LabelSettings, build: Callable[[LabelSettings], Any]) -> None:
        self._settings = settings
        self._build = build
        self._own_fork_server: ForkServer | None = None
        self._child: Child | None = self._new_child()
        self._succeeded = False
        self._crashed: list[int] = []
        self._usage = NO_USAGE

    def take_usage(self) -> Usage:
        """Returns the usage since the previous call, without that of processes that died."""
        usage, self._usage = self._usage, NO_USAGE
        return usage

    def close(self) -> None:
        """Ends the process, and the fork server if it is this actor's own."""
        if self._child:
            self._child.end()
        if self._own_fork_server:
            self._own_fork_server.end()

    @abstractmethod
    def _failed(self, unit: int, row: int, error: RowError) -> pa.Table:
        """The results of a row that crashes the process every time."""

    def _run(self, request: UnitRequest) -> pa.Table:
        """The results of a whole unit."""
        crashed_before = len(self._crashed)
        with logs.in_unit(request.unit):
            results = pa.concat_tables(self._bisect(request, MAX_ATTEMPTS))
            if crashed := self._crashed[crashed_before:]:
                _log.warning("these of its %d rows crash the process: %s", len(request.rows), crashed)
        return results

    def _bisect(self, request: UnitRequest, attempts: int) -> list[pa.Table]:
        """The results of some rows, in one table or, where the process died, in those of their two halves.

        A half is tried once: that its rows hold one that crashes is likely by now, and an accident of the
        process leads to smaller parts, not to a lost row. Only a single row is given another chance.
        """
        count = len(request.rows)
        left = MAX_ATTEMPTS if count == 1 else attempts
        while left:
            try:
                results: pa.Table = self._ask(request)
            except ProcessDiedError as death:
                if death.row is not None:
                    request = self._given_up(request, death.row, death)
                    continue
                left, last = left - 1, death
                _log.warning("the process died in stage %s (%s): %s", death.stage, death.code, _span(request))
            else:
                self._succeeded |= results["error"].null_count > 0
                return [results]
        if count == 1:
            return [self._crash(request.unit, request.rows[0], last)]
        cut = split_point(count, self._settings.chunk_size)
        _log.warning("bisecting %s at row %d", _span(request), request.rows[cut])
        return self._bisect(request.part(0, cut), 1) + self._bisect(request.part(cut, count), 1)

    def _given_up(self, request: UnitRequest, row: int, death: ProcessDiedError) -> UnitRequest:
        """The request without a row that took too long."""
        _log.warning("row %d %s in stage %s: it has failed", row, death.message, death.stage)
        if death.stage != Stage.DECODE:  # a model that is slow at everything is at fault itself
            self._blame(row, death)
        message = f"{death.message}; its process was killed"
        return request.without(row, ImageError(death.stage, death.code, message))

    def _ask(self, request: UnitRequest) -> Any:
        self._child = self._child or self._new_child()
        try:
            results, usage = self._child(request)
        except ProcessDiedError:
            self._child.end()
            self._child = None
            raise
        self._usage += usage
        return results

    def _crash(self, unit: int, row: int, death: ProcessDiedError) -> pa.Table:
        self._blame(row, death)
        message = f"the process died on this image alone ({death.message}), {MAX_ATTEMPTS} times"
        return self._failed(
            unit, row, RowError(death.stage, death.code, message, MAX_ATTEMPTS, datetime.now(UTC))
        )

    def _blame(self, row: int, death: ProcessDiedError) -> None:
        """Counts a row that a process died of; raises ModelError where it was not the row's fault."""
        self._crashed.append(row)
        if not self._succeeded and len(self._crashed) >= MAX_CRASHES_BEFORE_SUCCESS:
            raise ModelError(
                f"the labelling process crashed on each of the first {MAX_CRASHES_BEFORE_SUCCESS} images, "
                f"the last time in stage {death.stage} ({death.message}). The cause is the models, their "
                "libraries or the machine"
            )

    def _new_child(self) -> Child:
        server = self._own_fork_server
        try:
            return self._child_of(server.address if server else self._settings.fork_server)
        except OSError:  # the driver's fork server is on another machine; or the one used so far was killed
            if server:
                server.end()
            self._own_fork_server = ForkServer(LABELLER_MODULE)
            return self._child_of(self._own_fork_server.address)

    def _child_of(self, fork_server: str) -> Child:
        return Child(
            fork_server, self._build, self._settings, self._settings.memory_share, self._settings.timeouts
        )


class LabelUnits(SupervisedUnits):
    """Labels whole units.

    Args:
        settings: the part of the job that is this actor's.
        build: called in the child with the settings; returns the function that labels rows there.
    """

    def __init__(
        self, settings: LabelSettings, build: Callable[[LabelSettings], LabelFunction] | None = None
    ) -> None:
        super().__init__(settings, build or build_labeller)
        self._buffer: SharedBuffer | None = None

    def __call__(self, unit: int, prefetch: int | None = None, decoded: pa.Table | None = None) -> pa.Table:
        """The results of a unit.

        Args:
            unit: its number.
            prefetch: the unit of the next call, where that is known: its files are read meanwhile.
            decoded: the unit's images under `schemas.tables.DECODED`, where another process decoded them.

        Returns:
            One row a manifest row under `schemas.tables.RunTables.results`.

        Raises:
            ModelError: the models cannot be loaded here, are not the ones that the driver resolved, or crash
                on every image.
        """
        rows_of = self._settings.current.rows_of_unit
        prefetch_rows: Sequence[int] = () if prefetch is None else rows_of(prefetch)
        shared = None if decoded is None else self._to_shared(decoded)
        return self._run(UnitRequest(unit, rows_of(unit), prefetch_rows, shared))

    def _to_shared(self, decoded: pa.Table) -> SharedImages:
        self._buffer = self._buffer or new_buffer()
        return to_shared(decoded, self._buffer)

    def _failed(self, unit: int, row: int, error: RowError) -> pa.Table:
        manifest = self._settings.manifest
        return results_table(unit, manifest.read([row]).for_results(), [error], self._settings.tables)


class DecodeUnits(SupervisedUnits):
    """Fetches and decodes whole units.

    Args:
        settings: the part of the job that is this actor's.
        build: called in the child with the settings; returns the function that decodes rows there.
    """

    def __init__(self, settings: LabelSettings, build: Callable[[LabelSettings], Any] | None = None) -> None:
        super().__init__(settings, build or build_decoder)

    def __call__(self, unit: int) -> pa.Table:
        """The images of a unit, valid until the next call: that one overwrites their memory.

        Args:
            unit: its number.

        Returns:
            One row a manifest row under `schemas.tables.DECODED`.

        Raises:
            ModelError: the process dies on every image.
        """
        return self._run(UnitRequest(unit, self._settings.current.rows_of_unit(unit)))

    def _ask(self, request: UnitRequest) -> pa.Table:
        shared = super()._ask(request)
        try:
            decoded = from_shared(shared)
        except OSError as error:
            message = f"it ended before its answer was read: {error}"
            raise ProcessDiedError(Stage.DECODE, ErrorCode.WORKER_CRASHED, message) from None
        if len(request.rows) == len(self._settings.current.rows_of_unit(request.unit)):
            return decoded
        # A part of a unit is copied: the child's answer for the next part overwrites the same memory, and the
        # parts are only joined when all are done.
        return decoded.take(pa.array(range(len(decoded))))

    def _failed(self, unit: int, row: int, error: RowError) -> pa.Table:  # noqa: ARG002 - rows keep their order
        return pa.Table.from_pylist([{"error": error_values(error)}], DECODED)


def split_point(count: int, chunk: int) -> int:
    """Where to halve some rows: at the border of a chunk, where there is more than one.

    Batches are cut from chunks, and a model's answer to an image varies in its last digits with its batch.
    Cut at borders, the other images are labelled in the same batches as without a crash.
    """
    half = count // 2
    return half if count <= chunk else max(half // chunk, 1) * chunk


def longest_s(rows: int, timeouts: Mapping[Stage, float], parts: int = 1) -> float:
    """Seconds after which so many rows are done for sure: each takes its time, and one hangs its process.

    Args:
        rows: that an actor does before it answers.
        timeouts: see `workers.label.settings.LabelSettings.timeouts`.
        parts: of an image that each have the detector's time.
    """
    deaths = 2 * MAX_ATTEMPTS + rows.bit_length()  # of the whole, of each half that has the row, of the row
    detecting = (parts - 1) * timeouts.get(Stage.DETECT, 0)
    return rows * (sum(timeouts.values()) + detecting) + deaths * (HANG_TIMEOUT_S + max(timeouts.values()))


def _span(request: UnitRequest) -> str:
    """The rows of a request, for a log line."""
    first, last = request.rows[0], request.rows[-1]
    return f"row {first}" if first == last else f"{len(request.rows)} rows, {first} to {last}"
