import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.exceptions import StorageError
from tests.conftest import ROOT
from tests.s3 import S3Server
from tests.stores import Server, new_bucket, reaching
from workers.storage.store import Store
from workers.storage.uris import clean_uri, resolve_uri
from workers.tables.parquet import parquet_bytes


@pytest.fixture(params=["disk", "s3", "google", "azure"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A run directory on a local disk, and one in a bucket of each kind."""
    if request.param == "disk":
        yield Store(str(tmp_path / "out"))
        return
    server: S3Server | Server = request.getfixturevalue(request.param)
    if isinstance(server, S3Server):
        yield Store(f"s3://{server.new_bucket()}/runs/out")
        return
    with reaching(server):
        yield Store(f"{new_bucket(server)}/runs/out")


def test_what_is_written_is_read_back_and_listed(store: Store) -> None:
    store.write("labels/b.parquet", b"2")
    store.write("labels/a.parquet", b"1")
    store.write("labels/a.parquet", b"one")
    assert store.list("labels") == ["labels/a.parquet", "labels/b.parquet"]
    assert store.read("labels/a.parquet") == b"one"
    assert [store.list("nothing"), store.exists("labels/b.parquet"), store.exists("x")] == [[], True, False]


def test_a_folder_that_was_emptied_has_no_keys(store: Store) -> None:
    store.write("commits/000/shard-00000/1.json", b"1")
    store.delete(["commits/000/shard-00000/1.json"])
    assert [store.list("commits/000/shard-00000"), store.list("commits/000"), store.list("commits")] == [
        []
    ] * 3


def test_a_key_that_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("run.json")


def test_only_the_first_create_of_a_key_makes_it(store: Store) -> None:
    assert store.create("_work/commits/x.json", b"first")
    assert not store.create("_work/commits/x.json", b"second")
    assert store.read("_work/commits/x.json") == b"first"


def test_of_many_creates_at_once_one_wins(store: Store) -> None:
    outcomes: dict[int, bool] = {}

    def create(number: int) -> None:
        outcomes[number] = store.create("_work/attempts/000001.json", str(number).encode())

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chosen = [number for number, made in outcomes.items() if made]
    assert len(outcomes) == 8
    assert [str(number).encode() for number in chosen] == [store.read("_work/attempts/000001.json")]


def test_nothing_half_written_is_left_on_a_disk(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("labels/a.parquet", b"1")
    store.create("run.json", b"2")
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "labels/a.parquet",
        "run.json",
    ]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot write .*file/out/run\.json: .*Not a directory"):
        Store(str(tmp_path / "file" / "out")).write("run.json", b"")
    for output in ("file", "file/out"):
        with pytest.raises(StorageError, match=rf"cannot write to {tmp_path}/{output}/: Not a directory$"):
            Store(str(tmp_path / output)).try_to_write()


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(StorageError, match="cannot use nonsense://a/b: Protocol not known: nonsense"):
        Store("nonsense://a/b")


@pytest.mark.parametrize(
    ("url", "package", "extra"), [("gs://a/b", "gcsfs", "gcs"), ("abfs://a/b", "adlfs", "azure")]
)
def test_a_store_whose_package_is_missing_says_what_to_install(url: str, package: str, extra: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import workers.storage.store as w; w.Store({url!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    message = (
        f"cannot use {url}: {package} is not installed. Install raylabel[{extra}], on every node of a cluster"
    )
    assert done.stderr.splitlines()[-1] == f"schemas.exceptions.StorageError: {message}"


def test_an_account_of_azures_is_named_in_the_settings_alone() -> None:
    with pytest.raises(StorageError, match=r"write az://CONTAINER/PATH, with the account's name in "):
        Store("abfss://photos@account.dfs.core.windows.net/run")


def test_a_store_finds_its_folder_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("runs/today")
    monkeypatch.chdir("/")
    store.write("a", b"1")
    assert (tmp_path / "runs" / "today" / "a").read_bytes() == b"1"


def test_the_same_rows_are_the_same_bytes() -> None:
    table = pa.table({"manifest_index": [1, 2], "score": pa.array([0.5, 0.25], pa.float32())})
    assert parquet_bytes(table, "labels") == parquet_bytes(table, "labels")


@pytest.mark.parametrize(
    ("uri", "clean"),
    [
        ("photos/a b.jpg", "photos/a b.jpg"),
        ("/data/what?.jpg", "/data/what?.jpg"),
        ("https://me:secret@host:8080/a.jpg?X-Amz-Signature=secret#x", "https://host:8080/a.jpg"),
        ("s3://key:secret@bucket/a?b#c.jpg", "s3://bucket/a?b#c.jpg"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
    ],
)
def test_credentials_and_queries_are_cut_from_uris(uri: str, clean: str) -> None:
    assert clean_uri(uri) == clean


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("a/b.jpg", "/manifests/a/b.jpg"),
        ("/a/b.jpg", "/a/b.jpg"),
        ("s3://bucket/b.jpg", "s3://bucket/b.jpg"),
    ],
)
def test_a_relative_uri_is_meant_from_the_base(uri: str, found: str) -> None:
    assert resolve_uri(uri, "/manifests/") == found


def test_a_store_says_whether_it_keeps_two_writers_apart(store: Store) -> None:
    assert store.creates_once()
    assert store.list("_work") == []
    assert not Store("memory://run").creates_once()


def test_a_store_that_does_not_still_looks_before_it_creates() -> None:
    store = Store("memory://elsewhere")
    store.conditional = False
    assert [store.create("a", b"1"), store.create("a", b"2"), store.read("a")] == [True, False, b"1"]


def test_what_is_deleted_or_cleared_is_gone_and_what_is_not_there_is_passed_over(store: Store) -> None:
    for key in ("a/1", "a/2", "a/b/3", "c/4"):
        store.write(key, b"")
    assert store.folders("a") == ["a/b"]
    store.delete(["a/1", "a/1", "nowhere"])
    store.clear("c")
    store.clear("nowhere")
    assert store.list("") == ["a/2", "a/b/3"]
    assert store.below("a").list("b") == ["b/3"]
    assert store.folders("nowhere") == []
    store.delete(["a/2", "a/b/3"])
    assert [store.list("a"), store.list("a/b"), store.list("")] == [[], [], []]
