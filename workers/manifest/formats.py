"""Manifest rows out of text, CSV, JSON Lines and tar files."""

import csv
import json
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, TextIO

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError, ManifestError
from schemas.locations import MissingImage
from schemas.spec import FetchSpec
from workers.fetch.tar import Member, members
from workers.storage.filesystem import open_file
from workers.storage.uris import clean_uri

Row = dict[str, str | None]


def rows_of(uri: str, form: str) -> Iterator[Row]:
    """The rows of a CSV, JSON Lines or text manifest, in order.

    Raises:
        ManifestError: with the line where the file is not what its format says.
    """
    try:
        with open_file(uri, "rt", compression="infer", encoding="utf-8-sig", newline="") as file:
            yield from _READERS[form](file, clean_uri(uri))
    except UnicodeDecodeError as error:
        raise ManifestError(f"{clean_uri(uri)} is not UTF-8 text: {error}") from None


def _text(file: TextIO, _: str) -> Iterator[Row]:
    for line in file:
        if uri := line.strip():
            yield {"uri": uri}


def _jsonl(file: TextIO, uri: str) -> Iterator[Row]:
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


def _csv(file: TextIO, uri: str) -> Iterator[Row]:
    reader = csv.reader(file, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        if len(set(header)) != len(header):
            raise ManifestError(f"{uri} names a column twice: {', '.join(header)}")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise ManifestError(
                    f"{uri}, line {reader.line_num}: found {len(values)} values, but the header has "
                    f"{len(header)} columns ({', '.join(header)})"
                )
            yield dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ManifestError(f"{uri}, line {reader.line_num} is not CSV: {error}") from None


_READERS: dict[str, Callable[[TextIO, str], Iterator[Row]]] = {"text": _text, "jsonl": _jsonl, "csv": _csv}


def rows_of_tar(tar: str, spec: FetchSpec) -> Iterator[dict[str, Any]]:
    """The manifest rows of a tar file, under `schemas.locations.MEMBERS`.

    One for each image. A sample without one, an image that is not there as it is, and the end of a tar file
    that is cut are rows too, which will fail: what is missing is told.

    Raises:
        ManifestError: it is no tar file, it is compressed, or it cannot be read.
    """
    try:
        for key, sample in groupby(members(tar, spec), _key_of):
            found = list(sample)
            rows = [_row(each) for each in found if not isinstance(each, Member) or each.is_image]
            names = [each.name for each in found if isinstance(each, Member)]
            yield from rows or [_without_image(str(key), names)]
    except ImageError as error:
        raise ManifestError(f"cannot read the headers of {error.message}") from None


def _key_of(member: "Member | MissingImage") -> str | None:
    return member.key if isinstance(member, Member) else None


def _row(found: "Member | MissingImage") -> dict[str, Any]:
    match found:
        case MissingImage(code, why):
            return {"code": code.value, "why": why}
        case Member(name, key, _, fault) if fault:
            return {"image_id": key, "name": name, "code": ErrorCode.UNSUPPORTED.value, "why": fault}
        case Member(name, key, (start, size)):
            return {"image_id": key, "name": name, "start": start, "size": size}


def _without_image(key: str, names: list[str]) -> dict[str, Any]:
    why = f"sample {key!r} has no image; it has: {', '.join(names)}"
    return {"image_id": key, "name": key, "code": ErrorCode.NOT_FOUND.value, "why": why}
