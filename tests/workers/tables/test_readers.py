"""The tables as the readers of the field see them: globbed, without a setting."""

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import fastparquet
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.models import tables_of
from schemas.tables import TABLES
from tests.workers.tables import spark_rows
from tests.workers.tables.made_results import AT, MODELS, labelled, outcome, rows_of
from workers.tables.parquet import parquet_bytes
from workers.tables.results import results_table, split_results

Rows = list[dict[str, Any]]

CARRIED = {
    "split": pa.array(["train", None, "été", ""]),
    "label": pa.array([2**53 + 1, -1, 0, 7], pa.int64()),
    "ratio": pa.array([0.1, None, -1e300, 2.0], pa.float64()),
    "is_kept": pa.array([True, False, None, True]),
    "day": pa.array([date(2026, 1, 2), None, date(1, 1, 1), date(9999, 12, 31)]),
    "taken": pa.array([AT, None, datetime(1800, 1, 1, tzinfo=UTC), AT], pa.timestamp("us", "UTC")),
    "price": pa.array([Decimal("1.50"), None, Decimal("-0.01"), Decimal("0.00")], pa.decimal128(9, 2)),
    "thumb": pa.array([b"\x00\xff", None, b"", b"abc"]),
    "tags": pa.array([["a", "b"], None, [], ["c"]]),
}
"""Columns of a manifest, by type; pandas has no null of int64 that does not change the others."""

SHARDS = {"of all kinds": range(4), "of failed images": [3] * 4, "of labelled images": [1, 2, 4, 5]}
"""The outcomes of the images of three files of each table; one of errors and one of labels are empty."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with three shards of four images."""
    output = tmp_path_factory.mktemp("run")
    carried = pa.schema([(name, values.type) for name, values in CARRIED.items()])
    tables = tables_of(MODELS, carried)
    for shard, numbers in enumerate(SHARDS.values()):
        rows = rows_of(range(4 * shard, 4 * shard + 4)).drop_columns(["split", "manifest_label"])
        for name, values in CARRIED.items():
            rows = rows.append_column("manifest_label" if name == "label" else name, values)
        outcomes = [labelled(n) if shard == 2 else outcome(n) for n in numbers]
        results = results_table(0, rows, outcomes, tables)
        for name, table in split_results(results, tables, "run").items():
            path = output / name / f"shard-{shard:05d}.parquet"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(parquet_bytes(table, name))
    return output


def by_pyarrow(folder: Path) -> Rows:
    rows: Rows = pq.read_table(folder).to_pylist(maps_as_pydicts="strict")
    return rows


def by_pandas(folder: Path) -> Rows:
    frame = pd.read_parquet(folder)
    if "class_counts" in frame:
        frame["class_counts"] = frame["class_counts"].map(dict)
    return frame.to_dict("records")  # type: ignore[no-any-return]


def by_polars(folder: Path) -> Rows:
    return pl.read_parquet(folder / "*.parquet").to_dicts()


def by_duckdb(folder: Path) -> Rows:
    found = duckdb.sql(f"FROM '{folder}/*.parquet'")
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def by_spark(folder: Path) -> Rows:
    into = folder.parent / "spark.pickle"
    if not into.exists():
        command = [sys.executable, spark_rows.__file__, str(folder.parent), str(into)]
        environment = {**os.environ, "TZ": "UTC", "SPARK_LOCAL_DIRS": str(folder.parent / "spark")}
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder.parent)
    rows: dict[str, Rows] = pickle.loads(into.read_bytes())
    return rows[folder.name]


def plain(value: Any) -> Any:
    """A reader's value as Python's own: nulls None, times in UTC, lists lists."""
    match value:
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list() | tuple() | np.ndarray():
            return [plain(inner) for inner in value]
        case bytearray():
            return bytes(value)
        case _ if pd.api.types.is_scalar(value) and pd.isna(value):
            return None
        case datetime():
            return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
        case _:
            return value.item() if isinstance(value, np.generic) else value


needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or not shutil.which("java"),
    reason="needs Spark (`pip install '.[spark]'`) and Java (`apt-get install default-jre-headless`)",
)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "read",
    [
        by_pandas,
        by_polars,
        by_duckdb,
        pytest.param(by_spark, marks=[pytest.mark.slow, needs_spark]),
    ],
)
def test_a_reader_sees_every_value_of_every_row(run: Path, read: Callable[[Path], Rows], table: str) -> None:
    expected = plain(by_pyarrow(run / table))
    rows = sorted(plain(read(run / table)), key=lambda row: (row["manifest_index"], row.get("object_index")))
    rows_of = {"labels": 7, "boxes": 9, "tags": 13, "embeddings": 7, "object_embeddings": 9, "errors": 5}
    assert len(expected) == rows_of[table]
    assert rows == expected


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
@pytest.mark.parametrize("table", TABLES)
def test_fastparquet_reads_raylabels_own_columns_but_the_list_of_labels(run: Path, table: str) -> None:
    files = [str(path) for path in sorted((run / table).iterdir())]
    own = TABLES[table].schema.names
    rows = plain(fastparquet.ParquetFile(files).to_pandas(columns=own).to_dict("records"))
    expected = plain(pq.read_table(run / table, columns=own).to_pylist(maps_as_pydicts="strict"))
    if table == "labels":
        expected = [{**row, "topk": None} for row in expected]
    assert rows == expected


def test_errors_has_no_column_that_is_a_keyword(run: Path) -> None:
    names = ", ".join(TABLES["errors"].schema.names)
    assert len(duckdb.sql(f"SELECT {names} FROM '{run}/errors/*.parquet'").fetchall()) == 5
