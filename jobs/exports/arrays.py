"""JSON arrays written item by item: what is in memory does not grow with them."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from jobs.results.plain import shortest


def as_json(value: object) -> str:
    """A value in a line of JSON; its numbers are finite."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def score_of(number: float) -> float:
    """A score with as many digits as tell float32 numbers apart."""
    return shortest(number)


class JsonArray:
    """A JSON array in a text file, an item a line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._before = "[\n"

    def add(self, text: str) -> None:
        """Adds an item, which is JSON."""
        self._file.write(self._before + text)
        self._before = ",\n"

    def end(self) -> None:
        """Ends the array."""
        self._file.write("[]" if self._before == "[\n" else "\n]")


@contextmanager
def set_aside(file: IO[str], folder: Path) -> Iterator[IO[str]]:
    """A text that is written at the end of a file when the block ends, kept on the disk until then."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder) as later:
        yield later
        later.seek(0)
        shutil.copyfileobj(later, file, 1 << 20)
