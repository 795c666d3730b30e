"""Values of tables as JSON has them."""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np


def dump_json(value: object) -> str:
    """A value in one line of JSON; see `plain`."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def plain(value: object) -> Any:  # noqa: PLR0911 - a return for each kind
    """A value as JSON has it.

    Numbers of float32 get as many digits as tell them apart (0.1, not 0.10000000149011612), bytes are
    hexadecimal, times are ISO 8601, what is no number or infinite is null.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() | np.floating():
            return shortest(float(value)) if math.isfinite(value) else None
        case bytes():
            return value.hex()
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return float(value)
        case Mapping():
            return {
                key if isinstance(key, str) else dump_json(key): plain(item) for key, item in value.items()
            }
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return str(value)


def shortest(number: float) -> float:
    """A number, that which has the fewest digits where it came out of a float32."""
    with np.errstate(over="ignore"):
        short = np.float32(number)
    return float(str(short)) if float(short) == number else number
