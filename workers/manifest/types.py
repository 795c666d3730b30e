"""Types of a manifest's columns: what all values of some types can be carried as, none of them changed.

Carried columns have types that Spark 3.5, Trino, pandas and DuckDB all read. Each of the others has one that
takes every value exactly:

    timestamp[ns]               timestamp[us], or text where a value has nanoseconds
    time32, time64, uuid        text
    float16                     float
    decimal256                  decimal128, or text beyond 38 digits
    dictionaries, views, null   their values, what they view, text
    other extension types       their storage
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

MAX_DIGITS = 38
"""Digits of the widest decimal that every reader knows."""

Convert = Callable[[pa.Array | pa.ChunkedArray, pa.DataType], pa.Array | pa.ChunkedArray]
"""Gives values another type, or raises: `as_type` or `as_ids`."""

_SECOND, _FRACTION = r"(\.\d*?)0+(Z?)$", r"\.(Z?)$"


def exact_types(kinds: Sequence[pa.DataType]) -> list[pa.DataType]:
    """Returns the types that values of some types may be carried as, the best first.

    One into which not all of them are `is_lossless` may hold only some of the values: it has to be tried.

    Args:
        kinds: of one column in the files of a manifest.

    Returns:
        At most two; none where the types have nothing in common.
    """
    choices = [_common(kinds, second) for second in (False, True)]
    return list(dict.fromkeys(kind for kind in choices if kind is not None))


def exact_id_types(kinds: Sequence[pa.DataType]) -> list[pa.DataType]:
    """The same for ids, which become text: one number has one text, whatever the types of the files.

    Doubles beside integers are integers that had gaps. An integer is never taken for a double, whose text is
    another one.
    """
    plain = [plain_type(kind) for kind in kinds if not pt.is_null(kind)]
    if not any(map(pt.is_floating, plain)):
        return [kind for kind in exact_types(kinds) if has_text(kind)]
    whole = [pa.int64()] if all(_may_be_whole(kind) for kind in plain) else []
    return whole + (exact_types(kinds) if all(map(pt.is_floating, plain)) else [])


def _may_be_whole(kind: pa.DataType) -> bool:
    return bool(_is_number(kind) or (pt.is_decimal(kind) and kind.scale == 0))


def has_text(kind: pa.DataType) -> bool:
    """Whether values of a type have one text each: neither bytes nor anything nested has."""
    return not (
        pt.is_nested(kind) or pt.is_fixed_size_binary(kind) or pt.is_binary(kind) or pt.is_large_binary(kind)
    )


def has_bytes_within(kind: pa.DataType) -> bool:
    """Whether values of a type are bytes, or have some in them."""
    plain = plain_type(kind)
    inner = [plain.field(number).type for number in range(plain.num_fields)]
    return _is_bytes(plain) or any(map(has_bytes_within, inner))


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of the kinds of string, or a dictionary of them."""
    if isinstance(kind, pa.BaseExtensionType):
        return is_text(kind.storage_type)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return is_text(kind.value_type)
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of values that are read as they are, without the ways in which Arrow stores them."""
    match kind:
        case pa.UuidType():
            return pa.string()
        case pa.BaseExtensionType():
            return plain_type(kind.storage_type)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    return next((plain for is_it, plain in _PLAIN if is_it(kind)), kind)


_PLAIN: tuple[tuple[Callable[[pa.DataType], bool], pa.DataType], ...] = (
    (pt.is_string_view, pa.string()),
    (pt.is_binary_view, pa.binary()),
    (pt.is_null, pa.string()),
    (pt.is_time, pa.string()),
    (pt.is_float16, pa.float32()),
    (pt.is_date64, pa.date32()),
)


def is_lossless(kind: pa.DataType, into: pa.DataType) -> bool:
    """Whether every value of a type is one of another type, by the types alone."""
    if kind == into or pt.is_null(kind):
        return True
    if any(is_it(kind) for is_it in (pt.is_timestamp, pt.is_time, pt.is_decimal)) and is_text(into):
        return True
    if kind != plain_type(kind):
        return is_lossless(_stored(kind), into)
    if pt.is_nested(kind) and pt.is_nested(into):
        return _is_lossless_within(kind, into)
    return any(rule(kind, into) for rule in (_is_same_time, _is_wider, _is_decimal_within, _is_longer))


def _is_same_time(kind: pa.DataType, into: pa.DataType) -> bool:
    return bool(pt.is_timestamp(kind) and pt.is_timestamp(into) and kind.unit == into.unit)


def _is_wider(kind: pa.DataType, into: pa.DataType) -> bool:
    """Whether an integer or floating type holds all numbers of another one."""
    if not (_is_number(kind) and _is_number(into)):
        return False
    if pt.is_integer(kind) and pt.is_integer(into):
        (low, high), (lowest, highest) = _span(kind), _span(into)
        return lowest <= low and high <= highest
    # a double holds integers of 32 bits, a float of 16
    room = into.bit_width if pt.is_floating(kind) else into.bit_width // 2
    return bool(pt.is_floating(into) and kind.bit_width <= room)


def _is_longer(kind: pa.DataType, into: pa.DataType) -> bool:
    return (is_text(kind) and is_text(into)) or (_is_bytes(kind) and _is_bytes(into))


def as_type(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Returns values with another type.

    Raises:
        pyarrow.ArrowException: the type does not hold one of them exactly.
    """
    if isinstance(values, pa.ChunkedArray):
        return pa.chunked_array([as_type(chunk, kind) for chunk in values.chunks], kind)
    return values if values.type == kind else _as_type(values, kind)


