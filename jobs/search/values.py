"""Values in a query: what is compared with a column, in the column's type."""

import math
import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation, localcontext
from itertools import chain

from jobs.results.duck import quoted
from jobs.search.language import Operator
from jobs.search.language import quoted as quoted_name
from jobs.search.sql import Sql
from jobs.search.vocabulary import Column

_DATE = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d{1,2})(?:-(?P<day>\d{1,2})"
    r"(?:[T ](?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2}(?:\.\d{1,6})?))?)?Z?)?)?)?"
)

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
"""How DuckDB calls integers; those without a sign have a U before."""

_LARGEST_FLOAT = 3e38
"""About the largest number of a float32."""

_HUGE, _TINY = Decimal(10) ** 400, Decimal(10) ** -400
"""What is more, or less but not zero, is compared as these are: no type has such values."""

INVERSE: dict[Operator, Operator] = {">=": "<", "<": ">=", ">": "<=", "<=": ">", "=": "!=", "!=": "="}
"""What is so where the other is not."""


class ValueProblem(ValueError):  # noqa: N818 - it is about a value, and becomes an error of the query
    """What is wrong with a value, in words."""


def is_text(column: Column) -> bool:
    """Whether a column's values are compared as texts: no number, time or truth."""
    kind = column.type
    is_number = kind.removeprefix("U") in _WHOLE or kind.startswith("DECIMAL")
    return not (is_number or kind in ("BOOLEAN", "FLOAT", "DOUBLE") or is_time(kind))


def is_time(kind: str) -> bool:
    """Whether a type is one of days or moments."""
    return kind == "DATE" or kind.startswith("TIMESTAMP")


def time_in(name: str) -> str:
    """A column of times, which may be texts, as one of the type TIMESTAMP in UTC, both in SQL."""
    return f"TRY_CAST({name} AS TIMESTAMP)"


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


def condition(column: Column, operator: Operator, text: str, *, is_quoted: bool = False) -> Sql:
    """A condition on a column of images; it is not true of null.

    Args:
        column: whose values are compared.
        operator: how.
        text: the value in the query, without quotes.
        is_quoted: whether it has quotes; without them a `*` stands for any characters.

    Raises:
        ValueProblem: the value is none of the column's, or they cannot be compared so.
    """
    if operator == "!=":
        inner = condition(column, "=", text, is_quoted=is_quoted)
        return Sql(f"NOT coalesce({inner.text}, false)", inner.parameters, needs_images=True)
    compared = _condition if is_quoted or "*" not in text else _wildcard
    return replace(compared(column, operator, text), needs_images=True)


def _wildcard(column: Column, operator: Operator, text: str) -> Sql:
    """A comparison with a text in which a `*` stands for any characters; a `*` alone is any value."""
    name = f"i.{quoted(column.name)}"
    if operator == "=" and not text.strip("*"):
        return Sql(f"nullif({name}::VARCHAR, '') IS NOT NULL")
    if operator != "~" and not is_text(column):
        return _condition(column, operator, text)
    if operator not in ("=", "~"):
        raise ValueProblem(
            f"a * stands for any characters, and {operator} compares with one value: "
            f'{quoted_name(column.name)}{operator}"{text}" takes it as it is'
        )
    around = ".*" if operator == "~" else ""
    pattern = ".*".join(map(re.escape, re.split(r"\*+", text)))  # by RE2: its time is bounded
    return Sql(f"regexp_full_match(lower({name}::VARCHAR), lower(?), 's')", (f"{around}{pattern}{around}",))


def _condition(column: Column, operator: Operator, text: str) -> Sql:  # noqa: PLR0911 - one for each kind
    name, kind = f"i.{quoted(column.name)}", column.type
    if operator == "~":
        if re.search(r"[%_\\]", text):
            return Sql(f"contains(lower({name}::VARCHAR), lower(?))", (text,))
        return Sql(f"{name}::VARCHAR ILIKE ?", (f"%{text}%",))  # twice as fast
    if kind == "BOOLEAN":
        return _boolean(column, operator, text)
    if is_time(kind):
        return _time(column, operator, text)
    if kind in ("FLOAT", "DOUBLE"):
        return _float(name, kind, operator, number(text))
    if kind.removeprefix("U") in _WHOLE or kind.startswith("DECIMAL"):
        return _exact(name, kind, operator, text)
    if kind == "VARCHAR":
        return _text(name, operator, text)
    if operator == "=":
        return Sql(f"lower({name}::VARCHAR) = lower(?)", (text,))
    raise ValueProblem(f"{column.name} is of type {kind}; it can be asked with = and ~")


def _text(name: str, operator: Operator, text: str) -> Sql:
    """A comparison with a text, which a CSV manifest has for a number or a time, too: then as these."""
    readings = []
    with suppress(ValueProblem):
        readings.append(_float(f"TRY_CAST({name} AS DOUBLE)", "DOUBLE", operator, number(text)))
    with suppress(ValueProblem):
        readings.append(_within(time_in(name), "TIMESTAMP", operator, *span_of(text)))
    as_text = Sql(f"lower({name}) {operator} lower(?)", (text,))
    if operator == "=" or not readings:
        readings.append(as_text)
    return Sql(
        f"({' OR '.join(f'coalesce({reading.text}, false)' for reading in readings)})",
        tuple(chain.from_iterable(reading.parameters for reading in readings)),
    )


