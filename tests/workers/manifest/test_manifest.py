from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.locations import NO_URI
from workers.manifest.files import ManifestFile
from workers.manifest.manifest import Manifest


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


def test_results_have_absolute_uris_and_the_manifests_own_but_no_secret_of_either(tmp_path: Path) -> None:
    uris = ["a.jpg", "./b.jpg", "c.jpg?sig=secret", "https://h/d.jpg", "https://h/e.jpg?token=secret", None]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    file = ManifestFile(str(tmp_path / "m.parquet"), (6,), ("uri",), "https://base/in")
    found = Manifest([file], "uri", "uri", pa.schema([])).read(range(6)).for_results()
    assert found["image_id"].to_pylist() == [
        "a.jpg",
        "./b.jpg",
        "c.jpg",
        "https://h/d.jpg",
        "https://h/e.jpg",
        None,
    ]
    shown = found.select(["uri", "manifest_uri", "uri_is_cut"]).to_pylist()
    assert [tuple(row.values()) for row in shown] == [
        ("https://base/in/a.jpg", "a.jpg", False),
        ("https://base/in/b.jpg", "./b.jpg", False),
        ("https://base/in/c.jpg", "c.jpg", True),
        ("https://h/d.jpg", None, False),
        ("https://h/e.jpg", None, True),
        ("", None, True),
    ]


def test_no_column_of_the_manifest_takes_the_place_of_one_of_ours(tmp_path: Path) -> None:
    own = ["unit", "key", "error", "label", "manifest_label", "split"]
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
            "manifest_key": "key",
            "manifest_error": "error",
            "manifest_manifest_label": "label",
            "manifest_label": "manifest_label",
            "split": "split",
        }
    ]


def test_credentials_are_kept_for_reading_and_cut_from_what_is_stored(tmp_path: Path) -> None:
    signed = "https://u:p@host/a.jpg?X-Amz-Signature=s"
    pq.write_table(pa.table({"uri": [signed, f" {signed}", None]}), tmp_path / "m.parquet")
    file = ManifestFile(str(tmp_path / "m.parquet"), (3,), ("uri",), "/")
    for id_column, ids in ((None, [None] * 3), ("uri", ["https://host/a.jpg", " https://host/a.jpg", None])):
        found = Manifest([file], "uri", id_column, pa.schema([])).read(range(3))
        assert found.table["uri"].to_pylist() == ["https://host/a.jpg", " https://host/a.jpg", ""]
        assert found.locations == [signed, signed, NO_URI]
        assert found.table["image_id"].to_pylist() == ids


def test_a_path_that_is_no_text_is_not_taken_for_an_id(tmp_path: Path) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.binary())])
    table = pa.table({"key": ["a"], "image": pa.array([{"bytes": b"1", "path": b"p"}], image)})
    pq.write_table(table, tmp_path / "m.parquet")
    file = ManifestFile(str(tmp_path / "m.parquet"), (1,), ("key", "image", "image.path"), "/")
    for id_column, expected in (("key", ["a"]), (None, [None])):
        rows = Manifest([file], "uri", id_column, pa.schema([]), "image").read([0])
        assert rows.table["image_id"].to_pylist() == expected
