"""JSON Lines manifests: one object an image. The `manifest.json` of an S3 Inventory is taken too."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, TextIO

from schemas.exceptions import ManifestError
from workers.manifest.formats import s3_inventory
from workers.manifest.formats.base import Row
from workers.manifest.formats.text import TextFormat
from workers.manifest.sources import Source
from workers.printable import short_line
from workers.storage.uris import clean_uri, text_of

SHOWN, SEEN = 80, 4096
"""Characters of a line that are shown in a message, and those of the first that tell what a file is."""

_ADVICE = "Each line must be one whole object (JSON Lines); `jq -c .[]` makes such lines of an array"


class _Number(str):
    """A number as it is written, whatever its digits."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """The pairs of an object, also where some have one name."""


class JsonLines(TextFormat):
    """One JSON object a line. A value that is not a string is kept as its JSON text."""

    suffixes = (".jsonl", ".ndjson", ".json")

    def rows(self, source: Source) -> Iterator[Row]:
        """Its objects, or what the lists of an S3 Inventory name."""
        is_report = s3_inventory.is_report(source)
        yield from s3_inventory.rows_of_report(source) if is_report else super().rows(source)

    def parse(self, file: TextIO, source: Source) -> Iterator[Row]:
        """One row an object; its keys are the columns."""
        uri, begin = source.file.uri, file.readline(SEEN)
        if begin.lstrip().startswith("["):  # all of an array may be one line, which need not be read
            raise _not_an_object(f"{uri}, line 1", begin)
        first = begin if begin.endswith(("\n", "\r")) else begin + file.readline()
        for number, line in enumerate(chain([first], file), 1):
            if line.strip():
                yield _row(line, f"{uri}, line {number}")


def _row(line: str, where: str) -> Row:
    """The row that a line says."""
    try:
        row = json.loads(
            line,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_Number,
            object_pairs_hook=_Object,
        )
        if isinstance(row, _Object):
            return _named(row, where)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{where} is not JSON: {error}. {_ADVICE}") from None
    except RecursionError:
        raise ManifestError(f"{where}: its values are nested too deeply to be read") from None
    raise _not_an_object(where, line)


def _named(pairs: "_Object", where: str) -> Row:
    row: dict[str, str | None] = {}
    for key, value in pairs:
        if (name := text_of(key)) in row:
            raise ManifestError(f"{where} has several values of {short_line(name)!r}. Keep one of them")
        row[name] = _as_written(value)
    return row


def _not_an_object(where: str, line: str) -> ManifestError:
    return ManifestError(
        f"{where}: found {clean_uri(line.strip())[:SHOWN]!r}, allowed: an object {{…}}. {_ADVICE}"
    )


def _as_written(value: Any) -> str | None:
    """A text, with U+FFFD for halves of characters that are escaped in it; of another value its JSON."""
    if isinstance(value, str):
        return text_of(value)
    return None if value is None else text_of(_json(value))


def _json(value: Any) -> str:
    """The JSON of a value, its numbers as they were written."""
    match value:
        case _Number():
            return str(value)
        case _Object():
            pairs = (f"{_json(name)}: {_json(inner)}" for name, inner in value)
            return f"{{{', '.join(pairs)}}}"
        case list():
            return f"[{', '.join(map(_json, value))}]"
        case _:
            return json.dumps(value, ensure_ascii=False)
