"""Types that columns are carried as: each value stays what it is, whatever other files hold."""

import uuid
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.manifest.types import as_type, exact_id_types, exact_types, fields_alike, is_lossless

NS, US, MS = (pa.timestamp(unit) for unit in ("ns", "us", "ms"))
TIME = pa.time64("ns")


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([pa.int64()], [pa.int64()]),
        ([pa.large_string(), pa.string()], [pa.large_string()]),
        ([pa.string_view()], [pa.string()]),
        ([pa.binary_view(), pa.binary(4)], [pa.binary()]),
        ([pa.dictionary(pa.int8(), pa.string()), pa.string()], [pa.string()]),
        ([pa.null()], [pa.string()]),
        ([pa.null(), pa.bool_()], [pa.bool_()]),
        ([pa.float16()], [pa.float32()]),
        ([pa.float16(), pa.float64()], [pa.float64()]),
        ([pa.int8(), pa.int32()], [pa.int32()]),
        ([pa.int32(), pa.uint32()], [pa.int64()]),
        ([pa.int64(), pa.uint64()], [pa.int64(), pa.decimal128(20, 0)]),
        ([pa.int64(), pa.float64()], [pa.float64(), pa.int64()]),
        ([pa.date64()], [pa.date32()]),
        ([MS], [MS]),
        ([NS], [US, pa.string()]),
        ([US, NS, MS], [US, pa.string()]),
        ([pa.timestamp("us", "UTC"), pa.timestamp("us", "Asia/Tokyo")], [pa.timestamp("us", "UTC")]),
        ([pa.time32("ms"), TIME], [pa.string()]),
        ([pa.uuid()], [pa.string()]),
        ([pa.json_()], [pa.string()]),
        ([pa.decimal32(9, 2), pa.int16()], [pa.decimal128(9, 2)]),
        ([pa.decimal256(30, 2)], [pa.decimal128(30, 2)]),
        ([pa.decimal256(50, 2)], [pa.string()]),
        ([pa.list_view(pa.float16())], [pa.list_(pa.float32())]),
        ([pa.list_(TIME, 2), pa.list_(TIME, 2)], [pa.list_(pa.string(), 2)]),
        ([pa.list_(pa.int8()), pa.list_(pa.int16(), 3)], [pa.list_(pa.int16())]),
        (
            [pa.struct([("a", pa.int64())]), pa.struct([("b", TIME), ("a", pa.float64())])],
            [
                pa.struct([("a", pa.float64()), ("b", pa.string())]),
                pa.struct([("a", pa.int64()), ("b", pa.string())]),
            ],
        ),
        ([pa.map_(pa.string(), NS)], [pa.map_(pa.string(), US), pa.map_(pa.string(), pa.string())]),
    ],
)
def test_a_column_is_carried_as_a_type_that_every_reader_knows(
    kinds: list[pa.DataType], expected: list[pa.DataType]
) -> None:
    assert exact_types(kinds) == expected
    for kind in kinds:
        if is_lossless(kind, expected[0]):
            assert as_type(pa.nulls(2, kind), expected[0]).to_pylist() == [None, None]


@pytest.mark.parametrize(
    "kinds",
    [
        [pa.string(), pa.int64()],
        [pa.bool_(), pa.int8()],
        [pa.date32(), US],
        [pa.timestamp("us", "UTC"), US],
        [pa.decimal128(38, 0), pa.decimal128(38, 38)],
        [pa.decimal128(10, 2), pa.float64()],
        [pa.list_(pa.int8()), pa.int8()],
        [pa.struct([("a", pa.int8())]), pa.struct([("a", pa.string())])],
        [pa.binary(), pa.string()],
        [pa.struct([("a", pa.int8()), ("a", pa.int8())])],
    ],
)
def test_types_that_have_no_values_in_common_have_no_common_type(kinds: list[pa.DataType]) -> None:
    assert exact_types(kinds) == []


