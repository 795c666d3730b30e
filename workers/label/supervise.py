"""Units to results, and the images found that crash what labels them. Knows nothing of Ray.

This process stays light: images and models are in a child of it, which may crash.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from schemas.errors import ErrorCode, RowError, Stage
from schemas.exceptions import ModelError, ProcessDiedError
from schemas.metrics import NO_USAGE, Usage
from schemas.tables import DECODED
from workers.label.children import build_decoder, build_labeller
from workers.label.settings import Label, LabelSettings, Request
from workers.label.transfer import SharedImages, from_shared, new_buffer, to_shared
from workers.process.child import Child
from workers.process.forkserver import LABELLER_MODULE, ForkServer
from workers.process.shared_buffer import SharedBuffer
from workers.tables.results import ResultColumns, error_values, results_table

MAX_ATTEMPTS = 2
"""Of a whole unit, and of a row by itself, whose process died: it may not have been its fault."""

MAX_CRASHES_BEFORE_SUCCESS = 3
"""Rows that crashed one after another in an actor that labelled none: then it is not the images."""


class SupervisedUnits(ABC):
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
        self._own_fork_server: ForkServer | None = None
        self._child: Child | None = self._new_child()
        self._succeeded = False
        self._crashed = 0
        self._usage = NO_USAGE

    @abstractmethod
    def _failed(self, unit: int, row: int, error: RowError) -> pa.Table:
        """What is given for a row of a unit that the process died of, every time."""

    def _done(self, request: Request) -> pa.Table:
        return pa.concat_tables(self._parts(request, MAX_ATTEMPTS))

    def _parts(self, request: Request, tries: int) -> list[pa.Table]:
        """What some rows of a unit come to; smaller and smaller parts of them while the process dies."""
        count = len(request.rows)
        for _ in range(MAX_ATTEMPTS if count == 1 else tries):
            try:
                results: pa.Table = self._ask(request)
            except ProcessDiedError as death:
                last = death
            else:
                self._succeeded |= results["error"].null_count > 0
                return [results]
        if count == 1:
            return [self._crash(request.unit, request.rows[0], last)]
        cut = split_point(count, self._settings.chunk_size)
        return self._parts(request.part(0, cut), 1) + self._parts(request.part(cut, count), 1)

    def take_usage(self) -> Usage:
        """What was spent since this was called last; not what a process had spent when it died."""
        usage, self._usage = self._usage, NO_USAGE
        return usage

    def close(self) -> None:
        """Ends the process, and the nursery if it is this actor's own."""
        if self._child:
            self._child.end()
        if self._own_fork_server:
            self._own_fork_server.end()

    def _ask(self, request: Request) -> Any:
        self._child = self._child or self._new_child()
        try:
            done, usage = self._child(request)
        except ProcessDiedError:
            self._child.end()
            self._child = None
            raise
        self._usage += usage
        return done

    def _crash(self, unit: int, row: int, death: ProcessDiedError) -> pa.Table:
        self._crashed += 1
        if not self._succeeded and self._crashed >= MAX_CRASHES_BEFORE_SUCCESS:
            raise ModelError(
                f"the labelling process crashed on each of the first {MAX_CRASHES_BEFORE_SUCCESS} images, "
                f"the last time in stage {death.stage} ({death.message}). The cause is the models, their "
                "libraries or the machine"
            )
        message = f"the process that was given this image alone died ({death.message}), {MAX_ATTEMPTS} times"
        return self._failed(
            unit, row, RowError(death.stage, death.code, message, MAX_ATTEMPTS, datetime.now(UTC))
        )

    def _new_child(self) -> Child:
        address = self._own_fork_server.address if self._own_fork_server else self._settings.fork_server
        try:
            return Child(address, self._build, self._settings, self._settings.memory_share)
        except OSError:  # it is on another machine, or was killed
            self._own_fork_server = ForkServer(LABELLER_MODULE)
            return Child(
                self._own_fork_server.address, self._build, self._settings, self._settings.memory_share
            )


class LabelUnits(SupervisedUnits):
    """Labels whole units.

    Args:
        settings: the part of the job that is this actor's.
        build: called in the child with the settings; gives what labels rows of a unit there.
    """

    def __init__(
        self, settings: LabelSettings, build: Callable[[LabelSettings], Label] | None = None
    ) -> None:
        super().__init__(settings, build or build_labeller)
        self._buffer: SharedBuffer | None = None

    def __call__(self, unit: int, prefetch: int | None = None, decoded: pa.Table | None = None) -> pa.Table:
        """The results of a unit.

        Args:
            unit: its number.
            prefetch: the unit that will be asked for next, where that is known: its files are read meanwhile.
            decoded: its images under `schemas.tables.DECODED`, where another process decoded them.

        Returns:
            One row a manifest row under `schemas.tables.results_schema`.

        Raises:
            ModelError: the models cannot be loaded here, are not the ones that the driver resolved, or crash
                at every image.
        """
        rows_of = self._settings.work.rows_of_unit
        given = None if decoded is None else self._to_shared(decoded)
        return self._done(Request(unit, rows_of(unit), () if prefetch is None else rows_of(prefetch), given))

    def _to_shared(self, decoded: pa.Table) -> SharedImages:
        self._buffer = self._buffer or new_buffer()
        return to_shared(decoded, self._buffer)

    def _failed(self, unit: int, row: int, error: RowError) -> pa.Table:
        manifest = self._settings.manifest
        columns = ResultColumns(None, None, manifest.carried)
        return results_table(unit, manifest.read([row]).table, [error], columns)


def split_point(count: int, chunk: int) -> int:
    """Where to halve some rows: at the border of a chunk, where they are more than one."""
    half = count // 2
    return half if count <= chunk else max(half // chunk, 1) * chunk


class DecodeUnits(SupervisedUnits):
    """Fetches and decodes whole units.

    Args:
        settings: the part of the job that is this actor's.
        build: called in the child with the settings; gives what decodes rows of a unit there.
    """

    def __init__(self, settings: LabelSettings, build: Callable[[LabelSettings], Any] | None = None) -> None:
        super().__init__(settings, build or build_decoder)

    def __call__(self, unit: int) -> pa.Table:
        """The images of a unit, until the next one is asked for.

        Args:
            unit: its number.

        Returns:
            One row a manifest row under `schemas.tables.DECODED`.

        Raises:
            ModelError: the process dies at every image.
        """
        return self._done(Request(unit, self._settings.work.rows_of_unit(unit)))

    def _ask(self, request: Request) -> pa.Table:
        answer = super()._ask(request)
        try:
            decoded = from_shared(answer)
        except OSError as error:
            message = f"it ended before its answer was read: {error}"
            raise ProcessDiedError(Stage.DECODE, ErrorCode.WORKER_CRASHED, message) from None
        whole = len(request.rows) == len(self._settings.work.rows_of_unit(request.unit))
        return (
            decoded if whole else decoded.take(pa.array(range(len(decoded))))
        )  # what follows is put in its place

    def _failed(self, unit: int, row: int, error: RowError) -> pa.Table:  # noqa: ARG002 - told by its place
        return pa.Table.from_pylist([{"error": error_values(error)}], DECODED)