def as_ids(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Returns ids with another type; a NaN, which stands for a gap, is none.

    Raises:
        pyarrow.ArrowException: the type does not hold one of them exactly.
    """
    plain = as_type(values, plain_type(values.type))
    if pt.is_floating(plain.type):
        plain = pc.if_else(pc.is_nan(plain), pa.scalar(None, plain.type), plain)
    return as_type(plain, kind)


def _as_type(values: pa.Array, kind: pa.DataType) -> pa.Array:
    source = values.type
    if isinstance(source, pa.UuidType) and is_text(kind):
        return pa.array([value and str(value) for value in values.to_pylist()], kind)
    if isinstance(source, pa.BaseExtensionType):
        return as_type(values.storage, kind)
    if pt.is_dictionary(source):
        return as_type(values.dictionary_decode(), kind)
    if is_text(kind) and (pt.is_time(source) or pt.is_timestamp(source)):
        return _text_of_time(values).cast(kind)
    is_nested = pt.is_nested(source) and pt.is_nested(kind)
    return _as_nested(values, kind) if is_nested else values.cast(kind)


def _text_of_time(values: pa.Array) -> pa.Array:
    """Times as text with as many digits as each needs: the same time is the same text in any unit."""
    if pt.is_timestamp(values.type) and values.type.tz:
        values = values.cast(pa.timestamp(values.type.unit, "UTC"))
    text = pc.replace_substring_regex(values.cast(pa.string()), _SECOND, r"\1\2")
    return pc.replace_substring_regex(text, _FRACTION, r"\1")


def _as_nested(values: pa.Array, kind: pa.DataType) -> pa.Array:
    missing = values.is_null()
    if pt.is_struct(kind):
        columns = {field.name: column for field, column in zip(values.type, values.flatten(), strict=True)}
        nothing = pa.nulls(len(values))
        children = [as_type(columns.get(field.name, nothing), field.type) for field in kind]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=missing)
    if pt.is_map(kind):
        return _as_map(values, kind)
    inner = as_type(values.flatten(), kind.value_type)
    if pt.is_large_list(kind):
        return pa.LargeListArray.from_arrays(_offsets(values, pa.int64()), inner, kind, mask=missing)
    plain = pa.ListArray.from_arrays(_offsets(values, pa.int32()), inner, mask=missing)
    return plain.cast(kind)


def _as_map(values: pa.MapArray, kind: pa.DataType) -> pa.MapArray:
    ends = values.offsets
    lengths = pc.if_else(values.is_valid(), pc.subtract(ends[1:], ends[:-1]), pa.scalar(0, pa.int32()))
    there = values.filter(values.is_valid())  # without the entries below nulls and beyond a slice
    keys, items = as_type(there.keys, kind.key_type), as_type(there.items, kind.item_type)
    return pa.MapArray.from_arrays(_ends(lengths), keys, items, kind, mask=values.is_null())


def _offsets(values: pa.Array, kind: pa.DataType) -> pa.Array:
    return _ends(pc.fill_null(pc.list_value_length(values), 0).cast(kind))


def _ends(lengths: pa.Array) -> pa.Array:
    return pa.concat_arrays([pa.array([0], lengths.type), pc.cumulative_sum(lengths)])


def _stored(kind: pa.DataType) -> pa.DataType:
    """What is one step below a type that is stored in Arrow's own way."""
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType):
        return kind.storage_type
    return kind.value_type if pt.is_dictionary(kind) else plain_type(kind)


def _is_lossless_within(kind: pa.DataType, into: pa.DataType) -> bool:
    if pt.is_struct(kind) and pt.is_struct(into):
        return all(is_lossless(field.type, into.field(field.name).type) for field in kind)
    if pt.is_map(kind) and pt.is_map(into):
        return is_lossless(kind.key_type, into.key_type) and is_lossless(kind.item_type, into.item_type)
    return _is_list(kind) and _is_list(into) and is_lossless(kind.value_type, into.value_type)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pt.is_list(kind)
        or pt.is_large_list(kind)
        or pt.is_fixed_size_list(kind)
        or pt.is_list_view(kind)
        or pt.is_large_list_view(kind)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind))


