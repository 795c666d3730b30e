"""The records of CSV: values between separators, quoted as in RFC 4180."""

import csv
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from schemas.exceptions import ManifestError

VALUE_CHARACTERS = 2**26
"""The longest value. A quote that is never closed would otherwise take the rest of a file into memory."""

_ADVICE = 'A quote within a quoted value is written twice: "" (Spark does with .option("escape", "\\""))'


class Record(NamedTuple):
    """One record: the line that it begins in, from 1, and its values."""

    line: int
    values: list[str]


def read_records(
    lines: Iterable[str], uri: str, separator: str = ",", *, spaced: bool = False
) -> Iterator[Record]:
    """Yields the records of a file; empty lines are none.

    Args:
        lines: with their line breaks.
        uri: of the file, for messages.
        separator: what is between two values.
        spaced: whether a space after the separator belongs to it.

    Raises:
        ManifestError: with the line where it is no CSV.
    """
    csv.field_size_limit(VALUE_CHARACTERS)  # one number for the whole process, low by default
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=spaced, strict=True)
    line = 1
    try:
        for values in reader:
            if values:
                yield Record(line, values)
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{uri}, line {line} is not CSV: {error}. {_ADVICE}") from None