@pytest.mark.parametrize(
    ("kind", "into", "values", "expected"),
    [
        (NS, US, [1000], [datetime(1970, 1, 1, 0, 0, 0, 1)]),
        (NS, pa.string(), [1, 10**9], ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:01"]),
        (US, pa.string(), [datetime(9999, 12, 31)], ["9999-12-31 00:00:00"]),
        (pa.timestamp("ns", "Asia/Tokyo"), pa.string(), [10**8], ["1970-01-01 00:00:00.1Z"]),
        (pa.time32("s"), pa.string(), [time(1, 2, 3)], ["01:02:03"]),
        (TIME, pa.string(), [10], ["00:00:00.00000001"]),
        (pa.uuid(), pa.string(), [uuid.UUID(int=5).bytes], ["00000000-0000-0000-0000-000000000005"]),
        (pa.decimal256(50, 2), pa.string(), [Decimal("1.5")], ["1.50"]),
        (pa.date64(), pa.date32(), [date(2020, 2, 29)], [date(2020, 2, 29)]),
        (pa.float64(), pa.int64(), [2.0**60], [2**60]),
        (pa.uint64(), pa.decimal128(20, 0), [2**64 - 1], [Decimal(2**64 - 1)]),
    ],
)
def test_values_stay_what_they_are_also_within_lists_structs_and_maps(
    kind: pa.DataType, into: pa.DataType, values: list[Any], expected: list[Any]
) -> None:
    plain = pa.array([*values, None], kind)
    expected = [*expected, None]
    assert as_type(plain, into).to_pylist() == expected
    assert as_type(pa.chunked_array([plain, plain[1:]]), into).to_pylist() == [*expected, *expected[1:]]
    ends = pa.array([0, 0, 1, len(plain)], pa.int32())
    nested: list[tuple[pa.Array, pa.DataType, list[Any]]] = [
        (pa.ListArray.from_arrays(ends, plain), pa.list_(into), [[], expected[:1], expected[1:]]),
        (
            pa.StructArray.from_arrays([plain], names=["x"]),
            pa.struct([("x", into), ("y", pa.int8())]),
            [{"x": value, "y": None} for value in expected],
        ),
        (
            pa.MapArray.from_arrays(ends, pa.array(map(str, range(len(plain)))), plain),
            pa.map_(pa.string(), into),
            [[], [("0", expected[0])], [(str(n), v) for n, v in enumerate(expected) if n]],
        ),
    ]
    for array, outer, rows in nested:
        for start in range(len(rows)):
            assert as_type(array[start:], outer).to_pylist() == rows[start:]


@pytest.mark.parametrize(
    ("kind", "into", "value"),
    [
        (NS, US, 1001),
        (US, NS, datetime(9999, 12, 31)),
        (pa.int64(), pa.float64(), 2**53 + 1),
        (pa.float64(), pa.int64(), 1.5),
        (pa.float64(), pa.int64(), 2.0**63),
        (pa.float64(), pa.int64(), float("nan")),
        (pa.uint64(), pa.int64(), 2**63),
    ],
)
def test_a_value_that_a_type_does_not_hold_is_refused_and_never_changed(
    kind: pa.DataType, into: pa.DataType, value: Any
) -> None:
    assert not is_lossless(kind, into)
    with pytest.raises(pa.ArrowInvalid):
        as_type(pa.array([value], kind), into)
    with pytest.raises(pa.ArrowInvalid):
        as_type(
            pa.array([{"x": [value]}], pa.struct([("x", pa.list_(kind))])), pa.struct([("x", pa.list_(into))])
        )


def text_of(moment: time) -> str:
    """With as many digits as it needs."""
    return (
        moment.isoformat("microseconds").rstrip("0").rstrip(".") if moment.microsecond else moment.isoformat()
    )


@given(
    values=st.lists(st.none() | st.lists(st.none() | st.times(), max_size=3), max_size=5),
    start=st.integers(0, 5),
)
def test_lists_of_any_lengths_keep_their_gaps(values: list[Any], start: int) -> None:
    array = pa.array(values, pa.list_(pa.time64("us")))
    for source in (array, array.cast(pa.large_list(pa.time64("us")))):
        found = as_type(source[start:], pa.list_(pa.string()))
        texts = [value and [moment and text_of(moment) for moment in value] for value in values[start:]]
        assert found.to_pylist() == texts


def test_views_of_lists_are_read_as_lists() -> None:
    views = pa.array([["a"], ["b", "c"], None, []], pa.list_view(pa.string_view()))
    assert as_type(views, pa.list_(pa.string())).to_pylist() == [["a"], ["b", "c"], None, []]


def test_ids_that_were_doubles_for_their_gaps_are_integers() -> None:
    assert exact_id_types([pa.float64(), pa.int64()]) == [pa.int64()]
    assert exact_id_types([pa.float64(), pa.decimal128(20, 0)]) == [pa.int64()]
    assert exact_id_types([pa.float64(), pa.float32()]) == [pa.int64(), pa.float64()]
    assert exact_id_types([pa.int64()]) == [pa.int64()]
    for other in (pa.string(), pa.timestamp("us"), pa.bool_(), pa.decimal128(20, 1)):
        assert (
            exact_id_types([pa.float64(), pa.int64(), other]) == exact_id_types([pa.float64(), other]) == []
        )
    assert exact_id_types([pa.uuid()]) == [pa.string()]
    assert exact_id_types([pa.binary(16)]) == exact_id_types([pa.struct([("x", pa.int8())])]) == []


ALIKE = pa.struct([("Name", pa.string()), ("size", pa.int64()), ("name", pa.int64())])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.struct([("a", pa.int64()), ("b", pa.struct([("a", pa.int64()), ("A2", pa.int64())]))]), ()),
        (pa.int64(), ()),
        (pa.list_(pa.struct([("a", pa.int64())])), ()),
        (ALIKE, ("Name", "name")),
        (pa.struct([("a", pa.int64()), ("a", pa.int64())]), ("a", "a")),
        (pa.struct([("x", pa.int64()), ("y", pa.struct([("z", ALIKE)]))]), ("Name", "name")),
        (pa.list_(ALIKE), ("Name", "name")),
        (pa.list_(pa.list_(ALIKE, 2)), ("Name", "name")),
        (pa.map_(pa.string(), ALIKE), ("Name", "name")),
    ],
)
def test_fields_of_a_struct_that_are_alike_but_for_case_are_found_at_any_depth(
    kind: pa.DataType, expected: tuple[str, ...]
) -> None:
    assert fields_alike(kind) == expected
