import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.exceptions import ManifestError
from schemas.locations import NO_URI
from workers.manifest.convert import to_parquet
from workers.manifest.formats import rows_of
from workers.manifest.manifest import Manifest, ManifestFile


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_text_is_one_uri_a_line_and_empty_lines_are_none(tmp_path: Path) -> None:
    uri = write(tmp_path / "m.txt", "a.jpg\n\n  b c.jpg  \r\n\nüñí.jpg")
    assert list(rows_of(uri, "text")) == [{"uri": "a.jpg"}, {"uri": "b c.jpg"}, {"uri": "üñí.jpg"}]


def test_csv_values_are_kept_as_written_quotes_commas_and_line_breaks_included(tmp_path: Path) -> None:
    uri = write(tmp_path / "m.csv", 'uri,note,n\n"a,1.jpg","two\nlines",007\n\nb.jpg,"say ""hi""",\n')
    assert list(rows_of(uri, "csv")) == [
        {"uri": "a,1.jpg", "note": "two\nlines", "n": "007"},
        {"uri": "b.jpg", "note": 'say "hi"', "n": ""},
    ]


def test_json_lines_keep_strings_and_the_json_of_everything_else(tmp_path: Path) -> None:
    uri = write(
        tmp_path / "m.jsonl", '{"uri": "a.jpg", "n": 7, "tags": ["x", "é"]}\n\n{"uri": null, "ok": true}\n'
    )
    assert list(rows_of(uri, "jsonl")) == [
        {"uri": "a.jpg", "n": "7", "tags": '["x", "é"]'},
        {"uri": None, "ok": "true"},
    ]


def test_a_byte_order_mark_and_compression_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "m.csv.gz"
    path.write_bytes(gzip.compress("\ufeffuri\na.jpg\n".encode()))
    assert list(rows_of(str(path), "csv")) == [{"uri": "a.jpg"}]


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("csv", "uri,b\na.jpg\n", r"line 2: found 1 values, but the header has 2 columns \(uri, b\)"),
        ("csv", "uri,uri\na,b\n", "names a column twice: uri, uri"),
        ("csv", 'uri\n"a.jpg\n', "line 2 is not CSV"),
        ("jsonl", '{"uri": "a"}\n{"uri"', "line 2 is not JSON"),
        ("jsonl", '["a.jpg"]\n', r"line 1: found '\[\"a.jpg\"\]', allowed: an object"),
    ],
)
def test_a_malformed_manifest_is_refused_with_its_line(
    tmp_path: Path, form: str, text: str, said: str
) -> None:
    with pytest.raises(ManifestError, match=said):
        list(rows_of(write(tmp_path / "m", text), form))


def test_a_manifest_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ManifestError, match="is not UTF-8 text"):
        list(rows_of(str(tmp_path / "m.txt"), "text"))


def test_other_formats_become_parquet_with_the_columns_of_their_rows(tmp_path: Path) -> None:
    uri = write(tmp_path / "m.jsonl", '{"uri": "a.jpg"}\n{"uri": "b.jpg", "split": "train"}\n')
    (made,) = to_parquet(uri, "jsonl", str(tmp_path / "out" / "00000"), "/base")
    assert made == ManifestFile(str(tmp_path / "out/00000-00000.parquet"), (2,), ("uri", "split"), "/base")
    assert pq.read_table(made.uri).to_pylist() == [
        {"uri": "a.jpg", "split": None},
        {"uri": "b.jpg", "split": "train"},
    ]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two files of unlike columns and several row groups: 7 and 4 rows."""
    folder = tmp_path_factory.mktemp("manifest")
    uris = [f"{n}.jpg" for n in range(11)]
    first = pa.table({"uri": uris[:7], "taken": pa.array(range(7), pa.int32()), "label": ["x"] * 7})
    second = pa.table(
        {"taken": pa.array(range(7, 11), pa.int64()), "uri": pa.array(uris[7:], pa.large_string())}
    )
    files = []
    for name, table, base in (("a", first, "/one"), ("b", second, "s3://bucket/two")):
        path = folder / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=3)
        groups = tuple(min(3, table.num_rows - start) for start in range(0, table.num_rows, 3))
        files.append(ManifestFile(str(path), groups, tuple(table.column_names), base))
    carried = pa.schema([("taken", pa.int64()), ("label", pa.string())])
    return Manifest(files, "uri", None, carried)


@given(data=st.data())
def test_any_range_of_rows_is_read_by_position_whatever_the_files(
    manifest: Manifest, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, 11))
    rows = range(start, data.draw(st.integers(start, 11)))
    found = manifest.read(rows)
    assert found.table.to_pylist() == [
        {
            "manifest_index": n,
            "image_id": None,
            "uri": f"{n}.jpg",
            "taken": n,
            "manifest_label": "x" if n < 7 else None,
        }
        for n in rows
    ]
    assert found.locations == [f"/one/{n}.jpg" if n < 7 else f"s3://bucket/two/{n}.jpg" for n in rows]


def test_a_row_without_a_uri_has_no_location(tmp_path: Path) -> None:
    pq.write_table(pa.table({"u": ["a.jpg", None, ""], "id": [1, 2, 3]}), tmp_path / "m.parquet")
    file = ManifestFile(str(tmp_path / "m.parquet"), (3,), ("u", "id"), "/base")
    found = Manifest([file], "u", "id", pa.schema([])).read(range(3))
    assert found.table.select(["image_id", "uri"]).to_pylist() == [
        {"image_id": "1", "uri": "a.jpg"},
        {"image_id": "2", "uri": ""},
        {"image_id": "3", "uri": ""},
    ]
    assert found.locations == ["/base/a.jpg", NO_URI, NO_URI]


def test_no_column_of_the_manifest_takes_the_place_of_one_of_ours(tmp_path: Path) -> None:
    own = ["unit", "boxes", "error", "label", "manifest_label", "split"]
    table = pa.table({"uri": ["a.jpg"], **{name: [name] for name in own}})
    pq.write_table(table, tmp_path / "m.parquet")
    file = ManifestFile(str(tmp_path / "m.parquet"), (1,), tuple(table.column_names), "/base")
    carried = pa.schema([(name, pa.string()) for name in own])
    assert Manifest([file], "uri", None, carried).read(range(1)).table.to_pylist() == [
        {
            "manifest_index": 0,
            "image_id": None,
            "uri": "a.jpg",
            "manifest_unit": "unit",
            "manifest_boxes": "boxes",
            "manifest_error": "error",
            "manifest_manifest_label": "label",
            "manifest_label": "manifest_label",
            "split": "split",
        }
    ]


def test_credentials_are_kept_for_reading_and_cut_from_what_is_stored(tmp_path: Path) -> None:
    signed = "https://u:p@host/a.jpg?X-Amz-Signature=s"
    pq.write_table(pa.table({"uri": [signed]}), tmp_path / "m.parquet")
    manifest = Manifest(
        [ManifestFile(str(tmp_path / "m.parquet"), (1,), ("uri",), "/")], "uri", None, pa.schema([])
    )
    found = manifest.read(range(1))
    assert (found.table["uri"].to_pylist(), found.locations) == (["https://host/a.jpg"], [signed])
