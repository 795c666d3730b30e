from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from jobs.results.datasets import open_table
from schemas.exceptions import DamagedFileError, SpecError, StorageError
from schemas.tables import TABLES
from tests.workers.tables.made_results import CARRIED, MODELS, PLAN, record, results_of, run_directory
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.ledger.runs import begin_run
from workers.storage.store import Store

COLUMNS = {field.name: str(field.type) for field in CARRIED}


def begun(output: str) -> RunDirectory:
    """A run of 50 images in three shards, of which nothing is done yet."""
    begin_run(Store(output), record(manifest_columns=COLUMNS))
    return run_directory(output, PLAN)


def publish(run: RunDirectory, *shards: int) -> None:
    for shard in shards:
        commit_results(run, 1, results_of(PLAN, *PLAN.units_of_shard(shard)))
        publish_shard(run, shard)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_any_store_is_read_in_manifest_order(output: str, table: str) -> None:
    run = begun(output)
    publish(run, 0, 1, 2)
    keys = [f"{table}/shard-{shard:05d}.parquet" for shard in range(3)]
    dataset = open_table(output, table)
    assert isinstance(dataset, ds.Dataset)
    assert dataset.to_table().equals(pa.concat_tables(run.store.read_tables(keys)))
    assert len(dataset.files) == 3
    some = dataset.to_table(columns=["uri"], filter=pc.field("manifest_index") >= 40)
    assert set(some["uri"].to_pylist()) <= {f"s3://bucket/{n}.jpg" for n in range(40, 50)}
    assert some.num_rows == dataset.count_rows(filter=pc.field("manifest_index") >= 40) > 0


def test_a_dataset_is_of_the_files_that_are_published_when_it_is_opened(output: str) -> None:
    run = begun(output)
    publish(run, 0)
    before = open_table(output, "labels")
    publish(run, 2)
    after = open_table(output, "labels")
    assert (before.count_rows(), after.count_rows()) == (18, 20)


@pytest.mark.parametrize("table", TABLES)
def test_before_the_first_shard_a_dataset_is_empty_and_has_the_schema(output: str, table: str) -> None:
    run = begun(output)
    empty = open_table(output, table)
    assert (empty.count_rows(), empty.to_table().num_rows, empty.files) == (0, 0, [])
    publish(run, 0)
    assert open_table(output, table).schema.equals(empty.schema, check_metadata=True)


def test_the_manifests_columns_have_their_types_before_the_first_shard(tmp_path: Path) -> None:
    types = {
        "a": pa.float64(),
        "b": pa.timestamp("us", "Europe/Berlin"),
        "c": pa.decimal128(10, 2),
        "d": pa.date32(),
        "e": pa.timestamp("ns"),
        "f": pa.decimal256(50, 2),
        "g": pa.large_string(),
        "h": pa.time64("us"),
        "i": pa.float32(),
    }
    nested = {"j": pa.list_(pa.int32())}
    columns = {name: str(kind) for name, kind in (types | nested).items()}
    begin_run(Store(str(tmp_path)), record(manifest_columns=columns))
    schema = open_table(str(tmp_path), "labels").schema
    assert {name: schema.field(name).type for name in columns} == types | {"j": pa.null()}


def test_files_of_somebody_else_are_not_counted(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    publish(run, 0)
    for name in ("shard-0.parquet", "more.parquet", "sub/shard-00001.parquet", "notes.txt"):
        run.store.write(f"errors/{name}", b"not ours")
    assert open_table(str(tmp_path), "errors").count_rows() == 6


def test_a_table_that_the_job_was_not_asked_for_is_refused_with_what_to_write(tmp_path: Path) -> None:
    begin_run(Store(str(tmp_path)), record(models={"detector": MODELS["detector"]}))
    with pytest.raises(SpecError) as refused:
        open_table(str(tmp_path), "embeddings")
    assert str(refused.value) == (
        f"the run at {tmp_path} has no table embeddings; found labels, boxes, errors. Write "
        "`embedder:` in the job spec and label into another output"
    )
    with pytest.raises(SpecError, match=r"no table tags; .*Write `taggers:`, or `score_threshold:` for"):
        open_table(str(tmp_path), "tags")


def test_a_file_that_is_no_table_is_named_as_damaged(output: str) -> None:
    run = begun(output)
    publish(run, 0)
    run.store.write("labels/shard-00000.parquet", b"PAR1 no more")
    with pytest.raises(DamagedFileError, match=r"labels/shard-00000\.parquet is damaged: it is no table"):
        open_table(output, "labels")


def test_where_no_run_is_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="found no run at"):
        open_table(str(tmp_path), "labels")
