import gzip
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.exceptions import ManifestError
from schemas.ledger import SourceFile
from schemas.locations import IMAGE_ENDINGS, ParquetCell, TarMember
from schemas.spec import ManifestFormat, ManifestSpec
from tests.workers.archives import tar_bytes, write_hf
from workers.manifest.find import find_sources
from workers.manifest.formats import FORMATS, format_of
from workers.manifest.formats.base import RowFormat
from workers.manifest.sources import Source


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def source(name: ManifestFormat, uri: str) -> Source:
    return Source(SourceFile(uri=uri, size=0, version=""), uri, name, "/base")


def rows(name: ManifestFormat, uri: str) -> list[Any]:
    fmt = FORMATS[name]
    assert isinstance(fmt, RowFormat)
    return list(fmt.rows(source(name, uri)))


def test_the_formats_of_the_spec_are_those_that_are_registered() -> None:
    assert sorted(FORMATS) == sorted(get_args(ManifestFormat))


def test_a_suffix_is_that_of_one_format() -> None:
    suffixes = [suffix for fmt in FORMATS.values() for suffix in (*fmt.suffixes, *fmt.refused)]
    assert len(suffixes) == len(set(suffixes)) > len(IMAGE_ENDINGS)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://b/a.PARQUET", "parquet"),
        ("a.pq", "parquet"),
        ("/x.y/a.csv.gz", "csv"),
        ("a.b.ndjson.ZST", "jsonl"),
        ("https://h/a.json?sig=b.csv", "jsonl"),
        ("a.txt.xz", "text"),
        ("a.TSV.gz", "csv"),
        ("a.tar", "tar"),
        ("a.tar.bz2", "tar"),
        ("a.tgz", "tar"),
        ("a.JPG", "images"),
        *((name, None) for name in ("a.dat", "a", ".csv", ".gz", "a.gz", "a.", "csv", "/x.csv/a")),
    ],
)
def test_a_file_has_the_format_of_its_suffix_without_a_compressions(uri: str, name: str | None) -> None:
    assert format_of(uri) == name


def test_only_compressed_tar_files_are_refused_by_their_names() -> None:
    tar = FORMATS["tar"]
    for name in ("a.tar.gz", "a.TAR.BZ2", "a.tar.xz", "a.tar.zst", "a.tgz", "a.tbz2", "a.txz", "a.tzst"):
        assert "is compressed (by its name)" in (tar.refusal(f"https://key@h/{name}?sig=1") or "")
        assert "key" not in (tar.refusal(f"s3://key:secret@b/{name}") or "")
        assert FORMATS["csv"].refusal(name) is None
    assert tar.refusal("a.tar") is tar.refusal("a.dat") is None


@pytest.mark.parametrize(
    ("name", "text", "first"),
    [
        ("text", "\n a.jpg\n", "/base/a.jpg"),
        ("text", "\n", None),
        ("csv", "n,uri\n1,s3://b/a.jpg\n", "s3://b/a.jpg"),
        ("csv", "n,uri\n1,\n", None),
        ("jsonl", '{"uri": "a.jpg"}\n', "/base/a.jpg"),
        ("jsonl", "", None),
    ],
)
def test_the_first_image_of_a_list_is_what_its_first_row_names(
    tmp_path: Path, name: ManifestFormat, text: str, first: str | None
) -> None:
    listed = source(name, write(tmp_path / "m", text))
    assert FORMATS[name].first_location(ManifestSpec(uri=listed.uri), listed) == first


def test_the_first_image_within_a_file_is_a_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(tar_bytes([("a.txt", b"text"), ("a.jpg", b"image")]))
    shard = source("tar", str(tmp_path / "m"))
    spec = ManifestSpec(uri=shard.uri)
    assert FORMATS["tar"].first_location(spec, shard) == TarMember(shard.uri, "a.jpg", (1536, 5))
    write_hf(tmp_path / "h", [b"image"])
    held = source("parquet", str(tmp_path / "h"))
    assert FORMATS["parquet"].first_location(spec, held) == ParquetCell(held.uri, "image", 0)
    pq.write_table(pa.table({"uri": ["a.jpg"]}), tmp_path / "n")
    assert FORMATS["parquet"].first_location(spec, source("parquet", str(tmp_path / "n"))) == "/base/a.jpg"


def test_the_first_image_of_a_folder_is_the_first_of_its_listing(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).write_bytes(b"")
    spec = ManifestSpec(uri=str(tmp_path))
    (listed,) = find_sources(spec)
    FORMATS["images"].check(spec, listed)
    assert FORMATS["images"].first_location(spec, listed) == f"{tmp_path}/a.jpg"


