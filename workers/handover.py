"""Decoding apart from labelling: units to decoded images in one process, for the models of another.

A node with a GPU has only so many CPUs; here others fetch and decode for it. Knows nothing of Ray.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from schemas.errors import ErrorCode, RowError, Stage
from schemas.exceptions import ProcessDiedError
from schemas.tables import DECODED
from workers.handed import taken
from workers.label import LabelSettings, Request, UnitsInChild
from workers.places import reach
from workers.results import error_values


class DecodeUnits(UnitsInChild):
    """Fetches and decodes whole units.

    Args:
        settings: the part of the job that is this actor's.
        build: called in the child with the settings; gives what decodes rows of a unit there.
    """

    def __init__(self, settings: LabelSettings, build: Callable[[LabelSettings], Any] | None = None) -> None:
        super().__init__(settings, build or _decoder)

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
            decoded = taken(answer)
        except OSError as error:
            message = f"it ended before its answer was read: {error}"
            raise ProcessDiedError(Stage.DECODE, ErrorCode.WORKER_CRASHED, message) from None
        whole = len(request.rows) == len(self._settings.work.rows_of_unit(request.unit))
        return (
            decoded if whole else decoded.take(pa.array(range(len(decoded))))
        )  # what follows is put in its place

    def _failed(self, unit: int, row: int, error: RowError) -> pa.Table:  # noqa: ARG002 - told by its place
        return pa.Table.from_pylist([{"error": error_values(error)}], DECODED)


def _decoder(settings: LabelSettings) -> Any:
    """What the child does: only there is torch imported."""
    from workers.decoder import Decoder

    reach(settings.places)
    return Decoder(settings)
