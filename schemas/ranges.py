"""Sets of whole numbers as half-open ranges: how the ledger writes down units and rows."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Ranges = list[tuple[int, int]]
"""Half-open [start, stop) ranges, ascending, apart from each other."""


def to_ranges(numbers: Iterable[int] | NDArray[np.int64]) -> Ranges:
    """The ranges that hold exactly some numbers, given in any order and any often."""
    found = np.unique(np.fromiter(numbers, np.int64))
    gaps = np.flatnonzero(np.diff(found) > 1) + 1
    runs = np.split(found, gaps) if len(found) else []
    return [(int(run[0]), int(run[-1]) + 1) for run in runs]


def from_ranges(ranges: Ranges) -> NDArray[np.int64]:
    """The numbers in some ranges, ascending."""
    pieces = [np.arange(start, stop, dtype=np.int64) for start, stop in ranges]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)
