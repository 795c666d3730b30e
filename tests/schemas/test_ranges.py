import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.ranges import from_ranges, to_ranges

numbers = st.lists(st.integers(0, 300), max_size=200)


@given(numbers)
def test_ranges_hold_exactly_the_numbers_they_were_made_of(found: list[int]) -> None:
    assert from_ranges(to_ranges(found)).tolist() == sorted(set(found))
    assert to_ranges(np.array(found, np.int64)) == to_ranges(found)


@given(numbers)
def test_ranges_ascend_and_do_not_touch(found: list[int]) -> None:
    ranges = to_ranges(found)
    assert all(start < stop for start, stop in ranges)
    assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(ranges))