def test_text_is_one_uri_a_line_and_empty_lines_are_none(tmp_path: Path) -> None:
    uri = write(tmp_path / "m.txt", "a.jpg\n\n  b c.jpg  \r\n\nüñí.jpg")
    assert rows("text", uri) == [{"uri": "a.jpg"}, {"uri": "b c.jpg"}, {"uri": "üñí.jpg"}]


def test_csv_values_are_kept_as_written_quotes_commas_and_line_breaks_included(tmp_path: Path) -> None:
    uri = write(tmp_path / "m.csv", 'uri,note,n\n"a,1.jpg","two\nlines",007\n\nb.jpg,"say ""hi""",\n')
    assert rows("csv", uri) == [
        {"uri": "a,1.jpg", "note": "two\nlines", "n": "007"},
        {"uri": "b.jpg", "note": 'say "hi"', "n": ""},
    ]


def test_json_lines_keep_strings_and_the_json_of_everything_else(tmp_path: Path) -> None:
    uri = write(
        tmp_path / "m.jsonl", '{"uri": "a.jpg", "n": 7, "tags": ["x", "é"]}\n\n{"uri": null, "ok": true}\n'
    )
    assert rows("jsonl", uri) == [
        {"uri": "a.jpg", "n": "7", "tags": '["x", "é"]'},
        {"uri": None, "ok": "true"},
    ]


def test_the_numbers_of_json_stay_as_they_are_written(tmp_path: Path) -> None:
    numbers = ["1" * 5000, "-0", "1.10", "1E400", "12345678901234567890", "0.1000000000000000055", "NaN"]
    line = ", ".join(f'"n{n}": {number}' for n, number in enumerate(numbers))
    uri = write(tmp_path / "m.jsonl", f'{{"uri": "a.jpg", {line}, "all": {{"a": [{", ".join(numbers)}]}}}}')
    assert rows("jsonl", uri) == [
        {"uri": "a.jpg"}
        | {f"n{n}": number for n, number in enumerate(numbers)}
        | {"all": f'{{"a": [{", ".join(numbers)}]}}'}
    ]


def test_a_half_of_a_character_in_json_becomes_u_fffd(tmp_path: Path) -> None:
    half, whole = r"\ud83d", r"\ud83d\ude00"
    uri = write(
        tmp_path / "m.jsonl", f'{{"uri": "{half}.jpg", "c{half}": ["{half}", "{whole}"], "w": "{whole}"}}'
    )
    assert rows("jsonl", uri) == [{"uri": "\ufffd.jpg", "c\ufffd": '["\ufffd", "😀"]', "w": "😀"}]


def test_an_array_of_json_is_refused_before_all_of_it_is_read(tmp_path: Path) -> None:
    uri = write(tmp_path / "m.json", "[" + '{"uri": "a.jpg"},' * 100_000 + "]")
    with pytest.raises(ManifestError, match=r"must be one whole object .*`jq -c \.\[\]`") as refused:
        rows("jsonl", uri)
    assert len(str(refused.value)) < 500


def test_a_byte_order_mark_and_compression_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "m.csv.gz"
    path.write_bytes(gzip.compress("\ufeffuri\na.jpg\n".encode()))
    assert rows("csv", str(path)) == [{"uri": "a.jpg"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("csv", "uri,b\na.jpg\n", r"line 2: found 1 values, but the header has 2 columns \(uri, b\)"),
        ("csv", "uri,uri\na,b\n", "names a column twice: uri, uri"),
        ("csv", 'uri\n"a.jpg\n', "line 2 is not CSV"),
        ("jsonl", '{"uri": "a"}\n{"uri"', "line 2 is not JSON"),
        ("jsonl", '{\n"uri": "a"\n}\n', r"line 1 is not JSON: .* Each line must be one whole object"),
        ("jsonl", f'{{"a": {"[" * 1000}{"]" * 1000}}}\n', "line 1: its values are nested too deeply"),
        ("jsonl", f'{{"a": {"[" * 10**6}\n', "line 1: its values are nested too deeply"),
        ("jsonl", "7\n", "line 1: found '7', allowed: an object"),
        ("jsonl", '"https://me:pw@h/x?sig"\n', """line 1: found '"https://h/x', allowed: an object"""),
        ("jsonl", '{"a": {"b": 1, "b": 2}, "a": 3}\n', "line 1 has several values of 'a'. Keep one of them"),
        ("jsonl", '{"\\ud83d": 1, "\\ud83c": 2}\n', "line 1 has several values of '\ufffd'"),
        ("jsonl", '["a.jpg"]\n', r"line 1: found '\[\"a.jpg\"\]', allowed: an object"),
    ],
)
def test_a_malformed_manifest_is_refused_with_its_line(
    tmp_path: Path, name: ManifestFormat, text: str, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        rows(name, write(tmp_path / "m", text))


def test_a_manifest_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ManifestError, match="is not UTF-8 text"):
        rows("text", str(tmp_path / "m.txt"))
