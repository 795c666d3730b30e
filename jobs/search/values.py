"""Values in a query: what is compared with a column, in the column's type."""

import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from jobs.results.duck import quoted
from jobs.search.language import Operator
from jobs.search.sql import Sql
from jobs.search.vocabulary import Column

_DATE = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d{1,2})(?:-(?P<day>\d{1,2})"
    r"(?:[T ](?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2}(?:\.\d{1,6})?))?)?Z?)?)?)?"
)

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
"""How DuckDB calls integers; those without a sign have a U before."""

INVERSE: dict[Operator, Operator] = {">=": "<", "<": ">=", ">": "<=", "<=": ">", "=": "!=", "!=": "="}
"""What is so where the other is not."""


class ValueProblem(ValueError):  # noqa: N818 - it is about a value, and becomes an error of the query
    """What is wrong with a value, in words."""


def number(text: str, *, percent: bool = False) -> float:
    """A number of a query.

    Args:
        text: as it was written.
        percent: whether it may end in %, as shares and scores do.

    Raises:
        ValueProblem: it is none.
    """
    try:
        value = float(text.removesuffix("%")) / 100 if percent and text.endswith("%") else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise ValueProblem(f"{text!r} is no number")
    return value


def condition(column: Column, operator: Operator, text: str) -> Sql:
    """A condition on a column of images; it is not true of null.

    Raises:
        ValueProblem: the value is none of the column's, or they cannot be compared so.
    """
    if operator == "!=":
        inner = _condition(column, "=", text)
        return Sql(f"NOT coalesce({inner.text}, false)", inner.parameters, needs_images=True)
    return replace(_condition(column, operator, text), needs_images=True)


def _condition(column: Column, operator: Operator, text: str) -> Sql:  # noqa: PLR0911 - one for each kind
    name, kind = f"i.{quoted(column.name)}", column.type
    if operator == "~":
        if re.search(r"[%_\\]", text):
            return Sql(f"contains(lower({name}::VARCHAR), lower(?))", (text,))
        return Sql(f"{name}::VARCHAR ILIKE ?", (f"%{text}%",))  # twice as fast
    if kind == "BOOLEAN":
        return _boolean(column, operator, text)
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        return _time(column, operator, text)
    if kind.removeprefix("U") in _WHOLE or kind in ("FLOAT", "DOUBLE") or kind.startswith("DECIMAL"):
        return Sql(f"{name} {operator} {_cast(kind, text)}", (_number(kind, text),))
    if operator == "=":
        return Sql(f"lower({name}::VARCHAR) = lower(?)", (text,))
    if kind != "VARCHAR":
        raise ValueProblem(f"{column.name} is of type {kind}; it can be asked with = and ~")
    return Sql(f"{name} {operator} ?", (text,))


def _cast(kind: str, text: str) -> str:
    """A placeholder for a number that is compared with a column of a type, without loss."""
    if kind == "FLOAT":
        return "?::FLOAT"  # 0.6 is the float32 that tables show as 0.6
    if kind == "DOUBLE":
        return "?::DOUBLE"
    return "?" if _is_whole(text) else "?::DECIMAL(38, 10)"


def _number(kind: str, text: str) -> object:
    if kind in ("FLOAT", "DOUBLE"):
        return number(text)
    number(text)
    if _is_whole(text):
        whole = int(Decimal(text))
        if abs(whole) >= 10**28:
            raise ValueProblem(f"{text!r} is too large a number")
        return whole
    return str(Decimal(text))


def _is_whole(text: str) -> bool:
    try:
        return Decimal(text) == Decimal(text).to_integral_value()
    except InvalidOperation:
        return False


def _boolean(column: Column, operator: Operator, text: str) -> Sql:
    truth = _TRUTHS.get(text.casefold())
    if truth is None or operator != "=":
        raise ValueProblem(f"{column.name} is true or false: {column.name}=true")
    return Sql(f"i.{quoted(column.name)} = ?", (truth,))


def _time(column: Column, operator: Operator, text: str) -> Sql:
    """A time as exact as it was written: a year, a month, a day, ... as a whole."""
    low, high = span_of(text)
    name, kind = f"i.{quoted(column.name)}", column.type
    if kind == "DATE" and (low.time(), high.time()) != (datetime.min.time(), datetime.min.time()):
        raise ValueProblem(f"{column.name} is a day; {text!r} has a time, allowed is 2024-05-17")
    first, last = (moment.replace(tzinfo=None).isoformat(sep=" ") for moment in (low, high))
    match operator:
        case ">=" | "<":
            return Sql(f"{name} {operator} ?::{kind}", (first,))
        case ">":
            return Sql(f"{name} >= ?::{kind}", (last,))
        case "<=":
            return Sql(f"{name} < ?::{kind}", (last,))
        case _:
            return Sql(f"{name} >= ?::{kind} AND {name} < ?::{kind}", (first, last))


def span_of(text: str) -> tuple[datetime, datetime]:
    """The beginning of a year, month, day, hour, minute or second, and that of the next one, UTC.

    Raises:
        ValueProblem: it is none.
    """
    match = _DATE.fullmatch(text)
    try:
        if not match:
            raise ValueError
        parts = match.groupdict()
        whole, dot, fraction = (parts["second"] or "0").partition(".")
        low = datetime(
            int(parts["year"]),
            int(parts["month"] or 1),
            int(parts["day"] or 1),
            int(parts["hour"] or 0),
            int(parts["minute"] or 0),
            int(whole),
            int(fraction.ljust(6, "0")),
            tzinfo=UTC,
        )
        return low, _next(low, parts, is_fraction=bool(dot))
    except (ValueError, OverflowError):
        raise ValueProblem(
            f"{text!r} is no time; allowed: 2024, 2024-05, 2024-05-17, 2024-05-17T12:30:00"
        ) from None


def _next(low: datetime, parts: dict[str, str | None], *, is_fraction: bool) -> datetime:
    if is_fraction:
        return low + timedelta(microseconds=1)
    for name, step in (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400)):
        if parts[name] is not None:
            return low + timedelta(seconds=step)
    if parts["month"] is not None:
        return low.replace(year=low.year + low.month // 12, month=low.month % 12 + 1)
    return low.replace(year=low.year + 1)
