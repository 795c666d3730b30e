"""Sets of integers as half-open ranges: how the ledger stores units and rows."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator


def _ascending(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Refuses ranges of a file that are empty, negative, or out of order."""
    edges = [-1, *(edge for one in ranges for edge in one)]
    if any(before >= after for before, after in pairwise(edges)):
        raise ValueError("ranges must be ascending, not empty, and must not touch")
    return ranges


Ranges = Annotated[list[tuple[int, int]], AfterValidator(_ascending)]
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
