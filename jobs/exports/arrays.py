"""JSON arrays written item by item: what is in memory does not grow with them."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def as_json(value: object) -> str:
    """A value in a line of JSON; its numbers are finite."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


class JsonArray:
    """A JSON array in a text file, an item a line; with the brackets of an object its pairs."""

    def __init__(self, file: IO[str], brackets: str = "[]") -> None:
        self._file = file
        self._brackets = brackets
        self._before = f"{brackets[0]}\n"

    def add(self, text: str) -> None:
        """Adds an item, which is JSON; of an object a name and a value."""
        self._file.write(self._before + text)
        self._before = ",\n"

    def end(self) -> None:
        """Ends the array."""
        self._file.write(self._brackets if self._before != ",\n" else f"\n{self._brackets[1]}")


@contextmanager
def set_aside(file: IO[str], folder: Path) -> Iterator[IO[str]]:
    """A text that is written at the end of a file when the block ends, kept on the disk until then."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder) as later:
        yield later
        later.seek(0)
        shutil.copyfileobj(later, file, 1 << 20)
