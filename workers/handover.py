"""Decoding apart from labelling: units to decoded images in one process, handed over to another's models.

A node with a GPU has only so many CPUs; here others fetch and decode for it. Knows nothing of Ray.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.errors import ErrorCode, RowError, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage
from schemas.tables import DECODED
from workers.child import Note
from workers.images import ImageReader, LoadedImage
from workers.label import Label, LabelSettings, Request, UnitsInChild
from workers.places import reach
from workers.results import error_values, facts_of, row_error

MOST_BYTES = 512 * 2**20
"""Of the pixels of a unit that are handed over; the images behind them are left to whoever labels."""


class DecodeUnits(UnitsInChild):
    """Fetches and decodes whole units.

    Args:
        settings: the part of the job that is this actor's.
        build: called in the child with the settings; gives what decodes rows of a unit there.
    """

    def __init__(
        self, settings: LabelSettings, build: Callable[[LabelSettings], Label] | None = None
    ) -> None:
        super().__init__(settings, build or _decoder)

    def __call__(self, unit: int) -> pa.Table:
        """The images of a unit.

        Args:
            unit: its number.

        Returns:
            One row a manifest row under `schemas.tables.DECODED`.

        Raises:
            ModelError: the process dies at every image.
        """
        return self._done(Request(unit, self._settings.work.rows_of_unit(unit)))

    def _failed(self, unit: int, row: int, error: RowError) -> pa.Table:  # noqa: ARG002 - it is known by its place
        return _table([{"error": error_values(error)}])


class Decoder:
    """Fetches and decodes rows of a unit: what the child does."""

    def __init__(self, settings: LabelSettings) -> None:
        self._manifest = settings.manifest
        reading = (settings.fetch, settings.decode, settings.device, settings.threads, settings.chunk_size)
        self._read = ImageReader(*reading)

    def __call__(self, request: Request, note: Note) -> pa.Table:
        """The images of some rows, under `schemas.tables.DECODED`."""
        note(Stage.DECODE)
        locations = self._manifest.read(request.rows).locations
        values, size = [], 0
        for image in self._read(locations):
            values.append(_values(image))
            size += len(values[-1].get("pixels", b""))
            if size > MOST_BYTES:
                break
        values += [{}] * (len(locations) - len(values))
        return _table(values)


def _decoder(settings: LabelSettings) -> Label:
    reach(settings.places)
    return Decoder(settings)


def _table(values: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(values, DECODED)


def _values(image: LoadedImage | ImageError) -> dict[str, Any]:
    if isinstance(image, ImageError):
        return {"error": error_values(row_error(image, datetime.now(UTC)))}
    return {"pixels": image.decoded.pixels.data.cast("B"), **facts_of(image)}


def images_of(decoded: pa.Table) -> Iterator[LoadedImage | ImageError | None]:
    """The images of some rows under `schemas.tables.DECODED`, in order; None of one that was left out.

    Pixels are those of the table, not copied and not writable.
    """
    pixels = decoded["pixels"]
    for row, facts in enumerate(decoded.drop_columns(["pixels"]).to_pylist()):
        if error := facts["error"]:
            yield ImageError(
                Stage(error["stage"]), ErrorCode(error["code"]), error["message"], error["attempts"]
            )
        elif pixels[row].is_valid:
            yield _loaded(pixels[row].as_buffer(), facts)
        else:
            yield None


def _loaded(pixels: pa.Buffer, facts: dict[str, Any]) -> LoadedImage:
    array = np.frombuffer(pixels, np.uint8).reshape(facts["height"], facts["width"], 3)
    seen = (facts[name] for name in ("format", "exif_orientation", "source_mode", "frame_count"))
    return LoadedImage(DecodedImage(array, *seen), facts["byte_size"], facts["sha256"])
