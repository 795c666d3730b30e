import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.exceptions import ReconcileError
from schemas.plan import Plan
from tests.workers.made_results import CARRIED, results_of
from workers.parts import RunFolder, commit_results
from workers.publish import publish_shard, read_commits
from workers.results import split_results
from workers.storage import Store

PLAN = Plan(rows=50, unit_rows=4, shard_units=6)


def expected(shard: int) -> dict[str, pa.Table]:
    return split_results(results_of(PLAN, *PLAN.units_of_shard(shard)), CARRIED)


def published(run: RunFolder, shard: int) -> dict[str, pa.Table]:
    return {
        name: pq.read_table(f"{run.store.root}/{name}/shard-{shard:05d}.parquet")
        for name in ("labels", "boxes", "errors")
    }


def same(left: dict[str, pa.Table], right: dict[str, pa.Table]) -> bool:
    return {n: t.to_pylist() for n, t in left.items()} == {n: t.to_pylist() for n, t in right.items()}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(Store(str(tmp_path)), PLAN, CARRIED)


def test_parts_in_any_order_and_grouping_are_published_as_the_manifest_has_them(run: RunFolder) -> None:
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


def test_a_part_is_cut_at_the_borders_of_shards(run: RunFolder) -> None:
    commits = commit_results(run, 1, results_of(PLAN, 7, 5, 6))
    assert [(commit.shard, commit.units) for commit in commits] == [(0, [5]), (1, [6, 7])]
    assert read_commits(run.store) == commits


def test_a_unit_committed_twice_is_published_once(run: RunFolder) -> None:
    for epoch, units in ((1, (0, 1, 2)), (1, (2, 3)), (2, (3, 4, 5)), (2, (0, 5))):
        commit_results(run, epoch, results_of(PLAN, *units))
    publish_shard(run, 0)
    assert same(published(run, 0), expected(0))


def test_committing_again_adds_nothing(run: RunFolder, tmp_path: Path) -> None:
    commit_results(run, 1, results_of(PLAN, 0, 1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    commit_results(run, 1, results_of(PLAN, 1, 0))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_publishing_again_writes_the_same_bytes_even_after_a_late_commit(
    run: RunFolder, tmp_path: Path
) -> None:
    commit_results(run, 2, results_of(PLAN, *PLAN.units_of_shard(0)))
    first = publish_shard(run, 0)
    before = {path: path.read_bytes() for path in tmp_path.glob("*/shard-*.parquet")}
    commit_results(run, 1, results_of(PLAN, 0, 1))  # a zombie of an earlier attempt
    assert publish_shard(run, 0) == first
    assert {path: path.read_bytes() for path in tmp_path.glob("*/shard-*.parquet")} == before


def test_a_shard_with_a_missing_unit_is_not_published(run: RunFolder, tmp_path: Path) -> None:
    commit_results(run, 1, results_of(PLAN, 0, 1, 2, 4, 5))
    with pytest.raises(ReconcileError, match=r"shard 0 cannot be published: units \[3\] are in no commit"):
        publish_shard(run, 0)
    assert not list(tmp_path.glob("labels/*"))


@pytest.mark.parametrize(
    "cut", [lambda rows: rows.slice(1), lambda rows: pa.concat_tables([rows, rows.slice(0, 1)])]
)
def test_a_unit_that_is_not_whole_is_not_committed(run: RunFolder, tmp_path: Path, cut: object) -> None:
    assert callable(cut)
    with pytest.raises(ReconcileError, match=r"units \[0\] must have 4 rows once each"):
        commit_results(run, 1, cut(results_of(PLAN, 0)))
    assert not list(tmp_path.rglob("*.parquet"))
