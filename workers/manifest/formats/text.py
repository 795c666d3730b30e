"""Manifests that are text, of which the simplest has one URI a line."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TextIO

from schemas.exceptions import ManifestError
from workers.manifest.columns import strings
from workers.manifest.formats.base import Row, RowFormat
from workers.manifest.sources import Source
from workers.storage.filesystem import open_file
from workers.storage.uris import clean_uri


class TextFormat(RowFormat):
    """A format that is UTF-8 text, with or without a byte order mark, compressed if its name says so."""

    @abstractmethod
    def parse(self, file: TextIO, uri: str) -> Iterator[Row]:
        """Yields the rows of an open file.

        Args:
            file: with its line breaks as they are.
            uri: of the file, for messages.

        Raises:
            ManifestError: with the line where it is not what its format says.
        """

    def rows(self, source: Source) -> Iterator[Row]:
        """Its lines or records. Values are kept as they are written; empty lines are no rows."""
        uri = clean_uri(source.uri)
        try:
            with open_file(source.uri, "rt", compression="infer", encoding="utf-8-sig", newline="") as file:
                yield from self.parse(file, uri)
        except UnicodeDecodeError as error:
            raise ManifestError(f"{uri} is not UTF-8 text: {error}") from None


class Text(TextFormat):
    """One path or URL a line, without the spaces around it."""

    suffixes = (".txt",)
    schema = strings(["uri"])

    def parse(self, file: TextIO, uri: str) -> Iterator[Row]:
        """One row a line that is not empty."""
        for line in file:
            if name := line.strip():
                yield {"uri": name}
