"""What a folder or glob is made of: links, pipes, other tables, partitions, metadata, what is passed over."""

import json
import os
import shutil
import socket
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.exceptions import ManifestError
from schemas.spec import ManifestSpec
from tests.s3 import S3Server
from tests.workers.archives import tar_bytes
from workers.manifest import contents
from workers.manifest.contents import digest_of
from workers.manifest.convert import convert
from workers.manifest.find import find_sources
from workers.manifest.open import map_here, open_manifest
from workers.storage.filesystem import file_system
from workers.storage.store import Store


def rows(uri: str | Path, output: Path) -> list[dict[str, Any]]:
    """All rows of a manifest, without their numbers."""
    spec = ManifestSpec(uri=str(uri))
    shutil.rmtree(output, ignore_errors=True)
    manifest = open_manifest(spec, find_sources(spec), Store(str(output)), map_here)
    table = manifest.read(range(manifest.rows)).table.drop_columns(["manifest_index"])
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def names(uri: str | Path, output: Path) -> list[str]:
    return [row["uri"].rpartition("/")[2] for row in rows(uri, output)]


def passed_over(uri: str | Path) -> str:
    (source, *_) = find_sources(ManifestSpec(uri=str(uri)))
    return str(source.passed_over)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def test_links_to_files_and_folders_are_read_as_what_they_lead_to(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    (blobs / "album").mkdir(parents=True)
    for name in ("0", "album/x.jpg", "album/y.jpg"):
        (blobs / name).write_bytes(b"image")
    (folder / "real.jpg").write_bytes(b"image")
    (folder / "one.jpg").symlink_to(blobs / "0")
    (folder / "two.jpg").symlink_to("real.jpg")
    (folder / "album").symlink_to(blobs / "album")
    (folder / "again").symlink_to(folder)  # it never ends
    (folder / "gone.jpg").symlink_to("nowhere")
    assert names(folder, tmp_path / "out") == ["x.jpg", "y.jpg", "one.jpg", "real.jpg", "two.jpg"]
    assert passed_over(folder) == "2 links that lead nowhere, or to a folder that is read already"
    assert names(f"{folder}/*.jpg", tmp_path / "out") == ["one.jpg", "real.jpg", "two.jpg"]
    assert names(f"{folder}/*/*.jpg", tmp_path / "out") == [
        *("one.jpg", "real.jpg", "two.jpg"),
        *("x.jpg", "y.jpg"),
    ]
    assert names(f"{folder}/**/x.jpg", tmp_path / "out") == ["x.jpg"]


def test_a_folder_that_many_links_lead_to_is_read_once_whatever_the_order(
    folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    for name in ("x.jpg", "deep/y.jpg"):
        (outside / name).write_bytes(b"image")
    for link in ("b", "a-1", "c"):
        (folder / link).symlink_to(outside)
    (folder / "a").symlink_to(outside / "deep")
    assert [row["uri"] for row in rows(folder, tmp_path / "out")] == [
        f"{folder}/a/y.jpg",
        f"{folder}/a-1/x.jpg",
    ]
    (folder / "z").mkdir()
    outside.rename(folder / "z" / "real")
    for link in ("b", "a-1", "c"):
        (folder / link).unlink()
        (folder / link).symlink_to("z/real")
    (folder / "a").unlink()
    uris = [f"{folder}/z/real/deep/y.jpg", f"{folder}/z/real/x.jpg"]
    assert [row["uri"] for row in rows(folder, tmp_path / "out")] == uris
    assert passed_over(folder) == "3 links that lead nowhere, or to a folder that is read already"
    # a pattern asks for names: each link is one
    assert names(f"{folder}/**/x.jpg", tmp_path / "out") == ["x.jpg"] * 4
    assert names(f"{folder}/c/**/*.jpg", tmp_path / "out") == ["y.jpg", "x.jpg"]


@pytest.mark.parametrize("named", ["", "/**/*.jpg"])
def test_links_upon_links_end(folder: Path, tmp_path: Path, named: str) -> None:
    for level in range(30):
        (folder / f"{level:02}").mkdir()
        for link in "ab":
            (folder / f"{level:02}" / link).symlink_to(f"../{level + 1:02}")
    (folder / "29" / "x.jpg").write_bytes(b"image")
    assert names(f"{folder}{named}", tmp_path / "out") == ["x.jpg"] * (3 if named else 1)


def test_a_model_hubs_cache_of_links_is_a_manifest(folder: Path, tmp_path: Path) -> None:
    (folder / "blobs").mkdir()
    pq.write_table(pa.table({"uri": ["a.jpg"]}), folder / "blobs" / "0123")
    (folder / "snapshots" / "0").mkdir(parents=True)
    (folder / "snapshots" / "0" / "train.parquet").symlink_to("../../blobs/0123")
    for uri in ("snapshots/0/*.parquet", "snapshots/0", "snapshots/0/train.parquet"):
        assert names(f"{folder}/{uri}", tmp_path / "out") == ["a.jpg"]


@pytest.mark.parametrize("named", ["in", "in/*", "in/**"])
def test_only_regular_files_of_a_folder_are_read(
    folder: Path, tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.jpg").write_bytes(b"image")
    os.mkfifo(folder / "b.jpg")
    (folder / "c.jpg").symlink_to("/dev/zero")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("d.jpg")
        assert names(tmp_path / named, tmp_path / "out") == ["a.jpg"]
        assert passed_over(folder) == "3 no regular files"
        for name in ("b", "c", "d"):
            with pytest.raises(ManifestError, match=rf"{name}\.jpg' is a pipe, socket or device; allowed: a"):
                find_sources(ManifestSpec(uri=f"{folder}/{name}.jpg"))


def test_what_a_folder_passed_over_is_counted_by_ending(folder: Path) -> None:
    passed = ["1.PSD", "2.psd", "x.jpeg~", "none", ".hidden.jpg", "_x.jpg", "a.\x1b[31m", "list.csv"]
    for name in (*passed, "a.jpg"):
        (folder / name).write_bytes(b"")
    expected = (
        "2 .psd, 2 hidden (their names begin with . or _), 1 .csv, 1 .jpeg~, 1 with other endings, 1 others"
    )
    assert passed_over(folder) == expected
    for name in ("a.jpg", "list.csv"):
        (folder / name).unlink()
    with pytest.raises(ManifestError, match=r"found no manifest at .*/in \(there are: 2 \.psd, "):
        find_sources(ManifestSpec(uri=str(folder)))
    (folder / "0.tar").write_bytes(tar_bytes([("a.jpg", b"image")]))
    (folder / "0_stats.json").write_text("{}")
    assert "1 .json" in passed_over(folder)
    assert passed_over(folder / "0.tar") == ""


def test_brackets_in_the_names_of_folders_are_no_pattern(folder: Path, tmp_path: Path) -> None:
    inner = folder / "[2024] photos #1" / "what?"
    inner.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "[c].jpg"):
        (inner / name).write_bytes(b"image")
    (folder / "2 photos #1").mkdir()
    for uri in (inner.parent, inner, f"{inner}/*.jpg", f"{inner.parent}/*/*.jpg", f"{inner.parent}/**"):
        assert names(uri, tmp_path / "out") == ["[c].jpg", "a.jpg", "b.jpg"]
    assert names(f"{inner}/[ab].jpg", tmp_path / "out") == ["a.jpg", "b.jpg"]
    assert names(f"{inner}/[c].jpg", tmp_path / "out") == ["[c].jpg"]


@pytest.fixture(params=["disk", "s3"])
def somewhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on a disk, and one in a bucket."""
    if request.param == "disk":
        return str(tmp_path / "table")
    return f"s3://{request.getfixturevalue('s3').new_bucket()}/table"


def put(root: str, files: dict[str, bytes]) -> None:
    fs, path = file_system(root)
    for name, data in files.items():
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", data)


def parquet(**columns: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@pytest.mark.parametrize(
    ("marker", "data", "kind"),
    [
        ("_delta_log/00000000000000000000.json", "year=2024/part-0.parquet", "Delta"),
        ("metadata/v1.metadata.json", "data/year=2024/part-0.parquet", "Iceberg"),
        ("_delta_log/00000000000000000000.json", "xZ/part-0.parquet", "Delta"),
        (".hoodie/hoodie.properties", "part-0.parquet", "Hudi"),
        (".hoodie/hoodie.properties", "americas/brazil/sao_paulo/part-0.parquet", "Hudi"),
        ("americas/brazil/.hoodie_partition_metadata", "americas/brazil/part-0.parquet", "Hudi"),
    ],
)
def test_the_folder_of_a_table_format_is_refused_with_what_to_do(
    somewhere: str, tmp_path: Path, marker: str, data: str, kind: str
) -> None:
    put(somewhere, {marker: b"{}", data: parquet(uri=["a.jpg"])})
    above, folder = somewhere.rpartition("/")[0], data.rpartition("/")[0]
    # what a folder with a name of its own lies in is not asked for, as somebody may not be allowed to
    further = [f"{somewhere}/{folder}"] if "=" in folder or folder in (marker.rpartition("/")[0], "") else []
    for named in (somewhere, f"{somewhere}/**", above, *further):
        with pytest.raises(
            ManifestError,
            match=rf"is a table of {kind}, or a part of one: .* Write its rows to plain Parquet",
        ):
            find_sources(ManifestSpec(uri=named.rstrip("/")))
    # whoever names a file means that file
    assert names(f"{somewhere}/{data}", tmp_path / "out") == ["a.jpg"]


def test_the_partitions_of_hive_are_columns(somewhere: str, tmp_path: Path) -> None:
    put(
        somewhere,
        {
            "year=2024/kind=a%2Fb/0.parquet": parquet(uri=["a.jpg"]),
            "year=2024/kind=__HIVE_DEFAULT_PARTITION__/0.parquet": parquet(uri=["b.jpg"]),
            "year=2025/label=cat/0.parquet": parquet(uri=["c.jpg"], year=["own"]),
            "year=2026/0.csv": b"uri,n\nd.jpg,1\n",
            "e.txt": b"e.jpg\n",
        },
    )
    expected = [
        ("b.jpg", "2024", None, None, None),
        ("a.jpg", "2024", "a/b", None, None),
        ("c.jpg", "own", None, "cat", None),
        ("d.jpg", "2026", None, None, "1"),
        ("e.jpg", None, None, None, None),
    ]
    columns = ("uri", "year", "kind", "manifest_label", "n")
    for uri in (somewhere, f"{somewhere}/**"):
        found = [tuple(row[name] for name in columns) for row in rows(uri, tmp_path / "out")]
        assert sorted(found, key=str) == sorted(expected, key=str)
    inner = rows(f"{somewhere}/year=2024", tmp_path / "out")
    assert [sorted(row) for row in inner] == [["image_id", "kind", "uri"]] * 2


def test_the_partitions_of_listed_images_are_columns(somewhere: str, tmp_path: Path) -> None:
    put(
        somewhere,
        {
            "year=2024/kind=a%2Fb/a.jpg": b"image",
            "year=2024/label=cat/uri=no/b.jpg": b"image",
            "c.jpg": b"image",
            "year=2025/d.jpg": b"image",
            "year=2025/metadata.csv": b"file_name,year,n\nd.jpg,own,1\n",
        },
    )
    columns = ("year", "kind", "manifest_label", "n")
    for uri in (somewhere, f"{somewhere}/**/*.*"):
        found = {
            Path(row["uri"]).name: tuple(row[name] for name in columns) for row in rows(uri, tmp_path / "out")
        }
        assert found == {
            "a.jpg": ("2024", "a/b", None, None),
            "b.jpg": ("2024", None, "cat", None),
            "c.jpg": (None, None, None, None),
            "d.jpg": ("own", None, None, "1"),
        }


def test_partitions_whose_names_are_no_utf_8_are_read(folder: Path, tmp_path: Path) -> None:
    partition = folder / os.fsdecode(b"kind\xe8=caf\xe9")
    partition.mkdir()
    (partition / "0.parquet").write_bytes(parquet(uri=["a.jpg"]))
    (partition / "1.csv").write_bytes(b"uri\nb.jpg\n")
    found = [(row["uri"], row["kind\ufffd"]) for row in rows(folder, tmp_path / "out")]
    assert found == [("a.jpg", "caf\ufffd"), ("b.jpg", "caf\ufffd")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("metadata.jsonl", b"no\n", r"/metadata\.jsonl, line 1 is not JSON: .*give it another name"),
        ("metadata.csv", b"", None),
        ("metadata.csv", b"\xe9\n", r"/metadata\.csv is not UTF-8 text"),
        ("metadata.parquet", b"PAR1", r"cannot read .*/metadata\.parquet as Parquet"),
        (
            "metadata.parquet",
            {"file_name": ["a.jpg"], "x": [b"x"]},
            "column 'x' .* is binary, and bytes are no",
        ),
        (
            "metadata.parquet",
            {"file_name": ["a.jpg"], "x": [{"y": [b""]}]},
            "and bytes are no text. Leave it",
        ),
    ],
)
def test_metadata_that_cannot_be_read_is_refused_and_not_passed_over(
    folder: Path, tmp_path: Path, name: str, data: Any, message: str | None
) -> None:
    (folder / "a.jpg").write_bytes(b"image")
    (folder / name).write_bytes(data if isinstance(data, bytes) else parquet(**data))
    if message is None:
        assert passed_over(folder) == "1 .csv"
        return
    with pytest.raises(ManifestError, match=message):
        rows(folder, tmp_path / "out")


def test_metadata_of_json_lines_names_images_in_any_row(folder: Path, tmp_path: Path) -> None:
    (folder / "a.jpg").write_bytes(b"image")
    (folder / "metadata.jsonl").write_text('{"text": "of none"}\n{"text": "one", "file_name": "a.jpg"}\n')
    assert [row["text"] for row in rows(folder, tmp_path / "out")] == ["one"]


def test_no_column_of_metadata_takes_the_place_of_another(folder: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"image")
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "a.jpg", "uri": "u"}\n{"file_name": "b.jpg", "manifest_uri": "m"}\n'
    )
    keys = ("manifest_manifest_uri", "manifest_manifest_manifest_uri")
    found = [tuple(row[key] for key in keys) for row in rows(folder, tmp_path / "out")]
    assert found == [("u", None), (None, "m")]


def test_metadata_of_parquet_has_the_text_of_each_value(folder: Path, tmp_path: Path) -> None:
    (folder / "a.jpg").write_bytes(b"image")
    values = {
        "date": (pa.array([date(2020, 1, 1)]), "2020-01-01"),
        "decimal": (pa.array([Decimal("1.50")]), "1.50"),
        "time": (pa.array([1], pa.time64("ns")), "00:00:00.000000001"),
        "instant": (pa.array([1], pa.timestamp("ns", "UTC")), "1970-01-01 00:00:00.000000001Z"),
        "uuid": (pa.array([UUID(int=5).bytes], pa.uuid()), str(UUID(int=5))),
        "number": (pa.array([2**60]), str(2**60)),
        "double": (pa.array([0.5]), "0.5"),
        "truth": (pa.array([True]), "true"),
        "kind": (pa.array(["é"]).dictionary_encode(), "é"),
        "nested": (pa.array([{"a": [1, None], "b": "é"}]), '{"a": [1, null], "b": "é"}'),
        "nothing": (pa.nulls(1), None),
    }
    table = pa.table({"file_name": ["a.jpg"]} | {name: array for name, (array, _) in values.items()})
    pq.write_table(table, folder / "metadata.parquet")
    (row,) = rows(folder, tmp_path / "out")
    assert {name: row[name] for name in values} == {name: text for name, (_, text) in values.items()}


def test_metadata_beside_images_is_carried(somewhere: str, tmp_path: Path) -> None:
    put(
        somewhere,
        {
            "a.jpg": b"image",
            "metadata.jsonl": b'{"file_name": "a.jpg", "text": "one", "n": [1]}\n'
            b'{"file_name": "deep/b.jpg", "text": "outer"}\n{"file_name": "gone.jpg", "text": "x"}\n',
            "deep/b.jpg": b"image",
            "deep/c.jpg": b"image",
            "deep/metadata.csv": b"file_name,uri,image_id\n./b.jpg,u,B\n",
            "none/metadata.csv": b"what,ever\n1,2\n",
            "typed/d.jpg": b"image",
            "typed/metadata.parquet": parquet(file_name=["d.jpg"], score=[0.5]),
        },
    )
    found = rows(somewhere, tmp_path / "out")
    for row in found:
        row["uri"] = row["uri"].removeprefix(f"{somewhere}/")
    keys = ("uri", "image_id", "text", "n", "manifest_manifest_uri", "manifest_score")
    assert [tuple(row[key] for key in keys) for row in found] == [
        ("a.jpg", None, "one", "[1]", None, None),
        ("deep/b.jpg", "B", None, None, "u", None),
        ("deep/c.jpg", None, None, None, None, None),
        ("typed/d.jpg", None, None, None, None, "0.5"),
    ]
    gone = f"{file_system(somewhere)[1]}/gone.jpg"
    assert passed_over(somewhere) == f"1 .csv, 1 row of metadata naming no image (such as {gone})"


def test_rows_of_metadata_that_name_no_image_are_counted_with_an_example(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "b.jpg").write_bytes(b"image")
    lines = [
        "file_name,text",
        "deep/b.jpg,one",
        "B.jpg,two",
        "../x/a\x1b[31m.jpg,three",
        ",four",
        "b.jpg,five",
    ]
    (folder / "metadata.csv").write_text("\n".join(lines))
    example = f"{folder.parent}/x/a [31m.jpg"
    assert passed_over(folder) == f"4 rows of metadata naming no image (such as {folder}/B.jpg)"
    (folder / "metadata.csv").write_text("\n".join([*lines[:2], lines[3]]))
    assert passed_over(folder) == f"1 row of metadata naming no image (such as {example})"
    (folder / "metadata.csv").write_text("\n".join(lines[:2]))
    assert passed_over(folder) == ""


def test_a_listing_changes_with_its_metadata_and_not_with_the_time_of_a_file(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"image")
    (folder / "metadata.csv").write_text("file_name,text\na.jpg,one\n")
    spec = ManifestSpec(uri=str(folder))
    before = find_sources(spec)
    for name in ("a.jpg", "metadata.csv"):
        os.utime(folder / name, (1, 1))
    assert find_sources(spec) == before
    (folder / "metadata.csv").write_text("file_name,text\na.jpg,two\n")
    assert find_sources(spec) != before


@pytest.mark.parametrize("named", ["photos", "photos/", "./photos/*.jpg", "photos/../m.csv", "m.tar"])
def test_a_relative_path_is_known_by_its_absolute_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (folder / "photos").mkdir()
    (folder / "photos" / "a.jpg").write_bytes(b"image")
    (folder / "m.csv").write_text("uri\na.jpg\n")
    (folder / "m.tar").write_bytes(tar_bytes([("a.jpg", b"image")]))
    monkeypatch.chdir(folder)
    here = find_sources(ManifestSpec(uri=named, base="photos"))
    monkeypatch.chdir(tmp_path)
    there = find_sources(ManifestSpec(uri=os.path.abspath(folder / named), base=str(folder / "photos")))
    assert here == there
    assert [source.file.uri for source in here] == [os.path.normpath(folder / named)]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.txt", "m.parquet", "m.tar"])
def test_a_file_is_known_by_what_is_in_it(folder: Path, tmp_path: Path, name: str) -> None:
    contents_of = {
        "m.csv": b"uri\na.jpg\n",
        "m.jsonl": json.dumps({"uri": "a.jpg"}).encode(),
        "m.txt": b"a.jpg\n",
        "m.parquet": parquet(uri=["a.jpg"]),
        "m.tar": tar_bytes([("a.jpg", b"image")]),
    }
    file = folder / name
    file.write_bytes(contents_of[name])
    spec = ManifestSpec(uri=str(file))
    before = find_sources(spec)
    os.utime(file, (1, 1))
    copy = shutil.copy(file, tmp_path / "copy")
    file.unlink()
    shutil.move(copy, file)
    assert find_sources(spec) == before
    (source,) = before
    if name != "m.parquet":
        assert convert(Store(str(tmp_path / "out")), source)[0].rows == 1
    file.write_bytes(contents_of[name].replace(b"a.jpg", b"b.jpg"))  # of the same size
    assert find_sources(spec) != before


def test_a_large_file_that_may_be_sampled_is_known_by_parts_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(contents, "SAMPLE_BYTES", 10)
    data = bytearray(os.urandom(10_000))
    path = tmp_path / "a.tar"

    def digests() -> list[str]:
        path.write_bytes(data)
        return [digest_of(str(path), sampled=sampled) for sampled in (True, False)]

    first = digests()
    assert first[0].endswith(" of 64 parts")
    data[5] ^= 1
    second = digests()
    data[-5] ^= 1
    third = digests()
    assert len({*first, *second, *third}) == 6
    data[50] ^= 1  # between two parts
    fourth = digests()
    assert (fourth[0] == third[0], fourth[1] == third[1]) == (True, False)


def test_keys_that_look_like_something_else_are_read_as_they_are(tmp_path: Path, s3: S3Server) -> None:
    keys = ["50%25.jpg", "a+b c.jpg", "a b#1.jpg", "what?.jpg", "[x].jpg", "é/ü.jpg", "e\u0301.jpg"]
    bucket = s3.new_bucket()
    root = f"s3://{bucket}/in"
    for key in (*keys, "empty/"):
        s3.files().pipe_file(f"{bucket}/in/{key}", b"image")
    expected = sorted(f"{root}/{key}" for key in keys)
    for uri in (root, f"{root}/**"):
        assert sorted(row["uri"] for row in rows(uri, tmp_path / "out")) == expected
    listed = tmp_path / "m.parquet"
    pq.write_table(pa.table({"uri": expected}), listed)
    assert [row["uri"] for row in rows(listed, tmp_path / "out")] == expected
