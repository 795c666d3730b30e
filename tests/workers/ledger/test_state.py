from pathlib import Path

import numpy as np
import pytest

from schemas.exceptions import OutputConflictError, ReconcileError
from schemas.ledger import COMMITS, MANIFEST, PARTS, SUCCESS, Commit, Publication, Shard
from schemas.plan import Pass, Plan
from tests.workers.tables.made_results import results_of, run_directory
from workers.ledger.commit import commit_results, merge_commits
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.ledger.state import MERGE_AT, PassState, finish_run, read_success
from workers.storage.store import Store

PLAN = Plan(rows=50, unit_rows=4, shard_units=6)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return run_directory(tmp_path, PLAN)


def test_the_ledger_is_the_same_read_from_the_files_or_kept_up_to_date(run: RunDirectory) -> None:
    kept = PassState(run)
    for units in ((0, 3, 1), (2, 4, 5), (1, 7), (12,)):
        for commit in commit_results(run, 1, results_of(PLAN, *units)):
            kept.add(commit)
    read = PassState.read(run)
    assert read.pending.tolist() == kept.pending.tolist() == [6, 8, 9, 10, 11]
    assert read.done == kept.done == 7 * 4 + 2
    assert read.publishable == kept.publishable == {0, 2}
    publish_shard(run, 0)
    after = PassState.read(run)
    assert (after.pending.tolist(), after.done) == (kept.pending.tolist(), 30)
    assert (after.publishable, after.published) == ({2}, {0})
    assert after.failed == kept.failed == {"TRUNCATED": 7}  # though unit 1 was committed twice


def test_the_ledger_of_a_retry_knows_the_failed_rows_only(run: RunDirectory, tmp_path: Path) -> None:
    commit_results(run, 1, results_of(PLAN, *range(PLAN.units)))
    for shard in range(PLAN.shards):
        publish_shard(run, shard)
    work = Pass(PLAN, np.array([3, 7, 27, 31]), 1)
    retry = run_directory(tmp_path, work)
    state = PassState.read(retry)
    assert (state.rows, state.done, state.pending.tolist()) == (4, 0, [0, 1, 6, 7])
    commit_results(retry, 2, results_of(work, 0, 6, 7))
    state = PassState.read(retry)
    assert (state.done, state.failed, state.publishable) == (3, {"TRUNCATED": 3}, {1})
    publish_shard(retry, 1)
    state = PassState.read(retry)
    assert (state.done, state.failed, state.published) == (3, {"TRUNCATED": 3}, {1})


def test_many_commit_entries_of_a_shard_become_one(tmp_path: Path) -> None:
    plan = Plan(rows=MERGE_AT + 44, unit_rows=1, shard_units=1000)
    run = run_directory(tmp_path, plan)
    state = PassState(run)
    for unit in range(MERGE_AT + 10):
        (commit,) = commit_results(run, 1, results_of(plan, unit))
        state.add(commit)
        state.merge(commit.shard)
    assert len(run.ledger.list(COMMITS)) == 11
    read = PassState.read(run)
    assert (read.done, read.failed) == (state.done, state.failed)
    assert read.pending.tolist() == state.pending.tolist() == list(range(MERGE_AT + 10, plan.units))


def test_a_run_is_complete_only_when_the_sums_agree(run: RunDirectory) -> None:
    commit_results(run, 1, results_of(PLAN, *range(PLAN.units)))
    publish_shard(run, 0)
    with pytest.raises(
        ReconcileError, match="1 of 3 shards are published, with 18 labels and 6 errors for 50"
    ):
        finish_run(run)
    assert read_success(run.store) is None
    publish_shard(run, 1)
    publish_shard(run, 2)
    rows = finish_run(run)
    assert rows == read_success(run.store)
    assert (rows["labels"], rows["errors"]) == (38, 12)


def test_a_run_is_not_marked_by_an_attempt_that_was_superseded_while_it_cleared_away(
    run: RunDirectory,
) -> None:
    commit_results(run, 1, results_of(PLAN, *range(PLAN.units)))
    for shard in range(3):
        publish_shard(run, shard)

    def superseded() -> None:
        assert run.store.list("_work/manifest") == []
        raise OutputConflictError("attempt 2 has taken over")

    with pytest.raises(OutputConflictError):
        finish_run(run, superseded)
    assert read_success(run.store) is None


def test_what_a_later_pass_made_of_the_manifest_outlives_an_attempt_that_slept(run: RunDirectory) -> None:
    commit_results(run, 1, results_of(PLAN, *range(PLAN.units)))
    for shard in range(PLAN.shards):
        publish_shard(run, shard)
    for key in ("000/a.parquet", "000/a.json", "001/a.parquet", "of-an-older-version.parquet"):
        run.store.write(f"{MANIFEST}/{key}", b"")
    finish_run(run)
    assert run.store.list(MANIFEST) == [f"{MANIFEST}/001/a.parquet"]


@pytest.fixture
def deep(tmp_path: Path) -> RunDirectory:
    """A run whose path is longer than a message shows."""
    folder = tmp_path.joinpath(*["x" * 200] * 5)
    folder.mkdir(parents=True)
    return run_directory(folder, PLAN)


def test_damage_is_taken_back_however_long_the_path_of_the_output(deep: RunDirectory) -> None:
    commits = commit_results(deep, 1, results_of(PLAN, *range(PLAN.units)))
    publish_shard(deep, 2)
    cut, lost = commits[0].key, Shard.key_of(2)
    deep.ledger.write(cut, b"{")
    deep.ledger.write(lost, b"")
    state = PassState.read(deep)
    assert [damage.keys for damage in state.damage] == [(Publication.key_of(0, 2), lost), (cut,)]
    state.take_back()
    assert deep.list(Shard) == deep.list(Publication) == []
    assert cut not in deep.list(Commit)
    assert PassState.read(deep).damage == []


def test_however_many_parts_are_lost_the_records_are_listed_once_more(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for unit in range(6):
        commit_results(run, 1, results_of(PLAN, unit))
    run.ledger.clear(PARTS)
    listed: list[str] = []
    sizes = Store.sizes

    def listing(store: Store, prefix: str) -> dict[str, int]:
        listed.append(prefix)
        return sizes(store, prefix)

    monkeypatch.setattr(Store, "sizes", listing)
    state = PassState.read(run)
    assert len(state.damage) == 6
    assert listed.count(f"{COMMITS}/000") == 2


def test_a_merge_that_was_cut_short_counts_every_image_once(run: RunDirectory) -> None:
    entries = [
        commit_results(run, attempt, results_of(PLAN, unit))[0] for attempt, unit in enumerate((0, 1, 2), 1)
    ]
    merge_commits(run, entries)
    for entry in entries[:2]:  # that were not deleted yet
        run.ledger.create(entry.key, entry.to_json())
    read = PassState.read(run)
    assert (read.done, read.failed) == (12, {"TRUNCATED": 3})
    commit_results(run, 4, results_of(PLAN, 3, 4, 5))
    publish_shard(run, 0)
    assert PassState.read(run).failed == {"TRUNCATED": 6}


def test_a_mark_that_an_earlier_pass_left_is_replaced(run: RunDirectory) -> None:
    commit_results(run, 1, results_of(PLAN, *range(PLAN.units)))
    for shard in range(PLAN.shards):
        publish_shard(run, shard)
    run.store.write(SUCCESS, b'{"labels": 1, "boxes": 0, "errors": 49}')
    rows = {"labels": 38, "boxes": 37, "tags": 62, "embeddings": 38, "object_embeddings": 37, "errors": 12}
    assert finish_run(run) == read_success(run.store) == rows
