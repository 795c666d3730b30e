import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.exceptions import ReconcileError
from schemas.ledger import COMMITS, PARTS, Commit
from schemas.plan import Pass, Plan
from tests.workers.tables.made_results import RUN_TABLES, results_of, run_directory
from workers.ledger.commit import commit_results, merge_commits
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import choose_commits, publish_shard
from workers.tables.results import split_results

PLAN = Plan(rows=50, unit_rows=4, shard_units=6)


def expected(shard: int) -> dict[str, pa.Table]:
    return split_results(results_of(PLAN, *PLAN.units_of_shard(shard)), RUN_TABLES, "run")


def published(run: RunDirectory, shard: int) -> dict[str, pa.Table]:
    return {
        name: pq.read_table(f"{run.store.root}/{name}/shard-{shard:05d}.parquet") for name in RUN_TABLES.names
    }


def same(left: dict[str, pa.Table], right: dict[str, pa.Table]) -> bool:
    return {n: t.to_pylist() for n, t in left.items()} == {n: t.to_pylist() for n, t in right.items()}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return run_directory(tmp_path, PLAN)


def test_parts_in_any_order_and_grouping_are_published_as_the_manifest_has_them(run: RunDirectory) -> None:
    units = list(range(PLAN.units))
    random.Random(1).shuffle(units)
    for start in range(0, len(units), 3):
        commit_results(run, 1, results_of(PLAN, *units[start : start + 3]))
    for shard in range(PLAN.shards):
        record = publish_shard(run, shard)
        assert same(published(run, shard), expected(shard))
        assert {name: file.rows for name, file in record.files.items()} == {
            name: table.num_rows for name, table in expected(shard).items()
        }
        assert sum(record.failed.values()) == expected(shard)["errors"].num_rows


def test_a_part_is_cut_at_the_borders_of_shards(run: RunDirectory) -> None:
    commits = commit_results(run, 1, results_of(PLAN, 7, 5, 6))
    assert [(commit.shard, commit.units) for commit in commits] == [(0, [(5, 6)]), (1, [(6, 8)])]
    assert list(run.read(Commit)) == commits


def test_a_unit_committed_twice_is_published_once(run: RunDirectory) -> None:
    for attempt, units in ((1, (0, 1, 2)), (1, (2, 3)), (2, (3, 4, 5)), (2, (0, 5))):
        commit_results(run, attempt, results_of(PLAN, *units))
    publish_shard(run, 0)
    assert same(published(run, 0), expected(0))


def test_committing_again_adds_nothing(run: RunDirectory, tmp_path: Path) -> None:
    commit_results(run, 1, results_of(PLAN, 0, 1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    commit_results(run, 1, results_of(PLAN, 1, 0))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_choice_of_commits_stays_after_a_late_one_that_sorts_before(run: RunDirectory) -> None:
    units = PLAN.units_of_shard(0)
    publication = choose_commits(run, 0, commit_results(run, 2, results_of(PLAN, *units)))
    run.ledger.create(publication.key, publication.to_json())
    commit_results(run, 1, results_of(PLAN, *units, cured=True))  # a zombie of an earlier attempt
    publish_shard(run, 0)
    assert same(published(run, 0), expected(0))


def test_publishing_again_changes_nothing_even_after_a_late_commit(run: RunDirectory, tmp_path: Path) -> None:
    commit_results(run, 2, results_of(PLAN, *PLAN.units_of_shard(0)))
    first = publish_shard(run, 0)
    before = {path: path.read_bytes() for path in tmp_path.glob("*/shard-*.parquet")}
    commit_results(run, 1, results_of(PLAN, *PLAN.units_of_shard(0), cured=True))
    assert publish_shard(run, 0) == first
    assert {path: path.read_bytes() for path in tmp_path.glob("*/shard-*.parquet")} == before
    assert run.ledger.list(COMMITS) == run.ledger.list(PARTS) == []


def test_merged_commits_count_as_the_ones_they_replace(run: RunDirectory) -> None:
    commits = [commit_results(run, 1, results_of(PLAN, unit))[0] for unit in (4, 0, 1, 2)]
    merged = merge_commits(run, commits)
    assert (merged.units, merged.failed) == ([(0, 3), (4, 5)], {"TRUNCATED": 4})
    assert list(run.read(Commit)) == [merged]
    commit_results(run, 1, results_of(PLAN, 3, 5))
    publish_shard(run, 0)
    assert same(published(run, 0), expected(0))


def test_a_retry_replaces_the_rows_it_did_and_no_others(run: RunDirectory, tmp_path: Path) -> None:
    commit_results(run, 1, results_of(PLAN, *PLAN.units_of_shard(0)))
    publish_shard(run, 0)
    work = Pass(PLAN, np.array([3, 11, 19, 31]), 1)  # of the failed 3, 7, 11, 15, 19, 23, ...
    retry = run_directory(tmp_path, work)
    commit_results(retry, 2, results_of(work, 0, 2, cured=True))
    commit_results(retry, 2, results_of(work, 4))  # fails again
    record = publish_shard(retry, 0)
    tables = published(run, 0)
    first, cured = expected(0), split_results(results_of(PLAN, 0, 2, cured=True), RUN_TABLES, "run")
    assert tables["errors"].to_pylist() == [
        row for row in first["errors"].to_pylist() if row["manifest_index"] not in (3, 11)
    ]
    for name in ("labels", "boxes"):
        new = [row for row in cured[name].to_pylist() if row["manifest_index"] in (3, 11)]
        rows = sorted(
            first[name].to_pylist() + new, key=lambda r: (r["manifest_index"], r.get("object_index"))
        )
        assert tables[name].to_pylist() == rows
    assert (record.retry, record.failed, record.errors) == (1, {"TRUNCATED": 1}, {"TRUNCATED": 4})
    before = {path: path.read_bytes() for path in tmp_path.glob("*/shard-*.parquet")}
    assert publish_shard(run, 0) == record  # a zombie of the first pass
    assert {path: path.read_bytes() for path in tmp_path.glob("*/shard-*.parquet")} == before


def test_a_shard_with_a_missing_unit_is_not_published(run: RunDirectory, tmp_path: Path) -> None:
    commit_results(run, 1, results_of(PLAN, 0, 1, 2, 4, 5))
    with pytest.raises(ReconcileError, match=r"shard 0 cannot be published: units \[3\] are in no commit"):
        publish_shard(run, 0)
    assert not list(tmp_path.glob("labels/*"))


@pytest.mark.parametrize(
    "cut", [lambda rows: rows.slice(1), lambda rows: pa.concat_tables([rows, rows.slice(0, 1)])]
)
def test_a_unit_that_is_not_whole_is_not_committed(run: RunDirectory, tmp_path: Path, cut: object) -> None:
    assert callable(cut)
    with pytest.raises(ReconcileError, match=r"units \[0\] must have 4 rows once each"):
        commit_results(run, 1, cut(results_of(PLAN, 0)))
    assert not list(tmp_path.rglob("*.parquet"))
