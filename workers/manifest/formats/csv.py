"""CSV manifests: a header, then one row an image."""

import csv
from collections.abc import Iterator
from typing import TextIO

from schemas.exceptions import ManifestError
from workers.manifest.formats.base import Row
from workers.manifest.formats.text import TextFormat


class Csv(TextFormat):
    """Comma-separated values under a header, quoted as in RFC 4180."""

    suffixes = (".csv",)

    def parse(self, file: TextIO, uri: str) -> Iterator[Row]:
        """One row a record, each value a string."""
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) != len(header):
                raise ManifestError(f"{uri} names a column twice: {', '.join(header)}")
            for values in filter(None, reader):
                if len(values) != len(header):
                    raise ManifestError(
                        f"{uri}, line {reader.line_num}: found {len(values)} values, but the header has "
                        f"{len(header)} columns ({', '.join(header)})"
                    )
                yield dict(zip(header, values, strict=True))
        except csv.Error as error:
            raise ManifestError(f"{uri}, line {reader.line_num} is not CSV: {error}") from None
