import json
import shutil
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.manifest import find_sources, open_manifest
from schemas.exceptions import ManifestError
from schemas.spec import ManifestSpec
from workers.manifest import Manifest
from workers.storage import Store


def here(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Runs the tasks in this process."""
    return [function(*each) for each in arguments]


def opened(spec: ManifestSpec, output: Path) -> Manifest:
    return open_manifest(spec, find_sources(spec), Store(str(output)), here)


def rows(spec: ManifestSpec, output: Path) -> list[dict[str, Any]]:
    manifest = opened(spec, output)
    return manifest.read(range(manifest.rows)).to_pylist()


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


def test_a_glob_of_images_is_listed(photos: Path, tmp_path: Path) -> None:
    found = rows(ManifestSpec(uri=f"{photos}/c*.png"), tmp_path / "out")
    assert [Path(row["uri"]).name for row in found] == ["camera.png", "chelsea.png", "coffee.png"]


def test_images_in_a_bucket_are_listed(s3: Any, photos: Path, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    s3.files().put(str(photos / "china.jpg"), f"{bucket}/set/a b+c.jpg")
    s3.files().put(str(photos / "china.jpg"), f"{bucket}/set/x/d.jpg")
    found = rows(ManifestSpec(uri=f"s3://{bucket}/set"), tmp_path / "out")
    assert [row["uri"] for row in found] == [f"s3://{bucket}/set/a b+c.jpg", f"s3://{bucket}/set/x/d.jpg"]


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
    first = rows(spec, tmp_path / "out")

    def never(_: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
        assert arguments == []
        return []

    again = open_manifest(spec, find_sources(spec), Store(str(tmp_path / "out")), never)
    assert again.read(range(again.rows)).to_pylist() == first


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
    assert [(r["n"], r["c"]) for r in manifest.read(range(2)).to_pylist()] == [(1.0, None), (2.5, "x")]


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


def test_a_uri_column_that_is_not_text_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": [1, 2]}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="column 'uri' of the manifest is int64, allowed: string"):
        opened(ManifestSpec(uri=str(tmp_path / "m.parquet")), tmp_path / "out")


def test_an_unusual_ending_is_read_when_the_format_is_given(tmp_path: Path) -> None:
    (tmp_path / "m.dat").write_text("a.jpg\n")
    found = rows(ManifestSpec(uri=str(tmp_path / "m.dat"), format="text", base="/b"), tmp_path / "out")
    assert [row["location"] for row in found] == ["/b/a.jpg"]
