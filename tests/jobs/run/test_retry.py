from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.run.retry import RETRYABLE, codes_of, failed_by_code, nothing_to_retry, retried_manifest
from schemas.errors import ErrorCode
from schemas.exceptions import ManifestError, OutputConflictError, SpecError
from schemas.ledger import MANIFEST, Retry
from schemas.plan import Plan
from tests.jobs.results.test_terminal import put_run
from tests.workers.tables.made_results import CARRIED, record, results_of, rows_of, run_directory
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.manifest.files import ManifestFile
from workers.manifest.held import is_enough
from workers.manifest.manifest import Manifest
from workers.storage.store import Store

FAILED = [3, 7, 11]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run of 12 rows in units of four, of which every fourth failed, and a retry of those."""
    plan = Plan(rows=12, unit_rows=4, shard_units=3)
    run = run_directory(tmp_path / "out", plan)
    commit_results(run, 1, results_of(plan, 0, 1, 2))
    publish_shard(run, 0)
    run.create(Retry(number=1, codes=["TRUNCATED"], rows=[(n, n + 1) for n in FAILED]))
    columns = {field.name: str(field.type) for field in CARRIED}
    return replace(run, record=record(plan=plan, manifest_columns=columns)).newest()


def manifest_of(path: Path, rows: pa.Table) -> Manifest:
    table = rows.drop_columns(["manifest_index"]).rename_columns({"manifest_label": "label"})
    pq.write_table(table, path)
    file = ManifestFile(str(path), (len(rows),), tuple(table.column_names), "/")
    return Manifest([file], "uri", "image_id", CARRIED)


def test_a_manifest_that_grew_or_changed_elsewhere_gives_the_rows_to_retry(
    run: RunDirectory, tmp_path: Path
) -> None:
    rows = rows_of(range(20))
    uris = [f"{uri}.new" if n not in FAILED else uri for n, uri in enumerate(rows["uri"].to_pylist())]
    grown = manifest_of(tmp_path / "m.parquet", rows.set_column(2, "uri", pa.array(uris)))
    assert retried_manifest(run, grown) is grown


def test_a_manifest_whose_rows_are_others_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    for number, rows in enumerate((rows_of(range(1, 20)), rows_of(range(11)))):
        with pytest.raises(
            OutputConflictError, match="has changed since the run began, and rows that failed"
        ):
            retried_manifest(run, manifest_of(tmp_path / f"{number}.parquet", rows))
    other = replace(run, record=run.record.model_copy(update={"manifest_columns": {"split": "string"}}))
    with pytest.raises(OutputConflictError, match="have other columns"):
        retried_manifest(other, manifest_of(tmp_path / "m.parquet", rows_of(range(12))))


def test_rows_without_further_columns_are_those_that_the_run_holds_whatever_became_of_the_manifest(
    run: RunDirectory, tmp_path: Path
) -> None:
    run = replace(run, record=run.record.model_copy(update={"manifest_columns": {}}))
    held = retried_manifest(run, manifest_of(tmp_path / "m.parquet", rows_of(range(1, 20))))
    for unit in range(3):
        rows = held.read(run.current.rows_of_unit(unit))
        assert rows.table.to_pylist() == [
            {"manifest_index": n, "image_id": f"id{n}", "uri": f"s3://bucket/{n}.jpg"}
            for n in (FAILED[unit],)
        ]
        assert rows.locations == [f"s3://bucket/{FAILED[unit]}.jpg"]
    assert held.read(FAILED).table["manifest_index"].to_pylist() == FAILED
    assert held.read([]).locations == []
    with pytest.raises(ManifestError, match="not all rows from 3 to 4 are among those that failed"):
        held.read([3, 4])
    assert Store(str(tmp_path / "out")).list(MANIFEST) == [f"{MANIFEST}/retry-000001-00000.parquet"]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/a.jpg", True),
        ("/data/a::b.jpg", True),
        ("s3://b/a.jpg", True),
        ("s3://b/a::b.jpg", True),
        ("data:image/png;base64,iVBORw0KGgo…", False),
        ("http://[::1]/a.jpg", False),
        ("tar://a.jpg::/data/0.tar", True),
        ("parquet://image/1::s3://b/0.parquet", True),
        *((uri, False) for uri in ("a.jpg", "https://h/a.jpg", "HTTP://h/a.jpg", "tar://a.jpg::0.tar", "")),
    ],
)
def test_a_uri_leads_to_its_image_by_itself_where_nothing_was_cut_from_it(uri: Any, expected: bool) -> None:
    assert is_enough(uri) is expected


def test_a_retry_takes_what_is_retryable_what_is_named_or_all() -> None:
    assert codes_of(None) == RETRYABLE
    assert codes_of(["TIMEOUT", "DENIED", "TIMEOUT"]) == ["DENIED", "TIMEOUT"]
    assert codes_of(["all", "DENIED"]) == [code.value for code in ErrorCode]
    with pytest.raises(SpecError, match=r"--code: found SLOW; allowed: NOT_FOUND, DENIED.*INTERNAL, or all"):
        codes_of(["SLOW"])


def test_failures_are_counted_by_code(tmp_path: Path) -> None:
    put_run(str(tmp_path))
    assert failed_by_code(str(tmp_path)) == Counter({"NOT_FOUND": 2, "TRUNCATED": 1})


@pytest.mark.parametrize(
    ("codes", "failed", "expected"),
    [
        (RETRYABLE, {}, "no image of out failed. Nothing to do."),
        (
            RETRYABLE,
            {"NOT_FOUND": 1},
            "1 image of out failed, with codes that a retry does not take by itself: 1 NOT_FOUND. Nothing "
            "was retried. Once the cause is removed, `raylabel retry out --code NOT_FOUND` labels them again",
        ),
        (
            ["DENIED"],
            {"NOT_FOUND": 2, "EMPTY": 1, "TIMEOUT": 1, "TRUNCATED": 3},
            "7 images of out failed, none of them with DENIED: 3 TRUNCATED, 2 NOT_FOUND, 1 EMPTY, 1 TIMEOUT. "
            "Nothing was retried. Once the cause is removed, `raylabel retry out --code all` labels them "
            "again",
        ),
    ],
)
def test_a_retry_that_takes_nothing_names_what_failed_and_the_command_that_takes_it(
    codes: list[str], failed: dict[str, int], expected: str
) -> None:
    assert nothing_to_retry("out", codes, failed) == expected
