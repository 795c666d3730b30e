import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.results.sql import Database
from schemas.exceptions import DamagedFileError, SpecError, StorageError
from tests.jobs.results.test_datasets import begun, publish
from tests.workers.tables.made_results import CLASSIFIER, record
from workers.ledger.runs import begin_run
from workers.storage.store import Store


@pytest.fixture
def database(output: str) -> Iterator[Database]:
    """A run of 50 images in three shards, of which every fourth failed."""
    publish(begun(output), 0, 1, 2)
    with Database({"": output}) as database:
        yield database


def test_each_table_of_a_run_is_a_view_with_its_columns_in_manifest_order(database: Database) -> None:
    run = database.runs[""]
    for table in run.tables.names:
        keys = [f"{table}/shard-{shard:05d}.parquet" for shard in range(3)]
        expected = [row for file in run.store.read_tables(keys) for row in file.to_pylist()]
        found = list(database.rows(f"FROM {table}"))
        assert [row["manifest_index"] for row in found] == [row["manifest_index"] for row in expected]
        assert list(found[0]) == list(expected[0])
        assert [row["uri"] for row in found] == [row["uri"] for row in expected]


def test_values_come_as_they_are_in_the_tables(database: Database) -> None:
    row = database.row(
        "SELECT label, score, topk, class_counts, sha256, manifest_label FROM labels WHERE manifest_index = 5"
    )
    assert row == {
        "label": "palace",
        "score": 0.75,
        "topk": [
            {"label_id": 2, "label": "palace", "score": 0.75},
            {"label_id": 0, "label": "cat", "score": 0.125},
        ],
        "class_counts": {"person": 1, "boat": 1},
        "sha256": (5).to_bytes(32, "big"),
        "manifest_label": 5,
    }
    assert database.row("SELECT typeof(embedding) AS t FROM embeddings LIMIT 1") == {"t": "FLOAT[4]"}
    near = "SELECT manifest_index FROM embeddings ORDER BY array_distance(embedding, ?::FLOAT[4]) LIMIT 1"
    assert database.row(near, [[13.0, 0.5, -1.0, 2.0]]) == {"manifest_index": 13}


def test_objects_are_boxes_with_shares_of_the_image(database: Database) -> None:
    row = database.row("FROM objects WHERE manifest_index = 5 LIMIT 1")
    assert (row["width"], row["height"]) == (105, 80)
    assert [row[name] for name in ("x1", "y1", "x2", "y2")] == [0, 1.5, 10, 20]
    shares = [
        row[name] for name in ("x1_norm", "y1_norm", "x2_norm", "y2_norm", "cx_norm", "cy_norm", "area")
    ]
    assert shares == pytest.approx([0, 1.5 / 80, 10 / 105, 20 / 80, 5 / 105, 10.75 / 80, 185 / (105 * 80)])


def test_a_run_of_which_nothing_is_published_has_empty_views_with_the_same_columns(tmp_path: Path) -> None:
    for name in ("none", "all"):
        run = begun(str(tmp_path / name))
        if name == "all":
            publish(run, 0)
    with Database({"a": str(tmp_path / "none"), "b": str(tmp_path / "all")}) as database:
        for view in (*database.runs["a"].tables.names, "objects"):
            types = [list(database.rows(f"DESCRIBE {name}.{view}")) for name in "ab"]
            assert types[0] == types[1]
            assert list(database.rows(f"FROM a.{view}")) == []


def test_several_runs_have_names(tmp_path: Path) -> None:
    for name, shards in (("one", (0, 1)), ("two", (0, 1, 2))):
        publish(begun(str(tmp_path / name)), *shards)
    with Database({"": str(tmp_path / "one"), "Two": str(tmp_path / "two")}) as database:
        counts = "SELECT (SELECT count(*) FROM labels) AS a, (SELECT count(*) FROM two.labels) AS b"
        assert database.row(counts) == {"a": 36, "b": 38}
    with pytest.raises(SpecError, match=r"a run cannot be called 'main'.*choose another name"):
        Database({"main": str(tmp_path / "one")})


@pytest.mark.parametrize("folder", ["year=2024", "a[b]*?", "it's", "ünï ☃"])
def test_a_folder_of_any_name_is_read_and_no_other(tmp_path: Path, folder: str) -> None:
    publish(begun(str(tmp_path / "ab1")), 0, 1)
    publish(begun(str(tmp_path / folder)), 0)
    with Database({"": str(tmp_path / folder)}) as database:
        assert database.row("SELECT count(*) AS n FROM labels") == {"n": 18}
        assert [row["column_name"] for row in database.rows("DESCRIBE labels")] == database.runs[
            ""
        ].store.read_tables(["labels/shard-00000.parquet"])[0].column_names


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "found 0 statements"),
        ("FROM labels; FROM boxes", "found 2 statements"),
        ("DROP VIEW labels", "found a statement without rows; a query only reads"),
        ("CREATE TABLE x AS FROM labels", "found a statement without rows"),
        ("WITH x AS (COPY (SELECT 1) TO 'x.csv') FROM x", "found COPY in the query; a query only reads"),
        (
            "FROM labels WHERE (WITH y AS (DELETE FROM labels RETURNING 1) SELECT count(*) FROM y) = 0",
            "found DELETE in the query|Parser Error|Binder Error",
        ),
        ("SELECT interval '100000000 years'", "the result has a value that is none in Python"),
        ("FROM statement", "Table with name statement does not exist"),
        ("FROM read_text('raylabel://../x')", r"^FileNotFoundError: \.\./x"),
        ("SELECT FROM WHERE", r"(?s)Parser Error: .*\^"),
        ("SELECT lable FROM labels", r"(?s)Binder Error: .*lable.*Candidate bindings: .*label"),
        (
            "FROM tag",
            r"^Catalog Error: Table with name tag does not exist! "
            r"The views are labels, boxes, tags, embeddings, object_embeddings, errors, objects$",
        ),
        ("SELECT image_id::INT FROM labels", "Conversion Error: Could not convert string 'id0'"),
        ("SELECT '\ud800'", "this is no text"),
        (
            "FROM read_csv('s3://bucket/x.csv')",
            r"^[^\n]* requires the extension httpfs to be loaded: no extension is downloaded. "
            r"A query reads the run's tables, and files of this machine\n+LINE 1: .*\n +\^+$",
        ),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_with_the_place(
    tmp_path: Path, query: str, message: str
) -> None:
    publish(begun(str(tmp_path)), 0)
    with Database({"": str(tmp_path)}) as database, pytest.raises(SpecError, match=message):
        list(database.rows(query))


