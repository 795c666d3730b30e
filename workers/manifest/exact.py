"""Whether a type holds every value of a column: found out by reading it, where the types do not say."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from schemas.exceptions import ManifestError
from workers.manifest.read_errors import read_errors
from workers.manifest.reader import BATCH_ROWS, open_parquet
from workers.manifest.types import Convert
from workers.printable import message_of
from workers.storage.uris import clean_uri


def reason_not_exact(uri: str, column: str, kind: pa.DataType, convert: Convert) -> str | None:
    """Returns why a type does not hold every value of a column of a Parquet file; None where it does.

    Args:
        uri: of the file.
        column: its name.
        kind: the type.
        convert: what gives the values that type.

    Raises:
        ManifestError: the file cannot be read.
    """
    for values in _values(uri, column):
        try:
            convert(values, kind)
        except pa.ArrowException as error:
            return message_of(error)
    return None


def assert_whole_microseconds(uri: str) -> None:
    """Refuses a Parquet file whose INT96 times have nanoseconds: they are read as microseconds.

    As nanoseconds of 64 bits those after the year 2262 would silently become others.

    Raises:
        ManifestError: with the column, or the file cannot be read.
    """
    for column in _int96_columns(uri):
        if not _is_whole_microseconds(uri, column):
            raise ManifestError(
                f"column {column!r} of {clean_uri(uri)} has INT96 times with nanoseconds, of which not all "
                "readers know what they are. Write it as timestamp[ns] or as text"
            )


def _int96_columns(uri: str) -> list[str]:
    with read_errors(uri, " as Parquet"):
        file = open_parquet(uri)
        leaves = [file.schema.column(n) for n in range(len(file.schema.names))]
    paths = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    names = file.schema_arrow.names
    return [name for name in names if any(f"{path}.".startswith(f"{name}.") for path in paths)]


def _values(uri: str, column: str, int96_unit: str = "us") -> Iterator[pa.Array]:
    with read_errors(uri, " as Parquet"):
        file = open_parquet(uri, int96_unit=int96_unit)
        for batch in file.iter_batches(BATCH_ROWS, columns=[column], use_threads=False):
            yield batch.column(batch.schema.get_field_index(column))


def _is_whole_microseconds(uri: str, column: str) -> bool:
    """Whether INT96 times are the same in both units; in nanoseconds those of distant years wrap around."""
    pairs = zip(_values(uri, column), _values(uri, column, "ns"), strict=True)
    return all(_agree(coarse, fine) for coarse, fine in pairs)


def _agree(coarse: pa.Array, fine: pa.Array) -> bool:
    if pt.is_nested(coarse.type):
        parts = zip(_children(coarse), _children(fine), strict=True)
        return all(_agree(*part) for part in parts)
    if not pt.is_timestamp(coarse.type) or coarse.type == fine.type:
        return True
    nanoseconds = pc.multiply(coarse.cast(pa.int64()), 1000)  # it wraps around too
    return bool(nanoseconds.equals(fine.cast(pa.int64())))


def _children(values: pa.Array) -> list[pa.Array]:
    if pt.is_map(values.type):
        return [values.keys, values.items]
    return values.flatten() if pt.is_struct(values.type) else [values.flatten()]
