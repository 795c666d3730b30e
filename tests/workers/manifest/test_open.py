import json
import os
import shutil
import threading
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.exceptions import ManifestError, StorageError
from schemas.ledger import SourceFile
from schemas.locations import NO_URI, ParquetCell, TarMember
from schemas.spec import FetchSpec, ManifestSpec, StorageOptions
from tests.workers.archives import HF_IMAGE, shard_of, tar_bytes, write_hf
from workers.fetch.locate import read_image
from workers.manifest.convert import convert
from workers.manifest.find import find_sources
from workers.manifest.formats import FORMATS
from workers.manifest.manifest import Manifest
from workers.manifest.open import assert_common_columns, map_here, open_manifest
from workers.manifest.sources import Source
from workers.storage.options import configure_storage
from workers.storage.store import Store


def opened(spec: ManifestSpec, output: Path) -> Manifest:
    return open_manifest(spec, find_sources(spec), Store(str(output)), map_here)


def rows(spec: ManifestSpec, output: Path) -> list[dict[str, Any]]:
    """All rows, each with its location."""
    manifest = opened(spec, output)
    found = manifest.read(range(manifest.rows))
    table = found.table.to_pylist()
    return [row | {"location": location} for row, location in zip(table, found.locations, strict=True)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same two images named by a manifest of each format."""
    folder = tmp_path / "in"
    folder.mkdir()
    table = pa.table({"uri": ["a.jpg", "b.jpg"], "image_id": ["A", "B"], "split": ["train", "test"]})
    pq.write_table(table, folder / "m.parquet")
    (folder / "m.csv").write_text("uri,image_id,split\na.jpg,A,train\nb.jpg,B,test\n")
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return folder


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl"])
def test_every_format_gives_the_same_rows(folder: Path, tmp_path: Path, name: str) -> None:
    assert rows(ManifestSpec(uri=str(folder / name)), tmp_path / "out") == [
        {"manifest_index": n, "image_id": i, "uri": u, "location": f"{folder}/{u}", "split": s}
        for n, i, u, s in [(0, "A", "a.jpg", "train"), (1, "B", "b.jpg", "test")]
    ]


def test_text_has_only_uris(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("a.jpg\n/x/b.jpg\n")
    found = rows(ManifestSpec(uri=str(tmp_path / "m.txt"), base="s3://bucket"), tmp_path / "out")
    assert [row["location"] for row in found] == ["s3://bucket/a.jpg", "/x/b.jpg"]


def test_many_files_are_one_manifest_in_the_order_named(folder: Path, tmp_path: Path) -> None:
    spec = ManifestSpec(uri=[str(folder / "m.jsonl"), str(folder / "m.parquet"), str(folder / "m.csv")])
    assert [row["uri"] for row in rows(spec, tmp_path / "out")] == ["a.jpg", "b.jpg"] * 3


@pytest.mark.parametrize("named", ["", "m.*"])
def test_a_folder_or_glob_of_manifests_is_read_by_name(folder: Path, tmp_path: Path, named: str) -> None:
    sources = find_sources(ManifestSpec(uri=f"{folder}/{named}"))
    assert [Path(source.uri).name for source in sources] == ["m.csv", "m.jsonl", "m.parquet"]
    assert len(rows(ManifestSpec(uri=f"{folder}/{named}"), tmp_path / "out")) == 6


def test_a_folder_with_images_is_listed_whatever_else_is_in_it(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(photos, folder / "deep" / "er")
    shutil.copy(photos / "coffee.png", folder / "UPPER.PNG")
    (folder / "labels.csv").write_text("uri\nx.jpg\n")
    (folder / ".hidden.jpg").write_bytes(b"")
    found = rows(ManifestSpec(uri=str(folder)), tmp_path / "out")
    names = [
        "astronaut.png",
        "camera.png",
        "chelsea.png",
        "china.jpg",
        "coffee.png",
        "flower.jpg",
        "rocket.jpg",
    ]
    expected = [f"{folder}/UPPER.PNG", *(f"{folder}/deep/er/{name}" for name in names)]
    assert [row["uri"] for row in found] == expected
    assert [row["location"] for row in found] == expected


def test_a_listed_image_is_found_whatever_bytes_its_name_has(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"in \xff")
    folder.mkdir()
    names = [b" a .jpg", b"b%20\xe9.jpg", b"c\n.jpg"]
    for name in names:
        shutil.copy(photos / "china.jpg", folder / os.fsdecode(name))
    for uri in (str(folder), f"{folder}/*.jpg"):
        found = rows(ManifestSpec(uri=uri), tmp_path / str(len(uri)))
        assert [row["uri"] for row in found] == [
            f"file://{tmp_path}/in%20%FF/{name}" for name in ("%20a%20.jpg", "b%2520%E9.jpg", "c%0A.jpg")
        ]
        for row in found:
            assert read_image(row["location"], FetchSpec()) == (photos / "china.jpg").read_bytes()
    (source,) = find_sources(ManifestSpec(uri=str(folder)))
    assert source.file.uri == f"file://{tmp_path}/in%20%FF"


def test_spaces_around_a_listed_name_are_its_own_and_around_a_written_one_are_not(tmp_path: Path) -> None:
    (tmp_path / " a .jpg ").write_bytes(b"")
    (tmp_path / "m.csv").write_text("uri\n a .jpg \n   \n")
    written = rows(ManifestSpec(uri=f"{tmp_path}/m.csv"), tmp_path / "out")
    assert [row["location"] for row in written] == [f"{tmp_path}/a .jpg", NO_URI]
    (listed,) = rows(ManifestSpec(uri=f"{tmp_path}/ a*", format="images"), tmp_path / "out")
    assert listed["location"] == listed["uri"] == f"{tmp_path}/ a .jpg "


def test_a_damaged_page_of_a_parquet_file_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    table = pa.table({"uri": [f"{n}.jpg" for n in range(2000)]})
    pq.write_table(table, path, row_group_size=1000, compression="gzip", use_dictionary=False)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start + 100 : start + 200] = bytes(100)
    path.write_bytes(data)
    manifest = opened(ManifestSpec(uri=str(path)), tmp_path / "out")
    assert manifest.read(range(1000)).table.num_rows == 1000
    damaged = r"^cannot read .*/m\.parquet as Parquet: it is damaged, or its end is missing: "
    with pytest.raises(ManifestError, match=damaged):
        manifest.read(range(999, 1001))


def test_a_glob_of_images_is_listed(photos: Path, tmp_path: Path) -> None:
    found = rows(ManifestSpec(uri=f"{photos}/c*.png"), tmp_path / "out")
    assert [Path(row["uri"]).name for row in found] == ["camera.png", "chelsea.png", "coffee.png"]


def test_images_in_a_bucket_are_listed(s3: Any, photos: Path, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    s3.files().put(str(photos / "china.jpg"), f"{bucket}/set/a b+c.jpg")
    s3.files().put(str(photos / "china.jpg"), f"{bucket}/set/x/d.jpg")
    found = rows(ManifestSpec(uri=f"s3://{bucket}/set"), tmp_path / "out")
    assert [row["uri"] for row in found] == [f"s3://{bucket}/set/a b+c.jpg", f"s3://{bucket}/set/x/d.jpg"]


def test_a_store_that_cannot_be_asked_for_the_manifest_is_said() -> None:
    configure_storage({"s3://b": StorageOptions(profile="nobody")})
    try:
        with pytest.raises(StorageError, match=r"cannot look for the manifest s3://b/m\.csv: .*\(nobody\)"):
            find_sources(ManifestSpec(uri="s3://b/m.csv"))
    finally:
        configure_storage({})


def test_a_presigned_manifest_on_the_web_is_read_and_its_signature_not_kept(
    folder: Path, tmp_path: Path
) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            web = f"http://127.0.0.1:{server.server_port}"
            for name in ("m.csv", "m.parquet"):
                spec = ManifestSpec(uri=f"{web}/{name}?signature=a/secret")
                (source,) = find_sources(spec)
                assert source.file.uri == f"{web}/{name}"
                locations = [row["location"] for row in rows(spec, tmp_path / name)]
                assert locations == [f"{web}/a.jpg", f"{web}/b.jpg"]
        finally:
            server.shutdown()
            thread.join()


def test_the_version_of_a_listing_changes_with_any_image(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(photos, folder)
    spec = ManifestSpec(uri=str(folder))
    before = find_sources(spec)
    assert find_sources(spec) == before
    (folder / "camera.png").write_bytes((folder / "chelsea.png").read_bytes())
    changed = find_sources(spec)
    (folder / "camera.png").unlink()
    fewer = find_sources(spec)
    assert [s.file.size for s in (*before, *changed, *fewer)] == [7, 7, 6]
    assert len({s.file.version for s in (*before, *changed, *fewer)}) == 3


def test_what_was_made_of_a_manifest_is_kept_and_used_again(folder: Path, tmp_path: Path) -> None:
    spec = ManifestSpec(uri=str(folder / "m.csv"))
    manifest = opened(spec, tmp_path / "out")
    first = manifest.read(range(manifest.rows))

    def never(_: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
        assert arguments == []
        return []

    again = open_manifest(spec, find_sources(spec), Store(str(tmp_path / "out")), never)
    assert again.read(range(again.rows)) == first


@pytest.mark.parametrize("ending", [".json", ".parquet"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda _: None,
        lambda _: b"",
        lambda data: data[: len(data) // 2],
        lambda _: b'{"source": 1}',
        lambda _: b"[" * 100_000,
        lambda _: bytes(range(256)),
    ],
)
def test_what_was_made_of_a_manifest_and_is_damaged_is_made_again(
    folder: Path, tmp_path: Path, ending: str, damage: Callable[[bytes], bytes | None]
) -> None:
    spec, store = ManifestSpec(uri=str(folder / "m.csv")), Store(str(tmp_path / "out"))
    manifest = opened(spec, tmp_path / "out")
    first = manifest.read(range(manifest.rows))
    (key,) = (key for key in store.list("_work/manifest") if key.endswith(ending))
    data = damage(store.read(key))
    store.delete([key]) if data is None else store.write(key, data)
    again = opened(spec, tmp_path / "out")
    assert again.files != manifest.files
    assert again.read(range(again.rows)) == first
    assert opened(spec, tmp_path / "out").files == again.files


def test_the_uri_and_id_columns_are_found_by_the_names_given(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("url,key,image_id\na.jpg,K,I\n")
    spec = ManifestSpec(uri=str(tmp_path / "m.csv"), uri_column="url", image_id_column="key", base="/b")
    assert rows(spec, tmp_path / "out") == [
        # the manifest's own image_id is carried beside the column that was chosen for it
        {
            "manifest_index": 0,
            "image_id": "K",
            "uri": "a.jpg",
            "location": "/b/a.jpg",
            "manifest_image_id": "I",
        }
    ]


def test_types_of_several_parquet_files_are_brought_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["a"], "n": pa.array([1], pa.int32())}), tmp_path / "1.parquet")
    categories = pa.array(["x"]).dictionary_encode()
    pq.write_table(pa.table({"uri": ["b"], "n": pa.array([2.5]), "c": categories}), tmp_path / "2.parquet")
    manifest = opened(ManifestSpec(uri=f"{tmp_path}/*.parquet"), tmp_path / "out")
    assert manifest.carried == pa.schema([("n", pa.float64()), ("c", pa.string())])
    assert [(r["n"], r["c"]) for r in manifest.read(range(2)).table.to_pylist()] == [(1.0, None), (2.5, "x")]


def write_files(folder: Path, name: str, columns: list[pa.Array]) -> str:
    """A manifest of one Parquet file for each column of that name; returns its glob."""
    for number, values in enumerate(columns):
        uris = [f"{number}-{n}.jpg" for n in range(len(values))]
        pq.write_table(pa.table({"uri": uris, name: values}), folder / f"{number}.parquet")
    return f"{folder}/*.parquet"


IDS = pa.array([2**53 + 1, 7])
TIME = datetime(2026, 1, 1)
GAPS = pa.array([1.0, None])
"""Integers as pandas writes them where one is missing."""


@pytest.mark.parametrize(
    ("columns", "kind", "values"),
    [
        ([IDS, GAPS], pa.int64(), [2**53 + 1, 7, 1, None]),
        ([pa.array([1]), pa.array([1.5])], pa.float64(), [1.0, 1.5]),
        ([pa.array(["a"], pa.string_view()), pa.array(["b"])], pa.string(), ["a", "b"]),
        (
            [pa.array([datetime(9999, 12, 31)], pa.timestamp("us")), pa.array([1000], pa.timestamp("ns"))],
            pa.timestamp("us"),
            [datetime(9999, 12, 31), datetime(1970, 1, 1, 0, 0, 0, 1)],
        ),
        (
            [pa.array([datetime(9999, 12, 31)], pa.timestamp("us")), pa.array([1], pa.timestamp("ns"))],
            pa.string(),
            ["9999-12-31 00:00:00", "1970-01-01 00:00:00.000000001"],
        ),
        ([pa.array([1.5], pa.float16())], pa.float32(), [1.5]),
        ([pa.array([10**9], pa.time64("ns"))], pa.string(), ["00:00:01"]),
        ([pa.nulls(1), pa.array([True])], pa.bool_(), [None, True]),
        (
            [pa.array([{"a": 1}]), pa.array([{"b": ["x"], "a": 2}])],
            pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
            [{"a": 1, "b": None}, {"a": 2, "b": ["x"]}],
        ),
        ([pa.array([{"id": 2**53 + 1}]), pa.array([{"id": 2.0}])], None, [{"id": 2**53 + 1}, {"id": 2}]),
    ],
)
def test_files_that_differ_are_carried_as_a_type_that_holds_every_value(
    tmp_path: Path, columns: list[pa.Array], kind: pa.DataType | None, values: list[Any]
) -> None:
    manifest = opened(ManifestSpec(uri=write_files(tmp_path, "x", columns)), tmp_path / "out")
    assert kind is None or manifest.carried == pa.schema([("x", kind)])
    assert manifest.read(range(len(values))).table["x"].to_pylist() == values


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            [pa.array([1]), pa.array(["1"])],
            r"is int64 in .*0\.parquet, string in .*1\.parquet, and no type holds",
        ),
        (
            [IDS, pa.array([1.5])],
            r"; as int64: .*1\.parquet: Float value 1\.5",
        ),
        (
            [pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("us", "UTC"))],
            "no type holds every",
        ),
        (
            [pa.array([{"a": 1}]), pa.array([{"a": "x"}])],
            "no type holds every value exactly. Write it with one type",
        ),
    ],
)
@pytest.mark.parametrize("name", ["x", "image_id"])
def test_files_without_a_common_type_are_refused_before_anything_starts(
    tmp_path: Path, columns: list[pa.Array], said: str, name: str
) -> None:
    spec = ManifestSpec(uri=write_files(tmp_path, name, columns))
    if name == "image_id" and pa.types.is_struct(columns[0].type):
        said = "column 'image_id' of .*0.parquet is struct<a: int64>, which has no text to be an image's id"
    with pytest.raises(ManifestError, match=said):
        opened(spec, tmp_path / "out")
    with pytest.raises(ManifestError, match=said):
        assert_common_columns(spec, find_sources(spec))


@pytest.mark.parametrize(
    ("columns", "ids"),
    [
        (
            [pa.array([123456789012, None]), pa.array([123456789012.0])],
            ["123456789012", None, "123456789012"],
        ),
        ([pa.array([123456789012]), pa.array([float("nan"), 2.0])], ["123456789012", None, "2"]),
        ([pa.array([float("nan"), 2.0, 123456789012.0])], [None, "2", "123456789012"]),
        ([pa.array([float("nan"), 1.5]).dictionary_encode()], [None, "1.5"]),
        ([pa.array([2**64 - 1], pa.uint64())], [str(2**64 - 1)]),
        ([pa.array([0.5, 2.0])], ["0.5", "2"]),
        ([pa.array([UUID(int=5).bytes], pa.uuid())], ["00000000-0000-0000-0000-000000000005"]),
        ([pa.array(["a"]).dictionary_encode(), pa.array(["b"], pa.large_string())], ["a", "b"]),
        ([pa.array([True, False])], ["true", "false"]),
        ([pa.array([Decimal("1.50")])], ["1.50"]),
        (
            [pa.array([datetime(2026, 1, 1)], pa.timestamp("ns")), pa.array([0], pa.timestamp("s"))],
            ["2026-01-01 00:00:00", "1970-01-01 00:00:00"],
        ),
    ],
)
def test_an_id_of_any_type_is_the_same_text_in_every_file(
    tmp_path: Path, columns: list[pa.Array], ids: list[str | None]
) -> None:
    manifest = opened(ManifestSpec(uri=write_files(tmp_path, "image_id", columns)), tmp_path / "out")
    table = manifest.read(range(manifest.rows)).table
    assert table["image_id"].to_pylist() == ids
    assert table.schema.field("image_id").type == pa.string()


@pytest.mark.parametrize(
    "others",
    [[pa.array([1.5])], [pa.array(["007", "7"])], [pa.array(["7"]), pa.array([1.0])], [pa.array([TIME])]],
)
def test_ids_that_would_get_another_text_are_refused(tmp_path: Path, others: list[pa.Array]) -> None:
    columns = [pa.array([123456789012]), *others]
    for some in (columns, [*others, pa.array([float("nan")]), *columns]):
        spec = ManifestSpec(uri=write_files(tmp_path, "image_id", some))
        with pytest.raises(
            ManifestError, match=r"column 'image_id' of the manifest is .* no type holds every"
        ):
            opened(spec, tmp_path / "out")


@pytest.mark.parametrize(
    "values",
    [pa.array([b"x" * 16], pa.binary(16)), pa.array([{"$oid": "x"}]), pa.array([["x"]]), pa.array([b"x"])],
)
def test_ids_that_have_no_text_are_refused_with_what_to_do(tmp_path: Path, values: pa.Array) -> None:
    spec = ManifestSpec(uri=write_files(tmp_path, "image_id", [values]))
    with pytest.raises(
        ManifestError, match=r"'image_id' of .*0\.parquet is .* name another column with manifest"
    ):
        opened(spec, tmp_path / "out")
    other = ManifestSpec(uri=f"{tmp_path}/*.parquet", image_id_column="uri")
    assert opened(other, tmp_path / "out").carried.names == ["image_id"]


@pytest.mark.parametrize("within", [False, True])
def test_int96_times_of_any_year_are_read_exactly_or_refused(tmp_path: Path, within: bool) -> None:
    far = [datetime(2300, 1, 1), datetime(1, 1, 1), None]
    for name, values in (
        ("far", pa.array(far, pa.timestamp("us"))),
        ("fine", pa.array([1], pa.timestamp("ns"))),
    ):
        column = pa.StructArray.from_arrays([values], names=["at"]) if within else values
        table = pa.table({"uri": ["a.jpg"] * len(values), "x": column})
        pq.write_table(table, tmp_path / f"{name}.parquet", use_deprecated_int96_timestamps=True)
    manifest = opened(ManifestSpec(uri=f"{tmp_path}/far.parquet"), tmp_path / "out")
    found = manifest.read(range(3)).table["x"].to_pylist()
    assert found == ([{"at": value} for value in far] if within else far)
    with pytest.raises(
        ManifestError, match=r"column 'x' of .*fine\.parquet has INT96 times with nanoseconds"
    ):
        opened(ManifestSpec(uri=f"{tmp_path}/*.parquet"), tmp_path / "out")


def test_uris_may_be_any_kind_of_text(tmp_path: Path) -> None:
    kinds = (pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.large_string()), pa.null())
    for number, kind in enumerate(kinds):
        values = pa.nulls(1) if kind == pa.null() else pa.array(["a.jpg"], pa.string()).cast(kind)
        pq.write_table(pa.table({"uri": values}), tmp_path / f"{number}.parquet")
    assert [row["uri"] for row in rows(ManifestSpec(uri=str(tmp_path)), tmp_path / "out")] == [
        "a.jpg"
    ] * 3 + [""]
    with pytest.raises(ManifestError, match=r"column 'uri' of .*3\.parquet is null; allowed: string"):
        opened(ManifestSpec(uri=f"{tmp_path}/3.parquet"), tmp_path / "out")


@pytest.mark.parametrize("nested", [False, True])
def test_fields_that_differ_only_in_case_are_refused_before_anything_starts(
    tmp_path: Path, nested: bool
) -> None:
    boxes: pa.Array = pa.array([{"Name": "x", "name": 1}])
    columns = [pa.array([[{"Name": "x", "name": 1}]]) if nested else boxes]
    spec = ManifestSpec(uri=write_files(tmp_path, "box", columns))
    with pytest.raises(
        ManifestError, match=r"column 'box' of the manifest has fields.*: 'Name' and 'name'\..*Rename one of"
    ):
        assert_common_columns(spec, find_sources(spec))


def test_a_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["uri", "a", "a"])
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"m\.parquet has several columns named 'a'"):
        opened(ManifestSpec(uri=f"{tmp_path}/m.parquet"), tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "spec", "said"),
    [
        (
            {},
            {"uri": "nothing.csv"},
            r"found no manifest at .*nothing\.csv\. A manifest is a file ending in \.parquet",
        ),
        (
            {"m.csv": "url\na.jpg\n"},
            {"uri": "m.csv"},
            r"m\.csv has no column 'uri' .* it has: url\. Set manifest",
        ),
        ({"m.csv": "uri\n"}, {"uri": "m.csv"}, "has no rows"),
        ({"m.csv": ""}, {"uri": "m.csv"}, "has no rows"),
        ({"m.dat": "a.jpg\n"}, {"uri": "m.dat"}, "manifest.format set"),
        ({"m.parquet": "not"}, {"uri": "m.parquet"}, r"cannot read .*m\.parquet as Parquet"),
        (
            {"m.csv": "uri,b\na.jpg,1\n"},
            {"uri": "m.csv", "image_id_column": "id"},
            "manifest.image_id_column is 'id'; the manifest has: uri, b",
        ),
        ({"m.csv": "uri,n\na.jpg,1\n"}, {"uri": ["m.csv", "gone.csv"]}, "found no manifest at .*gone.csv"),
    ],
)
def test_a_manifest_that_cannot_be_read_as_asked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], spec: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=said):
        opened(ManifestSpec(**spec), tmp_path / "out")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([1]), "int64"),
        (pa.array([1], pa.time64("us")), r"time64\[us\]"),
        (pa.array([b"0" * 16], pa.uuid()), "extension<arrow.uuid>"),
        (pa.nulls(1), "null"),
    ],
)
def test_a_uri_column_that_is_not_text_is_refused(tmp_path: Path, values: pa.Array, kind: str) -> None:
    pq.write_table(pa.table({"uri": values}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=rf"column 'uri' of .*m\.parquet is {kind}; allowed: string"):
        opened(ManifestSpec(uri=str(tmp_path / "m.parquet")), tmp_path / "out")


def test_csv_beside_parquet_of_other_types_is_refused_before_anything_starts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["a.jpg"], "n": [1]}), tmp_path / "0.parquet")
    (tmp_path / "1.csv").write_text("uri,n\nb.jpg,2\n")
    spec = ManifestSpec(uri=str(tmp_path))
    with pytest.raises(
        ManifestError, match=r"'n' of the manifest is int64 in .*0\.parquet, string in .*1\.csv"
    ):
        assert_common_columns(spec, find_sources(spec))
    (tmp_path / "1.csv").write_text("uri,m\nb.jpg,2\n")
    assert_common_columns(spec, find_sources(spec))
    (tmp_path / "2.jsonl").write_text('{"uri": "c.jpg"}\n{"uri": "c.jpg", "id": "7"}\n')
    spec = ManifestSpec(uri=str(tmp_path), image_id_column="id")  # it may be in any row
    assert_common_columns(spec, find_sources(spec))


def test_an_unusual_ending_is_read_when_the_format_is_given(tmp_path: Path) -> None:
    (tmp_path / "m.dat").write_text("a.jpg\n")
    found = rows(ManifestSpec(uri=str(tmp_path / "m.dat"), format="text", base="/b"), tmp_path / "out")
    assert [row["location"] for row in found] == ["/b/a.jpg"]


@pytest.fixture
def shards(tmp_path: Path, photos: Path) -> Path:
    """A data set as img2dataset leaves it: two shards, and what it wrote about each beside it."""
    folder = tmp_path / "shards"
    folder.mkdir()
    files = sorted(photos.glob("*.[pj]*g"))
    for number, part in enumerate((files[:4], files[4:])):
        (folder / f"{number:05d}.tar").write_bytes(shard_of(part))
        pq.write_table(pa.table({"url": ["x"], "key": ["000000000"]}), folder / f"{number:05d}.parquet")
        (folder / f"{number:05d}_stats.json").write_text('{"count": 4}')
    return folder


def test_shards_are_rows_in_the_order_of_their_names_and_what_lies_beside_them_is_not(
    shards: Path, tmp_path: Path, photos: Path
) -> None:
    names = [f"{n:09d}{file.suffix}" for n, file in enumerate(sorted(photos.glob("*.[pj]*g"))[:4])]
    names += [f"{n:09d}{file.suffix}" for n, file in enumerate(sorted(photos.glob("*.[pj]*g"))[4:])]
    tars = [f"{shards}/00000.tar"] * 4 + [f"{shards}/00001.tar"] * 3
    uris: list[str | list[str]] = [str(shards), f"{shards}/*.tar", [f"{shards}/0000{n}.tar" for n in (0, 1)]]
    for number, uri in enumerate(uris):
        found = rows(ManifestSpec(uri=uri), tmp_path / f"out-{number}")
        assert [row["uri"] for row in found] == [
            f"tar://{name}::{tar}" for name, tar in zip(names, tars, strict=True)
        ]
        assert [row["image_id"] for row in found] == [name.partition(".")[0] for name in names]
        assert all(isinstance(row["location"], TarMember) and row["location"].span for row in found)
        assert found[0].keys() == {"manifest_index", "image_id", "uri", "location"}


def test_the_headers_of_each_shard_are_read_once_even_where_the_reading_was_stopped(
    shards: Path, tmp_path: Path
) -> None:
    spec, store = ManifestSpec(uri=str(shards)), Store(str(tmp_path / "out"))

    def stopped(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
        function(*arguments[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_manifest(spec, find_sources(spec), store, stopped)
    asked: list[int] = []

    def counting(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
        asked.append(len(arguments))
        return map_here(function, arguments)

    found = [open_manifest(spec, find_sources(spec), store, counting) for _ in range(2)]
    assert asked == [1, 0]
    assert found[0].read(range(7)) == found[1].read(range(7))
    (shards / "00001.tar").write_bytes(tar_bytes([("a.jpg", b"another")]))
    assert open_manifest(spec, find_sources(spec), store, counting).rows == 5
    assert asked == [1, 0, 1]


def test_where_a_shard_is_read_is_not_kept_as_it_may_hold_credentials(shards: Path, tmp_path: Path) -> None:
    file = SourceFile(uri="s3://bucket/0.tar", size=1, version="1")
    store = Store(str(tmp_path / "out"))
    (made,) = convert(store, Source(file, f"{shards}/00000.tar", "tar", str(shards)))
    assert (made.origin, made.format) == (f"{shards}/00000.tar", "tar")
    assert len(store.list("")) == 2
    for key in store.list(""):
        assert str(shards).encode() not in store.read(key)


def test_shards_and_lists_of_files_may_be_one_manifest(shards: Path, folder: Path, tmp_path: Path) -> None:
    spec = ManifestSpec(uri=[str(folder / "m.csv"), f"{shards}/00001.tar"])
    found = rows(spec, tmp_path / "out")
    assert [row["image_id"] for row in found] == ["A", "B", "000000000", "000000001", "000000002"]
    assert [row["split"] for row in found] == ["train", "test", None, None, None]


@pytest.mark.parametrize("named", ["", "0.tar.gz", "*.tgz", "*"])
def test_compressed_shards_are_refused_with_what_to_do(tmp_path: Path, named: str) -> None:
    (tmp_path / "in").mkdir()
    for name in ("0.tar.gz", "1.tgz"):
        (tmp_path / "in" / name).write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"is compressed \(by its name\): .* Unpack it to a plain \.tar"):
        find_sources(ManifestSpec(uri=f"{tmp_path}/in/{named}"))
    if named in ("", "*"):
        (tmp_path / "in" / "2.tar").write_bytes(tar_bytes([("a.jpg", b"x")]))
        with pytest.raises(ManifestError, match="is compressed"):
            find_sources(ManifestSpec(uri=f"{tmp_path}/in/{named}"))


def test_a_compressed_tar_beside_lists_of_files_is_passed_over(folder: Path) -> None:
    (folder / "backup.tar.gz").write_bytes(b"x")
    assert len(find_sources(ManifestSpec(uri=str(folder)))) == 3


def test_a_tar_file_with_another_ending_is_read_when_the_format_is_given(
    shards: Path, tmp_path: Path
) -> None:
    (shards / "00001.tar").rename(tmp_path / "shard.dat")
    found = rows(ManifestSpec(uri=f"{tmp_path}/shard.dat", format="tar"), tmp_path / "out")
    assert [row["image_id"] for row in found] == [f"{n:09d}" for n in range(3)]


def test_a_parquet_file_with_images_is_rows_with_a_place_each(tmp_path: Path) -> None:
    for number in range(2):
        write_hf(tmp_path / f"{number}.parquet", [b"a", None, b"c"], row_group_size=2)
    found = rows(ManifestSpec(uri=f"{tmp_path}/*.parquet"), tmp_path / "out")
    places = [(number, row) for number in range(2) for row in range(3)]
    assert found == [
        {
            "manifest_index": 3 * number + row,
            "image_id": None if row == 1 else f"photo-{row}.jpg",
            "uri": f"parquet://image/{row}::{tmp_path}/{number}.parquet",
            "manifest_label": row,
            "location": ParquetCell(f"{tmp_path}/{number}.parquet", "image", row),
        }
        for number, row in places
    ]


def test_rows_of_a_file_with_images_are_read_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[str]] = []

    def spied(self: Any, size: int, columns: list[str], **options: Any) -> Any:
        read.append(columns)
        return whole(self, size, columns=columns, **options)

    whole = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spied)
    write_hf(tmp_path / "a.parquet", [b"a", b"b"])
    rows(ManifestSpec(uri=f"{tmp_path}/a.parquet"), tmp_path / "out")
    assert read == [["label", "image.path"]]


def test_a_plain_binary_column_holds_images_too_and_an_id_is_the_users_own(tmp_path: Path) -> None:
    table = pa.table({"jpg": [b"a", b"b"], "image_id": [7, 8], "url": ["x", "y"]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = rows(ManifestSpec(uri=f"{tmp_path}/a.parquet"), tmp_path / "out")
    assert [(row["image_id"], row["url"]) for row in found] == [("7", "x"), ("8", "y")]
    pq.write_table(table.select(["jpg"]), tmp_path / "b.parquet")
    found = rows(ManifestSpec(uri=f"{tmp_path}/b.parquet"), tmp_path / "out-b")
    assert [row["uri"] for row in found] == [f"parquet://jpg/{n}::{tmp_path}/b.parquet" for n in range(2)]


def test_the_image_column_may_be_named_beside_others(tmp_path: Path) -> None:
    table = pa.table(
        {"uri": ["x"], "image": [b"a"], "mask": pa.array([{"bytes": b"m", "path": "m"}], HF_IMAGE)}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (by_name,) = rows(ManifestSpec(uri=f"{tmp_path}/a.parquet"), tmp_path / "out")
    assert by_name["location"] == f"{tmp_path}/x"
    (held,) = rows(ManifestSpec(uri=f"{tmp_path}/a.parquet", image_column="image"), tmp_path / "out-b")
    assert held["location"] == ParquetCell(f"{tmp_path}/a.parquet", "image", 0)
    assert held["manifest_manifest_uri"] == "x"
    assert "mask" not in held  # a labels table full of pictures helps nobody


@pytest.mark.parametrize(
    ("columns", "spec", "said"),
    [
        ({"n": [1]}, {}, r"has no column 'uri' .* it has: n\. Set manifest\.uri_column to one of them$"),
        (
            {"a": [b"x"], "b": [b"x"]},
            {},
            r"it has: a, b\. Set .* or manifest\.image_column to one that holds the images: a, b",
        ),
        (
            {"a": [b"x"], "n": [1]},
            {"image_column": "n"},
            r"manifest\.image_column is 'n'; the columns of .*a\.parquet that can hold images .* are: a",
        ),
        ({"uri": ["x"]}, {"image_column": "image"}, r"can hold images .* are: none"),
    ],
)
def test_images_that_cannot_be_found_in_a_file_are_told_with_what_there_is(
    tmp_path: Path, columns: dict[str, Any], spec: dict[str, Any], said: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    asked = ManifestSpec(uri=str(tmp_path / "a.parquet"), **spec)
    with pytest.raises(ManifestError, match=said):
        opened(asked, tmp_path / "out")
    (source,) = find_sources(asked)
    with pytest.raises(ManifestError, match=said):
        FORMATS[source.format].check(asked, source)


def test_files_that_hold_images_and_files_that_name_them_are_not_one_manifest(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": [b"x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"uri": ["x.jpg"]}), tmp_path / "b.parquet")
    with pytest.raises(
        ManifestError, match=r"images in column 'jpg' in .*a\.parquet, names of images in .*b\.par"
    ):
        opened(ManifestSpec(uri=f"{tmp_path}/*.parquet"), tmp_path / "out")


def test_the_uris_of_images_within_files_may_be_listed_too(tmp_path: Path) -> None:
    uris = ["tar://1.jpg::s3://key:secret@bucket/0.tar", "tar://2.jpg::0.tar", "parquet://image/7::t.parquet"]
    (tmp_path / "m.txt").write_text("\n".join(uris))
    found = rows(ManifestSpec(uri=str(tmp_path / "m.txt")), tmp_path / "out")
    assert [row["location"] for row in found] == [
        TarMember("s3://key:secret@bucket/0.tar", "1.jpg"),
        TarMember(f"{tmp_path}/0.tar", "2.jpg"),
        ParquetCell(f"{tmp_path}/t.parquet", "image", 7),
    ]
    assert [row["uri"] for row in found] == ["tar://1.jpg::s3://bucket/0.tar", *uris[1:]]
