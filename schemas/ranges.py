"""Sets of integers as half-open ranges: how the ledger stores units and rows."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Ranges = list[tuple[int, int]]
"""Half-open ranges [start, stop), ascending; no two of them touch."""


def to_ranges(numbers: Iterable[int] | NDArray[np.int64]) -> Ranges:
    """The ranges of exactly these numbers, which may be in any order and repeated."""
    distinct = np.unique(np.fromiter(numbers, np.int64))
    gaps = np.flatnonzero(np.diff(distinct) > 1) + 1
    runs = np.split(distinct, gaps) if len(distinct) else []
    return [(int(run[0]), int(run[-1]) + 1) for run in runs]


def from_ranges(ranges: Ranges) -> NDArray[np.int64]:
    """The numbers in some ranges, ascending."""
    pieces = [np.arange(start, stop, dtype=np.int64) for start, stop in ranges]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)