def _span(kind: pa.DataType) -> tuple[int, int]:
    """The smallest and the largest value of an integer type."""
    if pt.is_unsigned_integer(kind):
        return 0, 2**kind.bit_width - 1
    return -(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1


def _is_decimal_within(kind: pa.DataType, into: pa.DataType) -> bool:
    if not pt.is_decimal(into):
        return False
    whole, scale = _digits(kind)
    return bool(scale <= into.scale and whole <= into.precision - into.scale)


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """Digits before and behind the point of a decimal or an integer; more than any decimal has, of others."""
    if pt.is_decimal(kind):
        return kind.precision - kind.scale, kind.scale
    return (len(str(_span(kind)[1])), 0) if pt.is_integer(kind) else (99, 99)


def _common(kinds: Sequence[pa.DataType], second: bool) -> pa.DataType | None:
    """The first or the second choice of a type for all values of some types; None where there is none."""
    plain = list(dict.fromkeys(plain_type(kind) for kind in kinds if not pt.is_null(kind))) or [pa.string()]
    for family, choose in _FAMILIES:
        if all(map(family, plain)):
            return choose(plain, second)
    return plain[0] if len(plain) == 1 else None


def _timestamp(kinds: list[Any], second: bool) -> pa.DataType | None:
    units, zones = {kind.unit for kind in kinds}, {kind.tz for kind in kinds}
    # an instant, and a time that is one only where somebody knows the zone
    if None in zones and len(zones) > 1:
        return None
    if second:
        return pa.string() if "ns" in units else None
    unit = units.pop() if len(units) == 1 and units != {"ns"} else "us"
    return pa.timestamp(unit, zones.pop() if len(zones) == 1 else "UTC")


def _integer(kinds: list[Any], second: bool) -> pa.DataType:
    spans = [_span(kind) for kind in kinds]
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    for kind in (*kinds, pa.int16(), pa.int32(), pa.int64()):
        if _span(kind)[0] <= low and high <= _span(kind)[1]:
            return kind
    return pa.decimal128(20, 0) if second else pa.int64()


def _number(kinds: list[Any], second: bool) -> pa.DataType:
    if any(map(pt.is_integer, kinds)):
        return pa.int64() if second else pa.float64()
    return max(kinds, key=lambda kind: kind.bit_width)


def _decimal(kinds: list[Any]) -> pa.DataType | None:
    digits = [_digits(kind) for kind in kinds]
    scale = max(scale for _, scale in digits)
    precision = max(whole for whole, _ in digits) + scale
    if precision > MAX_DIGITS:
        return pa.string() if len(kinds) == 1 else None
    return pa.decimal128(precision, scale)


def _text(kinds: list[Any]) -> pa.DataType:
    return pa.large_string() if pa.large_string() in kinds else pa.string()


def _bytes(kinds: list[Any]) -> pa.DataType:
    if len(kinds) == 1:
        return kinds[0]
    return pa.large_binary() if pa.large_binary() in kinds else pa.binary()


def _duration(kinds: list[Any]) -> pa.DataType:
    return pa.duration(max((kind.unit for kind in kinds), key=("s", "ms", "us", "ns").index))


def _struct(kinds: list[Any], second: bool) -> pa.DataType | None:
    if any(len({field.name for field in kind}) < kind.num_fields for kind in kinds):
        return None  # one of two fields of a name would be lost
    names = dict.fromkeys(field.name for kind in kinds for field in kind)
    inner = {n: _common([k.field(n).type for k in kinds if k.get_field_index(n) >= 0], second) for n in names}
    return None if None in inner.values() else pa.struct(list(inner.items()))


def _list(kinds: list[Any], second: bool) -> pa.DataType | None:
    inner = _common([kind.value_type for kind in kinds], second)
    if inner is None:
        return None
    sizes = {kind.list_size if pt.is_fixed_size_list(kind) else None for kind in kinds}
    if len(sizes) == 1 and None not in sizes:
        return pa.list_(inner, sizes.pop())
    return pa.large_list(inner) if any(map(pt.is_large_list, kinds)) else pa.list_(inner)


def _map(kinds: list[Any], second: bool) -> pa.DataType | None:
    key = _common([kind.key_type for kind in kinds], second)
    item = _common([kind.item_type for kind in kinds], second)
    return None if key is None or item is None else pa.map_(key, item)


_Choose = Callable[[list[Any], bool], pa.DataType | None]


def _single(choose: Callable[[list[Any]], pa.DataType | None]) -> _Choose:
    """The choice of a family that has no second one."""
    return lambda kinds, _: choose(kinds)


_FAMILIES: tuple[tuple[Callable[[pa.DataType], bool], _Choose], ...] = (
    (pt.is_timestamp, _timestamp),
    (pt.is_integer, _integer),
    (_is_number, _number),
    (lambda kind: pt.is_decimal(kind) or pt.is_integer(kind), _single(_decimal)),
    (is_text, _single(_text)),
    (_is_bytes, _single(_bytes)),
    (pt.is_duration, _single(_duration)),
    (pt.is_struct, _struct),
    (_is_list, _list),
    (pt.is_map, _map),
)


def fields_alike(kind: pa.DataType) -> tuple[str, ...]:
    """Two fields of a struct, at any depth of a type, whose names are the same or differ only in case."""
    fields = [kind.field(number) for number in range(kind.num_fields)]
    if pt.is_struct(kind):
        first: dict[str, str] = {}
        for name in (field.name for field in fields):
            if (folded := name.casefold()) in first:
                return first[folded], name
            first[folded] = name
    return next(filter(None, (fields_alike(field.type) for field in fields)), ())
