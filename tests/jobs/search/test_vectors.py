import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.exports.command import export_run
from jobs.search import vectors
from jobs.search.build import index_run, make_index
from jobs.search.searcher import Searcher
from jobs.search.similar import embeddings, nearest
from schemas.exceptions import DamagedFileError, OutputConflictError, SpecError, StorageError
from tests.benchmarks.large_run import write_large_run
from tests.jobs.exports.made_run import MODELS, write_run
from tests.s3 import S3Server
from workers.storage.store import Store

pytest.importorskip("lance")

MOST = 10


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("large"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "FEWEST", 1000)
        patch.setattr(vectors, "PARTITION_ROWS", 100)
        write_large_run(output, 4000, width=16, shard_rows=1000)
        index_run(output, vectors=True)
    return output


def found(output: str, query: str, like: str) -> list[int]:
    with Searcher(output) as searcher, searcher.search(query) as hits:
        hits.narrow(searcher.similar(hits, like, MOST))
        return [hit.manifest_index for hit in hits.first(MOST)]


def exact(output: str, query: str, row: int) -> list[int]:
    with Searcher(output) as searcher, searcher.search(query) as hits:
        vector = vectors_of(output)[row]
        return [each.row for each in nearest(output, vector, MOST, hits.rows(), row)]


def vectors_of(output: str) -> dict[int, np.ndarray]:
    return {
        int(row): vector
        for rows, batch in embeddings(output)
        for row, vector in zip(rows, batch, strict=True)
    }


def test_nearly_all_of_the_nearest_are_found(output: str) -> None:
    right = sum(len({*found(output, "", str(row))} & {*exact(output, "", row)}) for row in range(0, 400, 20))
    assert right >= 0.95 * 20 * MOST
    assert 7 not in found(output, "", "7")


@pytest.mark.parametrize("query", ["dog", "class 9", "person", "-person", "never seen anywhere"])
@pytest.mark.parametrize("exact_rows", [1, 500, 20_000])
def test_with_a_query_the_nearest_of_its_images_are_found(
    output: str, query: str, exact_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "EXACT_ROWS", exact_rows)
    query = {"class 9": '"class 9"', "never seen anywhere": "width>=100000"}.get(query, query)
    expected = exact(output, query, 20)
    assert len({*found(output, query, "20")} & {*expected}) >= 0.9 * len(expected)
    if not expected:
        assert found(output, query, "20") == []


def test_few_embeddings_are_all_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = write_run(tmp_path)
    index_run(output, vectors=True)
    said = capsys.readouterr().out.splitlines()[1]
    assert said.startswith("8 embeddings, too few for an index: all are compared (it begins at 10,000) in ")
    assert said.endswith(f" s: {output}/search.lance")
    assert found(output, "", "3") == exact(output, "", 3)
    index_run(output, vectors=True)  # once more, in place of the older one
    assert found(output, "", "3") == exact(output, "", 3)
    assert [path.name for path in Path(output).iterdir() if path.name.startswith(".")] == []


def test_vectors_that_are_cut_are_named_with_what_to_do(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    index_run(output, vectors=True)
    (data,) = Path(output, "search.lance", "data").iterdir()
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(StorageError, match=r"search\.lance cannot be read .*; make it with .* --vectors`"):
        found(output, "", "3")


def test_vectors_older_than_the_tables_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = write_run(tmp_path)
    index_run(output, vectors=True)
    Store(output).write("_SUCCESS", json.dumps({"labels": 8, "boxes": 9, "errors": 1}).encode())
    make_index(output)
    older = r"search\.lance is older than the tables, .* make it with `raylabel index .* --vectors`"
    with pytest.raises(OutputConflictError, match=older):
        found(output, "", "3")
    index_run(output)
    assert "search.lance is older than the tables: --vectors makes it again" in capfd.readouterr().err
    shutil.rmtree(f"{output}/search.lance")
    Path(f"{output}/search.lance").mkdir()
    with pytest.raises(StorageError, match="is no index of vectors that can be read"):
        found(output, "", "3")


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    export_run(output, "lance", tmp_path / "mine.lance")
    with pytest.raises(
        StorageError, match=r"mine\.lance: it exists, and is no index of vectors that can be read; move"
    ):
        index_run(output, tmp_path / "mine.duckdb", vectors=True)
    assert (tmp_path / "mine.lance").is_dir()
    assert not (tmp_path / "mine.duckdb").exists()


def test_where_they_cannot_be_made_it_is_said_before_anything_is(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = write_run(tmp_path / "one", {"detector": MODELS["detector"]})
    with pytest.raises(SpecError, match="has no embeddings"):
        index_run(output, vectors=True)
    bucket = f"s3://{s3.new_bucket()}/run"
    for path in Path(write_run(tmp_path / "two")).rglob("*.*"):
        Store(bucket).write(str(path.relative_to(tmp_path / "two" / "run")), path.read_bytes())
    with pytest.raises(SpecError, match="in a bucket are made on this machine: name a place for both"):
        index_run(bucket, vectors=True)
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(SpecError, match=r"not installed: pip install 'raylabel\[lance\]'"):
        index_run(str(tmp_path / "two" / "run"), vectors=True)
    assert not Path(output, "search.duckdb").exists()


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    index_run(output, vectors=True)
    Store(output).write("embeddings/shard-00000.parquet", b"PAR1")
    with pytest.raises(DamagedFileError, match=r"embeddings/shard-00000\.parquet is damaged"):
        index_run(output, vectors=True)
    assert Path(output, "search.lance").is_dir()
