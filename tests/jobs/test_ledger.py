from pathlib import Path
from typing import Any

import pytest

from jobs.ledger import Ledger, assert_same_run, begin_epoch, begin_run, finish_run, read_run, read_success
from schemas.exceptions import OutputConflictError, ReconcileError
from schemas.ledger import RunRecord
from schemas.plan import Plan
from tests.workers.made_results import AT, CARRIED, CLASSIFIER, DETECTOR, results_of
from workers.parts import RunFolder, commit_results
from workers.publish import publish_shard
from workers.storage import Store

PLAN = Plan(rows=50, unit_rows=4, shard_units=6)


def record(**changes: Any) -> RunRecord:
    spec = {
        "manifest": {"uri_column": "uri", "image_id_column": None, "base": None},
        "decode": {"max_pixels": 100},
        "fetch": {"max_bytes": 100},
        "compute": {"precision": "auto"},
        "units": {"rows": 4, "shard_rows": 24},
    }
    values = {
        "raylabel": "0",
        "created_at": AT,
        "spec": spec,
        "manifest": [],
        "manifest_columns": {},
        "plan": PLAN,
        "classifier": CLASSIFIER,
        "detector": DETECTOR,
        "code": "abc",
    }
    return RunRecord(**{**values, **changes})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(Store(str(tmp_path)), PLAN, CARRIED)


def test_a_run_is_begun_once_and_found_again(run: RunFolder) -> None:
    assert read_run(run.store) is None
    first = begin_run(run.store, record())
    again = begin_run(run.store, record(created_at="2030-01-01T00:00:00Z", raylabel="1"))
    assert first == again == read_run(run.store) == record()


def test_a_run_of_other_rows_is_refused_with_every_difference(run: RunFolder) -> None:
    begin_run(run.store, record())
    other = DETECTOR.model_copy(update={"settings": {"score_threshold": 0.5}, "weights_sha256": "0" * 64})
    spec = {**record().spec, "decode": {"max_pixels": 200}}
    with pytest.raises(OutputConflictError) as raised:
        begin_run(run.store, record(spec=spec, detector=other, classifier=None))
    assert str(raised.value).splitlines() == [
        f"{run.store.url} holds a run whose rows would differ from this job's:",
        "  classifier: guess there, nothing now",
        "  decode.max_pixels: 100 there, 200 now",
        "  detector.settings.score_threshold: 0.4 there, 0.5 now",
        f"  detector.weights_sha256: nothing there, {'0' * 57}... now",
        "Choose another output, or delete this one to begin again",
    ]


def test_a_folder_with_tables_of_somebody_elses_is_refused(run: RunFolder) -> None:
    run.store.write("labels/mine.parquet", b"")
    with pytest.raises(OutputConflictError, match=r"1 files that no run here wrote, labels/mine\.parquet"):
        begin_run(run.store, record())
    assert read_success(run.store) is None


def test_no_two_attempts_have_one_number(run: RunFolder) -> None:
    assert [begin_epoch(run.store).number for _ in range(3)] == [1, 2, 3]


def test_the_ledger_is_the_same_read_from_the_files_or_kept_up_to_date(run: RunFolder) -> None:
    kept = Ledger(PLAN)
    for units in ((0, 3, 1), (2, 4, 5), (1, 7), (12,)):
        for commit in commit_results(run, 1, results_of(PLAN, *units)):
            kept.add(commit)
    read = Ledger.read(run.store, PLAN)
    assert read.committed == kept.committed == {0, 1, 2, 3, 4, 5, 7, 12}
    assert read.pending == kept.pending == [6, 8, 9, 10, 11]
    assert read.done == kept.done == 7 * 4 + 2
    assert read.publishable == kept.publishable == [0, 2]
    publish_shard(run, 0)
    after = Ledger.read(run.store, PLAN)
    assert (after.pending, after.done, after.publishable, after.published) == (kept.pending, 30, [2], {0})
    assert after.failed == kept.failed == {"TRUNCATED": 7}  # though unit 1 was committed twice


def test_a_run_is_complete_only_when_the_sums_agree(run: RunFolder) -> None:
    commit_results(run, 1, results_of(PLAN, *range(PLAN.units)))
    publish_shard(run, 0)
    with pytest.raises(
        ReconcileError, match="1 of 3 shards are published, with 18 labels and 6 errors for 50"
    ):
        finish_run(run.store, PLAN)
    assert read_success(run.store) is None
    publish_shard(run, 1)
    publish_shard(run, 2)
    rows = finish_run(run.store, PLAN)
    assert rows == read_success(run.store)
    assert (rows["labels"], rows["errors"]) == (38, 12)


def test_the_same_job_is_no_difference(run: RunFolder) -> None:
    assert_same_run(run.store, record().identity(), record().identity())