def _float(name: str, kind: str, operator: Operator, value: float) -> Sql:
    """A comparison with a float: 0.6 is the float32 that tables show as 0.6; NaN is not so."""
    narrow = "?::FLOAT" if kind == "FLOAT" and abs(value) < _LARGEST_FLOAT else "?::DOUBLE"
    return Sql(f"({name} {operator} {narrow} AND NOT isnan({name}))", (value,))


def _exact(name: str, kind: str, operator: Operator, text: str) -> Sql:
    """A comparison with an integer or a decimal, exact whatever the digits of the text."""
    number(text)
    decimal = re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", kind)
    digits, scale = (int(decimal[1]), int(decimal[2])) if decimal else (38, 0)
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 2000, MAX_EMAX, MIN_EMIN
        value = _bounded(text)
        steps = value.scaleb(scale)
        below, above = (int(steps.to_integral_value(how)) for how in (ROUND_FLOOR, ROUND_CEILING))
    most = 10**digits - 1
    if operator == "=":
        if below != above or abs(below) > most:
            return Sql("false")
        return Sql(f"{name} = {_at(below, digits, scale)}")
    # between two values of the type nothing lies: > and >= of what is between them are the same
    step = {">=": above, ">": below, "<=": below, "<": above}[operator]
    if abs(step) > most:
        is_so = (step < 0) == (operator in (">", ">="))
        return Sql(f"{name} IS NOT NULL" if is_so else "false")
    return Sql(f"{name} {operator} {_at(step, digits, scale)}")


def _bounded(text: str) -> Decimal:
    """A number of a query, within what any type can tell apart; not zero where it is not."""
    try:
        value = max(min(Decimal(text), _HUGE), -_HUGE)
    except InvalidOperation:  # its exponent has twenty digits; as a float it is zero
        value = _TINY / 10 * (-1 if text.strip().startswith("-") else 1)
    return _TINY.copy_sign(value) if value and abs(value) < _TINY else value


def _at(step: int, digits: int, scale: int) -> str:
    """A value of a type in SQL, given in its smallest steps."""
    if not scale:
        return f"{step}"
    sign, figures = "-" if step < 0 else "", f"{abs(step):0{scale + 1}d}"
    return f"'{sign}{figures[:-scale]}.{figures[-scale:]}'::DECIMAL({digits}, {scale})"


def _boolean(column: Column, operator: Operator, text: str) -> Sql:
    truth = _TRUTHS.get(text.casefold())
    if truth is None or operator != "=":
        raise ValueProblem(f"{column.name} is true or false: {quoted_name(column.name)}=true")
    return Sql(f"i.{quoted(column.name)} = ?", (truth,))


def _time(column: Column, operator: Operator, text: str) -> Sql:
    """A time as exact as it was written: a year, a month, a day, ... as a whole."""
    low, high = span_of(text)
    name, kind = f"i.{quoted(column.name)}", column.type
    if kind == "DATE" and {low.time(), high.time() if high else time.min} != {time.min}:
        raise ValueProblem(f"{column.name} is a day; {text!r} has a time, allowed is 2024-05-17")
    if kind in ("TIMESTAMP_NS", "TIMESTAMP_S", "TIMESTAMP_MS"):  # which do not have every year
        name, kind = f"{name}::TIMESTAMP", "TIMESTAMP"
    return _within(name, kind, operator, low, high)


def _within(name: str, kind: str, operator: Operator, low: datetime, high: datetime | None) -> Sql:
    """A comparison with what is from one moment on until before another, None: without end."""
    first, last = (moment.replace(tzinfo=None).isoformat(sep=" ") for moment in (low, high or low))
    if high is None and operator not in (">=", "<"):  # after the last year there is nothing
        ends = {">": "false", "<=": f"{name} IS NOT NULL"}
        return Sql(ends[operator]) if operator in ends else Sql(f"{name} >= ?::{kind}", (first,))
    match operator:
        case ">=" | "<":
            return Sql(f"{name} {operator} ?::{kind}", (first,))
        case ">":
            return Sql(f"{name} >= ?::{kind}", (last,))
        case "<=":
            return Sql(f"{name} < ?::{kind}", (last,))
        case _:
            return Sql(f"({name} >= ?::{kind} AND {name} < ?::{kind})", (first, last))


def span_of(text: str) -> tuple[datetime, datetime | None]:
    """The beginning of a year, month, day, hour, minute or second, and that of the next one, UTC.

    The next one is None after the year 9999.

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
    except ValueError:
        raise ValueProblem(
            f"{text!r} is no time; allowed: 2024, 2024-05, 2024-05-17, 2024-05-17T12:30:00"
        ) from None
    try:
        return low, _next(low, parts, is_fraction=bool(dot))
    except (ValueError, OverflowError):
        return low, None


def _next(low: datetime, parts: dict[str, str | None], *, is_fraction: bool) -> datetime:
    if is_fraction:
        return low + timedelta(microseconds=1)
    for name, step in (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400)):
        if parts[name] is not None:
            return low + timedelta(seconds=step)
    if parts["month"] is not None:
        return low.replace(year=low.year + low.month // 12, month=low.month % 12 + 1)
    return low.replace(year=low.year + 1)
