"""How a manifest is cut into units and shards: pure arithmetic, the same in every attempt."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas.spec import UnitsSpec
from schemas.tables import ALWAYS
from schemas.tasks import OBJECT_EMBEDDINGS

MIN_UNITS, MAX_UNITS = 16, 65_536
USUAL_UNIT_ROWS, MAX_UNIT_ROWS = 128, 512
USUAL_SHARD_ROWS, FURTHER_SHARD_ROWS, OBJECT_SHARD_ROWS = 100_000, 20_000, 4_000
"""Without and with tags or embeddings, and with embeddings of objects. A shard's tables are in memory when it
is published: 20,000 embeddings of 1,280 numbers are 100 MB, twenty for each of 4,000 images 400 MB; with
1,000 tags each 20,000 images are near the 2 GB of a column of text."""

MAX_BUNDLE_ROWS = {"cpu": 512, "cuda": 4096}
"""Images that an actor is handed at once, by the device of its models. A bundle may take a CPU an hour with
a large detector; a GPU waits for the first files of each."""

BUNDLES_LEFT = 8


def auto_unit_rows(rows: int) -> int:
    """Images in a unit: 128; fewer where there would be under 16 units, up to 512 where there would be many.

    A short manifest is cut small so that every actor has work; a long one large, because every unit costs
    an actor about 10 ms.
    """
    usual = max(1, min(USUAL_UNIT_ROWS, rows // MIN_UNITS))
    return min(MAX_UNIT_ROWS, max(usual, rows // MAX_UNITS))


class Plan(BaseModel):
    """Units of `unit_rows` manifest rows, shards of `shard_units` units; the last of each may be short.

    Attributes:
        rows: rows of the manifest.
        unit_rows: images in a unit.
        shard_units: units whose rows are published in one file a table.
    """

    model_config = ConfigDict(frozen=True)

    rows: int = Field(ge=0)
    unit_rows: int = Field(ge=1)
    shard_units: int = Field(ge=1)

    @classmethod
    def of(cls, rows: int, spec: UnitsSpec, tables: Collection[str] = ALWAYS) -> Self:
        """The plan that a manifest of some rows gets in a run with some tables."""
        unit_rows = auto_unit_rows(rows) if spec.rows == "auto" else spec.rows
        shard_rows = spec.shard_rows
        if shard_rows == "auto":
            shard_rows = FURTHER_SHARD_ROWS if {*tables} - {*ALWAYS} else USUAL_SHARD_ROWS
            shard_rows = OBJECT_SHARD_ROWS if OBJECT_EMBEDDINGS in tables else shard_rows
        return cls(rows=rows, unit_rows=unit_rows, shard_units=max(1, round(shard_rows / unit_rows)))

    @property
    def units(self) -> int:
        """How many units there are; they are numbered from 0."""
        return -(-self.rows // self.unit_rows)

    @property
    def shards(self) -> int:
        """How many shards there are; they are numbered from 0."""
        return -(-self.units // self.shard_units)

    def rows_of_unit(self, unit: int) -> range:
        """The manifest rows of a unit."""
        return range(unit * self.unit_rows, min((unit + 1) * self.unit_rows, self.rows))

    def units_of_shard(self, shard: int) -> range:
        """The units of a shard."""
        return range(shard * self.shard_units, min((shard + 1) * self.shard_units, self.units))

    def rows_of_shard(self, shard: int) -> range:
        """The manifest rows of a shard."""
        units = self.units_of_shard(shard)
        return range(units.start * self.unit_rows, min(units.stop * self.unit_rows, self.rows))

    def shard_of(self, unit: int) -> int:
        """The shard that a unit belongs to."""
        return unit // self.shard_units


@dataclass(frozen=True)
class Pass:
    """What one pass over a plan does: every row, or, in a retry, the rows that had failed.

    Attributes:
        plan: how the manifest is cut.
        rows: the manifest rows to do, int64, ascending; None: all.
        retry: its number; 0 is the first pass, which does every row.
    """

    plan: Plan
    rows: NDArray[np.int64] | None = None
    retry: int = 0

    @property
    def units(self) -> NDArray[np.int64]:
        """The units that have rows to do, ascending."""
        if self.rows is None:
            return np.arange(self.plan.units, dtype=np.int64)
        return np.unique(self.rows // self.plan.unit_rows)

    @property
    def size(self) -> int:
        """How many rows there are to do."""
        return self.plan.rows if self.rows is None else len(self.rows)

    def rows_of_unit(self, unit: int) -> Sequence[int]:
        """The manifest rows to do of a unit, ascending."""
        return self._within(self.plan.rows_of_unit(unit))

    def rows_of_shard(self, shard: int) -> Sequence[int]:
        """The manifest rows to do of a shard, ascending."""
        return self._within(self.plan.rows_of_shard(shard))

    def units_of_shard(self, shard: int) -> list[int]:
        """The units of a shard that have rows to do, ascending."""
        units = self.plan.units_of_shard(shard)
        if self.rows is None:
            return list(units)
        return sorted({row // self.plan.unit_rows for row in self.rows_of_shard(shard)})

    @property
    def shards(self) -> list[int]:
        """The shards that have rows to do, ascending."""
        if self.rows is None:
            return list(range(self.plan.shards))
        shards: list[int] = np.unique(self.units // self.plan.shard_units).tolist()
        return shards

    def _within(self, rows: range) -> Sequence[int]:
        if self.rows is None:
            return rows
        first, last = np.searchsorted(self.rows, [rows.start, rows.stop])
        within: list[int] = self.rows[first:last].tolist()
        return within


def max_bundle_units(unit_rows: int, device: str) -> int:
    """Units that an actor is handed at once, at most."""
    return max(1, MAX_BUNDLE_ROWS[device] // unit_rows)


def make_bundles(units: NDArray[np.int64], unit_rows: int, actors: int, device: str) -> pa.ListArray:
    """Units as they are handed to the actors, several at once: each hand-over costs Ray 0.1 CPU-seconds.

    Args:
        units: all of them, in the order in which they are handed out.
        unit_rows: images in each.
        actors: that take them.
        device: that their models run on, "cpu" or "cuda".

    Returns:
        list<int64>: bundles of up to `MAX_BUNDLE_ROWS`; single units at first, so that there is news soon,
        and at the end, so that all actors end together.
    """
    most, starts = max_bundle_units(unit_rows, device), [0]
    while (left := len(units) - starts[-1]) > 0:
        wave = len(starts) // actors + 1
        starts.append(starts[-1] + min(most, wave, max(1, left // (BUNDLES_LEFT * actors))))
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(units, pa.int64()))


def one_per_bundle(units: NDArray[np.int64]) -> pa.ListArray:
    """Units as they are handed to actors that decode for others: one by one, since their images are large."""
    return pa.ListArray.from_arrays(pa.array(range(len(units) + 1), pa.int32()), pa.array(units, pa.int64()))
