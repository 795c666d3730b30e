"""S3 Inventory: lists of a bucket's objects, as Amazon writes them, read as rows with a URI.

A report is a `manifest.json`, which names the columns and the lists, and the lists: CSV without a header and
with URL-encoded keys:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa

from schemas.exceptions import ManifestError
from schemas.locations import IMAGE_ENDINGS
from workers.manifest.columns import strings
from workers.manifest.formats.base import Row
from workers.manifest.formats.text_files import open_text
from workers.manifest.sources import Source
from workers.manifest.suffixes import suffix_of
from workers.printable import message_of, short_line
from workers.records import Record, read_records
from workers.storage.filesystem import file_system
from workers.storage.uris import clean_uri, parent_url

_REPORT_HEAD = 2**16
"""Characters of a `manifest.json` within which a report says what it is."""

_REPORT = re.compile(r"/\d{4}-\d\d-\d\dT\d\d-\d\dZ/manifest\.json$")
"""Where Amazon puts a report: in a folder of its time, beside which is the folder of its lists."""

_MINIMAL = ("Bucket", "Key")
_VERSIONS = ("VersionId", "IsLatest", "IsDeleteMarker")
_NOT_CARRIED = (*_MINIMAL, "IsLatest", "IsDeleteMarker")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FACT = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]+Z|[0-9a-f]{32}(-\d+)?|STANDARD|STANDARD_IA|ONEZONE_IA|INTELLIGENT_TIERING|GLACIER|"
    r"GLACIER_IR|DEEP_ARCHIVE|REDUCED_REDUNDANCY|EXPRESS_ONEZONE|OUTPOSTS"
)
"""A time, an ETag or a storage class, one of which most lists have in each row."""

_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")


def assert_one_each(uris: list[str]) -> None:
    """Refuses a folder or glob with several reports of one inventory, or with a report and its lists.

    Args:
        uris: the manifest files that were found there.

    Raises:
        ManifestError: with the report to name.
    """
    reports = [uri for uri in uris if _REPORT.search(uri)]
    inventories = {_REPORT.sub("", uri) for uri in reports}
    if reports and len(inventories) < len(uris):
        raise ManifestError(
            f"found {len(uris)} files of S3 Inventory, which list the same objects. Name one report: "
            f"{clean_uri(reports[-1])}"
        )


def is_report(source: Source) -> bool:
    """Whether a file is the `manifest.json` of a report."""
    if clean_uri(source.uri).rpartition("/")[2] != "manifest.json":
        return False
    with open_text(source.uri) as file:
        head = file.read(_REPORT_HEAD)
    return '"fileSchema"' in head and '"destinationBucket"' in head


def rows_of_report(source: Source) -> Iterator[Row]:
    """Yields a row for each object that the lists of a report name, see `rows_of`.

    Raises:
        ManifestError: the report or a list is damaged, or the lists are no CSV.
    """
    names, lists = _lists_of(source)
    for url in lists:
        with open_text(url) as file:
            yield from rows_of(names, read_records(file, clean_uri(url)), clean_uri(url), complete=True)


def _lists_of(source: Source) -> tuple[list[str], list[str]]:
    """Returns the columns of a report's lists, and where the lists are.

    Raises:
        ManifestError: the report is damaged, or its lists are no CSV.
    """
    with open_text(source.uri) as file:
        try:
            report = json.load(file)
            kind, bucket = report["fileFormat"], report["destinationBucket"].rpartition(":")[2]
            names = [name.strip() for name in report["fileSchema"].split(",")]
            keys = [_text(entry["key"]) for entry in report["files"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = f"{type(error).__name__}: {message_of(error)}"
            raise ManifestError(f"{source.file.uri} is not a report of S3 Inventory: {why}") from None
    if kind != "CSV" or names[:2] != [*_MINIMAL]:
        raise ManifestError(
            f"the lists of {source.file.uri} are {kind} with {', '.join(names)}; allowed: CSV with Bucket, "
            "Key and others. Set the inventory's format to CSV, or make a Parquet file of the lists with a "
            "column uri: 's3://' || bucket || '/' || key"
        )
    return names, [_list_url(source.uri, bucket, key) for key in keys]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"found {short_line(repr(value))}, allowed: a text")


def _list_url(report: str, bucket: str, key: str) -> str:
    """Where a list of a report is: in the bucket it was written to, or beside a copy of the report."""
    if not report.startswith(f"s3://{bucket}/"):
        folder, name = parent_url(report), key.rpartition("/")[2]
        for url in (f"{folder}/{name}", f"{folder}/data/{name}", f"{parent_url(folder)}/data/{name}"):
            fs, path = file_system(url)
            if fs.exists(path):
                return url
    return f"s3://{bucket}/{key}"


def columns_of(record: list[str], next_record: list[str], line: str) -> list[str] | None:
    """Returns the first columns of a list whose report is not at hand; None of what is no such list.

    Args:
        record: the first of the list.
        next_record: the second; empty where there is none.
        line: the first as it is written: Amazon quotes every value.
    """
    if len(record) < 2 or not _BUCKET.fullmatch(record[0]) or next_record[:1] not in ([], record[:1]):
        return None
    key = unquote_plus(record[1])
    is_path = "/" in key or suffix_of(key) in IMAGE_ENDINGS
    is_quoted = line.startswith(f'"{record[0]}","{record[1]}"')
    is_encoded = any(_ENCODED.search(row[1]) for row in (record, next_record) if len(row) > 1)
    # quotes alone have many tables, of labels and paths too, and the bucket might be somebody else's
    if any(map(_FACT.fullmatch, record[2:])) or (is_path and "://" not in key and is_quoted and is_encoded):
        has_versions = len(record) >= 5 and {*record[3:5]} <= {"true", "false"}
        return [*_MINIMAL, *(_VERSIONS if has_versions else ())]
    return None


def rows_of(
    names: list[str], records: Iterable[Record], uri: str, *, complete: bool = False
) -> Iterator[Row]:
    """Yields a row for each object that a list names; not for old versions, deleted objects and folders.

    Args:
        names: the columns of the list, or the first of them: the others are not carried.
        records: of the list.
        uri: of the list, for messages.
        complete: whether these are all columns.

    Raises:
        ManifestError: a record has other columns.
    """
    carried = [(number, name) for number, name in enumerate(names) if name not in _NOT_CARRIED]
    for line, values in records:
        if len(values) < len(names) or (complete and len(values) > len(names)):
            raise ManifestError(
                f"{uri}, line {line}: found {len(values)} values, but S3 Inventory's are {', '.join(names)}"
            )
        fields = dict(zip(names, values, strict=False))
        key = unquote_plus(fields["Key"])
        is_old = fields.get("IsLatest") == "false" or fields.get("IsDeleteMarker") == "true"
        if not is_old and not key.endswith("/"):
            yield {"uri": f"s3://{fields['Bucket']}/{key}"} | {
                name: values[number] for number, name in carried
            }


def schema_of(names: list[str]) -> pa.Schema:
    """The columns of the rows of a list with such columns."""
    return strings(["uri", *(name for name in names if name not in _NOT_CARRIED)])
