"""Manifests that are text, of which the simplest has one URI a line."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TextIO

from workers.manifest.columns import strings
from workers.manifest.formats.base import Row, RowFormat
from workers.manifest.formats.text_files import open_text
from workers.manifest.sources import Source


class TextFormat(RowFormat):
    """A format that is text, see `workers.manifest.formats.text_files`."""

    @abstractmethod
    def parse(self, file: TextIO, source: Source) -> Iterator[Row]:
        """Yields the rows of an open file.

        Args:
            file: with its line breaks as they are.
            source: the file, for messages and for what its name says.

        Raises:
            ManifestError: with the line where it is not what its format says.
        """

    def rows(self, source: Source) -> Iterator[Row]:
        """Its lines or records. Values are kept as they are written; empty lines are no rows."""
        with open_text(source.uri) as file:
            yield from self.parse(file, source)


class Text(TextFormat):
    """One path or URL a line, without the spaces around it."""

    suffixes = (".txt",)
    schema = strings(["uri"])

    def parse(self, file: TextIO, source: Source) -> Iterator[Row]:
        """One row a line that is not empty."""
        for line in file:
            if name := line.strip():
                yield {"uri": name}
