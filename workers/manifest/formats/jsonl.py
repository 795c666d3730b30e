"""JSON Lines manifests: one object an image."""

import json
from collections.abc import Iterator
from typing import TextIO

from schemas.exceptions import ManifestError
from workers.manifest.formats.base import Row
from workers.manifest.formats.text import TextFormat


class JsonLines(TextFormat):
    """One JSON object a line. A value that is not a string is kept as its JSON text."""

    suffixes = (".jsonl", ".ndjson", ".json")

    def parse(self, file: TextIO, uri: str) -> Iterator[Row]:
        """One row an object; its keys are the columns."""
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ManifestError(f"{uri}, line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ManifestError(
                    f"{uri}, line {number}: found {line.strip()[:80]!r}, allowed: an object {{…}}"
                )
            yield {key: _as_written(value) for key, value in row.items()}


def _as_written(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
