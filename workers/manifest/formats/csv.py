"""CSV manifests: a header, then one row an image; also the lists of S3 Inventory, which have no header."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple, TextIO

import pyarrow as pa

from schemas.exceptions import ManifestError
from schemas.locations import IMAGE_ENDINGS
from workers.manifest.columns import strings
from workers.manifest.formats import s3_inventory
from workers.manifest.formats.base import Row
from workers.manifest.formats.text import TextFormat
from workers.manifest.formats.text_files import open_text
from workers.manifest.sources import Source
from workers.manifest.suffixes import suffix_of
from workers.records import Record, read_records
from workers.storage.uris import clean_uri

_SEPARATORS = ",;\t|"
"""What may be between two values, in the order in which it is looked for in a header."""

_QUOTED = re.compile(r'"[^"]*"')

_EXCEL_SEPARATOR = re.compile(r"sep=(.)\s*")
"""A line above the header that tells Excel what is between two values."""


class Csv(TextFormat):
    """Values under a header, quoted as in RFC 4180, with a comma, semicolon, tab or bar between two."""

    suffixes = (".csv", ".tsv")

    def parse(self, file: TextIO, source: Source) -> Iterator[Row]:
        """One row a record, each value a string."""
        uri, table = source.file.uri, _table(file, source)
        if table.inventory:
            yield from s3_inventory.rows_of(table.inventory, table.records, uri)
            return
        for line, values in table.records:
            if len(values) != len(table.header):
                raise ManifestError(
                    f"{uri}, line {line}: found {len(values)} values, but the header has "
                    f"{len(table.header)} columns ({', '.join(table.header)})"
                )
            yield dict(zip(table.header, values, strict=True))

    def schema_of(self, source: Source) -> pa.Schema:
        """The columns of its header."""
        with open_text(source.uri) as file:
            table = _table(file, source)
            return s3_inventory.schema_of(table.inventory) if table.inventory else strings(table.header)


class _Table(NamedTuple):
    """An open CSV file.

    Attributes:
        header: names of the columns; empty where there are none.
        inventory: the first columns of a list of S3 Inventory; None of any other file.
        records: below the header.
    """

    header: list[str]
    inventory: list[str] | None
    records: Iterator[Record]


def _table(file: TextIO, source: Source) -> _Table:
    """Finds out what a file is from its first two records.

    Raises:
        ManifestError: it has no header.
    """
    above, first_line, separator = _begin(file)
    bare = _QUOTED.sub("", first_line)
    separator = separator or _separator_of(bare, tabs_first=suffix_of(source.uri) == ".tsv")
    spaced = bare.count(separator) == bare.count(f"{separator} ") > 0
    lines = chain(above, [first_line], file)
    records = read_records(lines, source.file.uri, separator, spaced=spaced)
    head = list(islice(records, 2))
    first, second = ([record.values for record in head] + [[], []])[:2]
    if inventory := s3_inventory.columns_of(first, second, first_line):
        return _Table([], inventory, chain(head, records))
    return _Table(_header(first, source.file.uri), None, chain(head[1:], records))


def _begin(lines: Iterable[str]) -> tuple[list[str], str, str | None]:
    """Reads a file's first line that is not empty.

    Returns:
        Empty lines in place of those before it, that line, and the separator if one of those names it.
    """
    above: list[str] = []
    separator = None
    for line in lines:
        match = _EXCEL_SEPARATOR.fullmatch(line)
        if line.strip() and not match:
            return above, line, separator
        above.append("\n")
        separator = match[1] if match else separator
    return above, "", separator


def _separator_of(header: str, *, tabs_first: bool) -> str:
    """What is between two values, by a header without what is quoted in it."""
    order = sorted(_SEPARATORS, key=lambda it: it != "\t") if tabs_first else _SEPARATORS
    return next((separator for separator in order if separator in header), ",")


def _header(values: list[str], uri: str) -> list[str]:
    """The names of the columns; one without a name, such as the index of pandas, is called by its number.

    Raises:
        ManifestError: it names a column twice, or is no header.
    """
    names = [name.strip() or f"column_{number}" for number, name in enumerate(values, 1)]
    if images := [name for name in names if "://" in name or suffix_of(name) in IMAGE_ENDINGS]:
        raise ManifestError(
            f"{uri} begins with {clean_uri(images[0])!r} where its columns should be named. Put a line above "
            "it that names them, such as uri,label; of a list of S3 Inventory name its report, manifest.json"
        )
    if len(set(names)) != len(names):
        raise ManifestError(f"{uri} names a column twice: {', '.join(names)}")
    return names
