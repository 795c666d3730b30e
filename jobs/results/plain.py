"""Values of tables as JSON has them."""

import json
import math
import struct
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

_FLOAT32 = struct.Struct("f")

MOST_EXACT = 2**53 - 1
"""The largest whole number that readers of JSON tell from its neighbours whose numbers are float64, as
JavaScript's are (RFC 8259, 6)."""


def dump_json(value: object) -> str:
    """A value in one line of JSON; see `plain`."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:  # noqa: PLR0911 - a return for each kind
    """A value as JSON has it.

    Bytes are hexadecimal, times are ISO 8601, what is no number or infinite is null. A decimal is a number
    where that is the same, otherwise text; a whole number up to `MOST_EXACT`.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= MOST_EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {plain_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    return str(value)


def plain_of(kind: Any) -> Callable[[Any], Any]:
    """What makes values of a type of DuckDB's plain: numbers of float32 get the digits that tell them apart.

    That is 0.1 and not 0.10000000149011612, which Python has for it.
    """
    if "FLOAT" not in str(kind):
        return plain
    if kind.id == "float":
        return lambda value: None if value is None else plain(shortest(value))
    parts = {name: plain_of(inner) for name, inner in kind.children if not isinstance(inner, int)}
    if kind.id in ("list", "array"):
        (part,) = parts.values()
        return lambda values: None if values is None else [part(value) for value in values]
    if kind.id == "struct":
        return lambda row: None if row is None else {name: parts[name](value) for name, value in row.items()}
    if kind.id == "map":
        return lambda pairs: (
            None if pairs is None else {plain_key(key): parts["value"](value) for key, value in pairs.items()}
        )
    return plain


def plain_key(key: object) -> str:
    """A key of a map as one of an object."""
    name = plain(key)
    return name if isinstance(name, str) else dump_json(name)


def shortest(number: float) -> float:
    """A number of a float32 with the fewest digits that tell it apart; any other stays as it is."""
    if not math.isfinite(number):
        return number
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
