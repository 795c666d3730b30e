"""Values of tables as JSON has them."""

import json
import math
import struct
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

_FLOAT32 = struct.Struct("f")


def dump_json(value: object) -> str:
    """A value in one line of JSON; see `plain`."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:  # noqa: PLR0911 - a return for each kind
    """A value as JSON has it.

    Numbers of float32 get as many digits as tell them apart (0.1, not 0.10000000149011612), bytes are
    hexadecimal, times are ISO 8601, what is no number or infinite is null.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return shortest(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key if isinstance(key, str) else dump_json(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return str(value)


def shortest(number: float) -> float:
    """A number, that which has the fewest digits where it came out of a float32."""
    try:
        single = _FLOAT32.pack(number)
    except OverflowError:  # more than a float32 can be
        return number
    if _FLOAT32.unpack(single)[0] != number:
        return number
    for digits in (6, 7, 8):
        short = float(f"{number:.{digits}g}")
        if _FLOAT32.pack(short) == single:
            return short
    return float(f"{number:.9g}")
