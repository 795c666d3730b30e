import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.exceptions import ManifestError
from schemas.spec import ManifestSpec
from tests.s3 import S3Server
from workers.manifest.find import find_sources
from workers.manifest.formats import FORMATS
from workers.manifest.formats.base import RowFormat

TIME = "2026-11-05T21:32:41.000Z"
LIST = "".join(
    f'"photos","{key}","{size}","{TIME}"\n'
    for key, size in (("a+b/c%2Bd%C3%A9.jpg", 833), ("a+b/", 0), ("e", 1))
)
ROWS = [{"uri": "s3://photos/a b/c+dé.jpg"}, {"uri": "s3://photos/e"}]


def rows(uri: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for source in find_sources(ManifestSpec(uri=uri)):
        fmt = FORMATS[source.format]
        assert isinstance(fmt, RowFormat)
        listed = [dict(row) for row in fmt.rows(source)]
        assert fmt.columns(source).names == list(listed[0])
        found += listed
    return found


def report(names: str, *keys: str, kind: str = "CSV") -> str:
    return json.dumps(
        {
            "sourceBucket": "photos",
            "destinationBucket": "arn:aws:s3:::lists",
            "version": "2016-11-30",
            "fileFormat": kind,
            "fileSchema": names,
            "files": [{"key": key, "size": 1, "MD5checksum": "0"} for key in keys],
        },
        indent=2,
    )


def test_a_list_without_its_report_is_known_by_its_shape(tmp_path: Path) -> None:
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(LIST.encode()))
    assert rows(f"{tmp_path}/list.csv.gz") == ROWS


@pytest.mark.parametrize(
    ("text", "uris"),
    [
        ('"photos","a%2Bb.jpg"\n', ["a+b.jpg"]),
        ('"photos","a.jpg"\n"photos","c%20d.jpg"\n', ["a.jpg", "c d.jpg"]),
        (f"photos,a.jpg,3,{TIME}\n", ["a.jpg"]),
        ('"photos","README","d41d8cd98f00b204e9800998ecf8427e","STANDARD"\n', ["README"]),
        (f'"photos","a","v2","true","false","{TIME}"\n"photos","a","v1","false","false","{TIME}"\n', ["a"]),
        (f'"photos","b","v1","true","true","{TIME}"\n"photos","a","","true","false","{TIME}"\n', ["a"]),
    ],
)
def test_lists_of_other_shapes_are_too(tmp_path: Path, text: str, uris: list[str]) -> None:
    (tmp_path / "list.csv").write_text(text)
    assert [row["uri"] for row in rows(f"{tmp_path}/list.csv")] == [f"s3://photos/{uri}" for uri in uris]


@pytest.mark.parametrize("text", ["uri,label\na.jpg,cat\n", '"uri","label"\n"uri","a.jpg"\n', "uri\na.jpg\n"])
def test_a_table_with_a_header_is_no_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    assert all(row["uri"] in ("a.jpg", "uri") for row in rows(f"{tmp_path}/m.csv"))


@pytest.mark.parametrize(
    "text",
    [
        '"cat","photos/a.jpg"\n"cat","photos/b.jpg"\n',
        '"cat","a+b.jpg"\n',
        "cat,photos/a%20b.jpg\ncat,c.jpg\n",
    ],
)
def test_labels_and_paths_are_not_taken_for_a_bucket_and_its_keys(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(
        ManifestError, match=r"should be named\. .*; of a list of S3 Inventory name its report"
    ):
        rows(f"{tmp_path}/m.csv")


def test_a_report_names_the_columns_and_the_lists_in_their_bucket(s3: S3Server) -> None:
    lists = s3.new_bucket()
    folder = "inventory/photos/daily"
    names = "Bucket, Key, Size, LastModifiedDate"
    text = report(names, f"{folder}/data/1.csv.gz", f"{folder}/data/2.csv.gz").replace("lists", lists)
    s3.files().pipe_file(f"{lists}/{folder}/2026-11-06T01-00Z/manifest.json", text.encode())
    s3.files().pipe_file(f"{lists}/{folder}/2026-11-06T01-00Z/manifest.checksum", b"0")
    for number in (1, 2):
        s3.files().pipe_file(f"{lists}/{folder}/data/{number}.csv.gz", gzip.compress(LIST.encode()))
    facts = [{"Size": size, "LastModifiedDate": TIME} for size in ("833", "1")]
    expected = [row | fact for row, fact in zip(ROWS, facts, strict=True)] * 2
    assert rows(f"s3://{lists}/{folder}/2026-11-06T01-00Z") == expected
    with pytest.raises(ManifestError, match=r"Name one report: s3://.*/2026-11-06T01-00Z/manifest\.json"):
        rows(f"s3://{lists}/{folder}")


def test_a_copy_of_a_report_is_read_with_the_lists_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "2026-11-06T01-00Z"
    folder.mkdir()
    (folder / "manifest.json").write_text(report("Bucket, Key, A, B", "inventory/photos/data/1.csv.gz"))
    for place in (folder, folder / "data", tmp_path / "data"):
        place.mkdir(exist_ok=True)
        (place / "1.csv.gz").write_bytes(gzip.compress(LIST.encode()))
        assert [row["uri"] for row in rows(f"{folder}/manifest.json")] == [row["uri"] for row in ROWS]
        (place / "1.csv.gz").unlink()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            report("message s3.inventory {", "a.parquet", kind="Parquet"),
            "are Parquet with .*allowed: CSV with",
        ),
        (
            report("Bucket, Key", "1.csv"),
            r"1\.csv, line 1: found 4 values, but S3 Inventory's are Bucket, Key",
        ),
        (report("Bucket, Key, A, B, C", "1.csv"), r"1\.csv, line 1: found 4 values"),
        (report("Bucket, Key, A, B", "1.csv")[:-20], "is not a report of S3 Inventory: JSONDecodeError"),
        (
            '{"fileSchema": 1, "destinationBucket": 2}',
            "is not a report of S3 Inventory: KeyError: 'fileFormat'",
        ),
        (
            report("Bucket, Key", "1.csv").replace('"1.csv"', "5"),
            "is not a report of S3 Inventory: TypeError: found 5, allowed: a text",
        ),
    ],
)
def test_a_report_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    (tmp_path / "1.csv").write_text(LIST)
    with pytest.raises(ManifestError, match=message):
        rows(f"{tmp_path}/manifest.json")


def test_json_lines_of_that_name_are_json_lines(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"uri": "a.jpg"}\n')
    assert rows(f"{tmp_path}/manifest.json") == [{"uri": "a.jpg"}]