@pytest.mark.parametrize("content", [b"", b"PAR1", None])
def test_a_file_that_is_no_table_is_named_as_damaged(output: str, content: bytes | None) -> None:
    run = begun(output)
    publish(run, 0, 1)
    key = "boxes/shard-00001.parquet"
    whole = run.store.read(key)
    # a header of a page that says nothing: DuckDB's error names no file
    run.store.write(
        key,
        (whole[:4] + bytes(len(whole) // 2 - 4) + whole[len(whole) // 2 :]) if content is None else content,
    )
    with Database({"": output}) as database:
        assert database.row("SELECT count(*) AS n FROM labels") == {"n": 36}
        with pytest.raises(DamagedFileError, match=r"boxes/shard-00001.parquet is damaged: it is no table"):
            list(database.rows("SELECT * FROM boxes"))


def test_a_shard_that_lacks_a_table_is_not_passed_over(output: str) -> None:
    run = begun(output)
    publish(run, 0, 1)
    run.store.delete(["boxes/shard-00001.parquet"])
    with pytest.raises(
        DamagedFileError, match=r"boxes/shard-00001.parquet is damaged: there is no such file"
    ):
        Database({"": output})


def test_integers_of_any_size_are_exact_in_files(tmp_path: Path) -> None:
    publish(begun(str(tmp_path / "run")), 0)
    with Database({"": str(tmp_path / "run")}) as database:
        database.save("SELECT 9007199254740993::HUGEINT AS n, 1 AS n -- twice", tmp_path / "x.parquet")
        database.save("SELECT sum(byte_size) AS n FROM labels;", tmp_path / "y.parquet")
    assert pq.read_table(tmp_path / "x.parquet").column(0).to_pylist() == [9007199254740993]
    expected = sum(1000 + n for n in range(24) if n % 4 != 3)
    assert pq.read_table(tmp_path / "y.parquet").to_pydict() == {"n": [expected]}


def test_a_file_that_is_gone_is_named(output: str) -> None:
    run = begun(output)
    publish(run, 0, 1)
    with Database({"": output}) as database:
        run.store.delete(["labels/shard-00001.parquet"])
        with pytest.raises((StorageError, DamagedFileError), match=r"shard-00001\.parquet"):
            list(database.rows("SELECT uri FROM labels"))


def test_a_result_that_does_not_fit_into_memory_is_computed_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(begun(str(tmp_path / "run")), 0)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with Database({"": str(tmp_path / "run")}, memory_mb=64) as database:
        texts = "SELECT hash(range)::VARCHAR || repeat('x', 60) AS t FROM range(3000000) ORDER BY t"
        assert len(database.row(f"SELECT max(t) AS t FROM ({texts})")["t"]) > 60
        assert [path.name[:13] for path in (tmp_path / "tmp").iterdir()] == ["raylabel-sql-"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_rows_are_computed_as_they_are_read(tmp_path: Path) -> None:
    publish(begun(str(tmp_path)), 0)
    with Database({"": str(tmp_path)}) as database:
        rows = database.rows("SELECT range AS n FROM range(1000000000000)")
        assert [next(rows)["n"] for _ in range(3)] == [0, 1, 2]


def test_names_of_a_result_are_there_once_in_whatever_case_as_in_sql(database: Database) -> None:
    assert database.table("SELECT 1 AS a, 2 AS A, 3 AS a").column_names == ["a", "A_1", "a_2"]
    assert database.result("SELECT 1 AS a, 2 AS A, 3 AS a").names == ["a", "A_1", "a_2"]


def test_where_no_run_is_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="found no run at"):
        Database({"": str(tmp_path)})


def test_a_run_without_some_tables_has_no_views_of_them(tmp_path: Path) -> None:
    begin_run(
        Store(str(tmp_path)), record(models={"classifier": CLASSIFIER.model_copy(update={"tables": ()})})
    )
    message = (
        "The views are labels, boxes, errors, objects; embeddings is made by `embedder:` in the job spec"
    )
    with Database({"": str(tmp_path)}) as database, pytest.raises(SpecError, match=message):
        list(database.rows("FROM embeddings"))
