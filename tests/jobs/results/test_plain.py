import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.results.plain import dump_json, plain, plain_of, shortest


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_has_the_digits_that_tell_it_apart(number: float) -> None:
    short = shortest(number)
    assert np.float32(short) == np.float32(number)
    if abs(number) >= np.finfo(np.float32).tiny:  # below that there are fewer digits than six
        assert short == float(str(np.float32(number)))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_other_number_stays_itself(number: float) -> None:
    with np.errstate(over="ignore"):
        is_single = float(np.float32(number)) == number
    assert shortest(number) == number or is_single


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [0.1, float("nan"), None], 3: b"\x01\xff"}, {"a": [0.1, None, None], "3": "01ff"}),
        ((True, 2**70, "é\n"), [True, str(2**70), "é\n"]),
        ([2**53 - 1, -(2**53), {2**63: 1}], [2**53 - 1, str(-(2**53)), {str(2**63): 1}]),
        (datetime(2024, 1, 2, 3, 4, 5, 6, UTC), "2024-01-02T03:04:05.000006+00:00"),
        ([date(2024, 1, 2), time(3, 4)], ["2024-01-02", "03:04:00"]),
        ([Decimal("1.50"), UUID(int=5)], [1.5, "00000000-0000-0000-0000-000000000005"]),
        (Decimal("12345678901234567890.123456789"), "12345678901234567890.123456789"),
        (1700000128.0, 1700000128.0),
        (0.10000000149011612, 0.10000000149011612),
        (timedelta(hours=1), "1:00:00"),
        (float("-inf"), None),
    ],
)
def test_every_value_is_json(value: object, expected: object) -> None:
    assert plain(value) == expected
    assert json.loads(dump_json(value)) == expected


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("FLOAT", 0.1, 0.1),
        ("DOUBLE", 123456792, 123456792),
        ("FLOAT[]", [0.1, None], [0.1, None]),
        ("FLOAT[2]", [0.1, 0.2], [0.1, 0.2]),
        ("STRUCT(a FLOAT, b DOUBLE, c VARCHAR)", {"a": 0.1, "b": 16777217.5, "c": "x"}, None),
        ("MAP(VARCHAR, FLOAT)", {"x": 0.1}, None),
        ("MAP(INTEGER, STRUCT(a FLOAT)[])", {1: [{"a": 0.1}]}, {"1": [{"a": 0.1}]}),
        ("FLOAT", None, None),
    ],
)
def test_numbers_have_the_digits_of_their_columns_type(type_: str, value: object, expected: object) -> None:
    with duckdb.connect() as database:
        cursor = database.execute(f"SELECT ?::{type_}", [value])
        (found,) = cursor.fetchone() or ()
        kind = (cursor.description or [])[0][1]
    assert plain_of(kind)(found) == (value if expected is None else expected)
