import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.verify.reconcile import MAX_ISSUES_SHOWN, VerifyReport, reconcile_run, verify_run
from jobs.verify.shards import RunSnapshot, check_shard, check_snapshot, take_snapshot
from schemas.exceptions import ReconcileError, StorageError
from schemas.ledger import COMMITS, PARTS, Commit, Retry, Shard
from schemas.plan import Pass, Plan
from schemas.ranges import from_ranges, to_ranges
from tests.conftest import ROOT
from tests.workers.tables.made_results import record, results_of, run_directory
from workers.ledger.commit import commit_results, merge_commits
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import choose_commits, make_tables, publish_shard
from workers.ledger.runs import begin_run
from workers.ledger.state import PassState, finish_run
from workers.storage.store import Store
from workers.tables.parquet import parquet_bytes, write_file

PLAN = Plan(rows=50, unit_rows=4, shard_units=6)
FAILED = [3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 43, 47]
LEDGER = "_work/run"
SUMS = {"labels": 38, "boxes": 37, "tags": 62, "embeddings": 38, "object_embeddings": 37, "errors": 12}
"""Rows of each table of the whole run."""

IN_BUCKETS_TOO = pytest.mark.parametrize(
    "output", ["disk", pytest.param("s3", marks=pytest.mark.slow)], indirect=True
)
"""For tests whose faults do not depend on the store: the one in a bucket is for `make test-slow`."""


def begun(output: str, plan: Plan = PLAN) -> RunDirectory:
    """A run of 50 images in three shards, of which nothing is done yet."""
    begin_run(Store(output), record(plan=plan, manifest_columns={"split": "string", "label": "int64"}))
    return run_directory(output, plan)


def completed(output: str) -> RunDirectory:
    run = begun(output)
    commit_results(run, 1, results_of(PLAN, *range(PLAN.units)))
    for shard in range(PLAN.shards):
        publish_shard(run, shard)
    finish_run(run)
    return run


def retried(output: str, *rows: int, number: int = 1) -> RunDirectory:
    """A complete run, and a retry of some of its failed rows begun."""
    if number == 1:
        completed(output)
    store = Store(output)
    retry = Retry(number=number, codes=["TRUNCATED"], rows=to_ranges(rows))
    store.below(LEDGER).create(retry.key, retry.to_json())
    store.delete(["_SUCCESS"])
    return run_directory(output, Pass(PLAN, np.array(rows), number))


def issues(output: str) -> list[str]:
    return [str(issue) for issue in verify_run(output).issues]


def counts(report: VerifyReport) -> tuple[str, int, int, int, int]:
    return report.state, report.published_shards, report.published, report.committed, report.to_do


def test_a_complete_run_is_proven(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    completed(output)
    assert reconcile_run(output, as_json=False)
    assert capsys.readouterr().out == (
        f"{output} is complete and verified: 50 manifest rows, each there once, 38 in labels and 12 in "
        "errors; 37 boxes, as the images' counts say; 62 tags; 38 embeddings; 37 object embeddings; and the "
        "18 files are, byte for byte, the ones that were published.\n"
    )
    assert reconcile_run(output, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "output": output,
        "state": "complete",
        "retry": 0,
        "rows": 50,
        **SUMS,
        "shards": 3,
        "published_shards": 3,
        "published": 50,
        "committed": 0,
        "to_do": 0,
        "issue_count": 0,
        "issues": [],
    }


def test_a_run_that_is_not_complete_is_proven_as_far_as_it_goes(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(output)
    assert counts(verify_run(output)) == ("incomplete", 0, 0, 0, 50)
    commit_results(run, 1, results_of(PLAN, 0, 3, 1))
    commit_results(run, 2, results_of(PLAN, 1, 2, 7))  # one of them again
    assert counts(verify_run(output)) == ("incomplete", 0, 0, 20, 30)
    commit_results(run, 2, results_of(PLAN, 4, 5, 12))
    publish_shard(run, 0)
    assert not reconcile_run(output, as_json=False)
    assert capsys.readouterr().out == (
        f"{output} is verified as far as it goes, but it is not complete yet: of 50 rows 24 published "
        f"(in 1 of 3 shards), 6 committed, 20 to do. `raylabel run {output}` resumes it.\n"
    )
    commit_results(run, 2, results_of(PLAN, 6, 8, 9, 10, 11))
    publish_shard(run, 1)
    publish_shard(run, 2)
    assert counts(verify_run(output)) == ("incomplete", 3, 50, 0, 0)  # it was not marked
    finish_run(run)
    assert counts(verify_run(output)) == ("complete", 3, 50, 0, 0)


@IN_BUCKETS_TOO
def test_a_retry_is_proven_while_it_goes_on_and_after(output: str) -> None:
    retry = retried(output, 3, 7, 27)
    assert counts(verify_run(output)) == ("incomplete", 0, 0, 0, 3)
    commit_results(retry, 2, results_of(retry.current, 0, 1, cured=True))
    assert counts(verify_run(output)) == ("incomplete", 0, 0, 2, 1)
    publish_shard(retry, 0)
    assert counts(verify_run(output)) == ("incomplete", 1, 2, 0, 1)
    commit_results(retry, 2, results_of(retry.current, 6))  # fails again
    publish_shard(retry, 1)
    finish_run(retry)
    report = verify_run(output)
    assert counts(report) == ("complete", 3, 50, 0, 0)
    assert (report.retry, report.tables["labels"], report.tables["errors"]) == (1, 40, 10)

    again = retried(output, 27, 31, number=2)
    assert counts(verify_run(output)) == ("incomplete", 0, 0, 0, 2)
    commit_results(again, 3, results_of(again.current, 6, 7, cured=True))
    publish_shard(again, 1)
    finish_run(again)
    assert (verify_run(output).state, verify_run(output).tables["errors"]) == ("complete", 8)


def test_commits_that_became_one_are_proven(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    merge_commits(run, [commit_results(run, 1, results_of(PLAN, unit))[0] for unit in (4, 0, 1, 2)])
    assert counts(verify_run(str(tmp_path))) == ("incomplete", 0, 0, 16, 34)
    key = next(key for key in run.ledger.list(PARTS) if ".boxes-" in key)
    run.ledger.delete([key])
    assert issues(str(tmp_path)) == [
        f"{LEDGER}/{key}: found no such file; expected {expected}"
        for expected in issues(str(tmp_path))[0].split("expected ")[1:]
    ]


def rewrite(store: Store, key: str, change: Callable[[Any], Any]) -> None:
    """Changes a table, or a JSON record."""
    data = store.read(key)
    if key.endswith(".parquet"):
        table = change(pq.read_table(pa.BufferReader(data)))
        store.write(key, parquet_bytes(table, key.split("/")[-2] if "/" in key else key))
    else:
        store.write(key, json.dumps(change(json.loads(data))).encode())


def with_units(run: RunDirectory, key: str, units: list[tuple[int, int]]) -> Commit:
    """Puts in the place of a commit one that says to hold other units."""
    commit = Commit.model_validate_json(run.ledger.read(key)).model_copy(update={"units": units})
    run.ledger.delete([key])
    run.put(commit)
    return commit


def flip(data: bytes) -> bytes:
    return bytes([*data[:200], data[200] ^ 1, *data[201:]])


SHARD = f"{LEDGER}/shards/shard-00001.json"
LABELS, BOXES, TAGS, EMBEDDINGS, OF_OBJECTS, ERRORS = (f"{name}/shard-00001.parquet" for name in SUMS)

DAMAGE: dict[str, tuple[Callable[[Store], object], list[tuple[str, str]]]] = {
    "a byte flipped": (lambda s: s.write(LABELS, flip(s.read(LABELS))), [(LABELS, "sha256")]),
    "a file cut short": (
        lambda s: s.write(BOXES, s.read(BOXES)[:-9]),
        [(BOXES, "bytes"), (BOXES, "sha256"), (BOXES, "no Parquet that can be read")],
    ),
    "a file deleted": (lambda s: s.delete([ERRORS]), [(ERRORS, "no such file")]),
    "a stranger among the tables": (
        lambda s: s.write("labels/mine.parquet", b"1"),
        [("labels/mine.parquet", "a file that no shard of this run has")],
    ),
    "a file of a shard that the plan does not have": (
        lambda s: s.write("boxes/shard-00003.parquet", b"1"),
        [("boxes/shard-00003.parquet", "a file that no shard of this run has")],
    ),
    "a row dropped": (
        lambda s: rewrite(s, LABELS, lambda t: t.slice(1)),
        [
            (LABELS, "bytes"),
            (LABELS, "sha256"),
            (LABELS, "17 rows"),
            (f"{LABELS} and {ERRORS}", "no manifest row 24"),
            (TAGS, "tags of manifest row 24"),
            (EMBEDDINGS, "embeddings of manifest row 24"),
        ],
    ),
    "an embedding dropped": (
        lambda s: rewrite(s, EMBEDDINGS, lambda t: t.slice(1)),
        [
            (EMBEDDINGS, "bytes"),
            (EMBEDDINGS, "sha256"),
            (EMBEDDINGS, "17 rows"),
            (EMBEDDINGS, "no embedding of manifest row 24"),
        ],
    ),
    "a tag twice": (
        lambda s: rewrite(s, TAGS, lambda t: pa.concat_tables([t.slice(0, 1), t])),
        [(TAGS, "bytes"), (TAGS, "sha256"), (TAGS, "rows"), (TAGS, "a tag of manifest row 24 twice")],
    ),
    "a record deleted": (
        lambda s: s.delete([SHARD]),
        [(SHARD, "no such file")],
    ),
    "a record that is no JSON": (lambda s: s.write(SHARD, b"{"), [(SHARD, "it is no JSON")]),
    "a record of another shard": (
        lambda s: s.write(SHARD, s.read(f"{LEDGER}/shards/shard-00000.json")),
        [(SHARD, "it is that of shards/shard-00000.json")],
    ),
    "a record of another shard's files": (
        lambda s: rewrite(
            s, SHARD, lambda r: {**r, "files": json.loads(s.read(SHARD.replace("00001", "00000")))["files"]}
        ),
        [(SHARD, "files ['boxes/shard-00000.parquet'")],
    ),
    "a record of a retry that was not": (
        lambda s: rewrite(s, SHARD, lambda r: {**r, "retry": 4}),
        [(SHARD, "retry 4")],
    ),
    "a record of other codes": (
        lambda s: rewrite(s, SHARD, lambda r: {**r, "errors": {"TIMEOUT": 6}}),
        [(SHARD, "failed images {'TIMEOUT': 6}")],
    ),
    "a record of a shard that the plan does not have": (
        lambda s: s.write(f"{LEDGER}/shards/shard-00009.json", s.read(SHARD)),
        [(f"{LEDGER}/shards/shard-00009.json", "a record of no shard")],
    ),
    "a record and its files deleted": (
        lambda s: s.delete([SHARD, LABELS, BOXES, TAGS, EMBEDDINGS, OF_OBJECTS, ERRORS]),
        [(SHARD, "no such file")],
    ),
    "_SUCCESS with other sums": (
        lambda s: rewrite(s, "_SUCCESS", lambda r: {**r, "boxes": 36}),
        [("_SUCCESS", str({**SUMS, "boxes": 36}))],
    ),
    "_SUCCESS that is empty": (lambda s: s.write("_SUCCESS", b""), [("_SUCCESS", "")]),
}


@IN_BUCKETS_TOO
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_a_complete_run_is_named(output: str, damage: str) -> None:
    store = completed(output).store
    do, expected = DAMAGE[damage]
    do(store)
    found = [(issue.file, issue.found) for issue in verify_run(output).issues]
    assert [file for file, _ in found] == [file for file, _ in expected]
    for (_, said), (_, part) in zip(found, expected, strict=True):
        assert part in said


@IN_BUCKETS_TOO
def test_a_file_and_its_record_that_agree_on_a_lost_row_do_not_hide_it(output: str) -> None:
    """What a writer with a bug would leave: everything signed, and wrong."""
    run = completed(output)
    table = pq.read_table(pa.BufferReader(run.store.read(LABELS))).slice(1)
    signed = write_file(run.store, LABELS.removesuffix(".parquet"), table, "labels")
    rewrite(run.store, SHARD, lambda r: {**r, "files": {**r["files"], "labels": signed.model_dump()}})
    rewrite(run.store, "_SUCCESS", lambda r: {**r, "labels": 37})
    assert issues(output) == [
        f"{LABELS} and {ERRORS}: found no manifest row 24; expected each row once, in one of the two",
        f"{TAGS}: found tags of manifest row 24; expected tags of rows in labels only",
        f"{EMBEDDINGS}: found embeddings of manifest row 24; expected embeddings of rows in labels only",
    ]


@IN_BUCKETS_TOO
def test_damage_to_parts_and_commits_is_named(output: str) -> None:
    run = begun(output)
    commit_results(run, 1, results_of(PLAN, 0, 1))
    commit_results(run, 1, results_of(PLAN, 2))
    commit_results(run, 1, results_of(PLAN, 3))
    (first, second, third) = run.ledger.list(COMMITS)
    files = json.loads(run.ledger.read(first))["files"]
    run.ledger.write(files["labels"][0]["key"], flip(run.ledger.read(files["labels"][0]["key"])))
    run.ledger.delete([files["errors"][0]["key"]])
    parts = with_units(run, second, [(2, 4)]).files
    rewrite(run.ledger, third, lambda r: {**r, "units": [[3, 4], [8, 9]]})
    found = [(issue.file, issue.found.split()[0], issue.found) for issue in verify_run(output).issues]
    both = " and ".join(f"{LEDGER}/{parts[name][0].key}" for name in ("labels", "errors"))
    assert [(file, what) for file, what, _ in found] == [
        (f"{LEDGER}/{files['labels'][0]['key']}", "sha256"),
        (f"{LEDGER}/{files['errors'][0]['key']}", "no"),
        (both, "no"),
        (f"{LEDGER}/{third}", "it"),
    ]
    assert found[-1][-1] == "it has units that its shard does not have"
    assert verify_run(output).state == "damaged"


@IN_BUCKETS_TOO
def test_a_commit_of_units_that_its_pass_does_not_have_is_named(output: str) -> None:
    retry = retried(output, 3, 7, 27)
    (commit,) = commit_results(retry, 2, results_of(retry.current, 0, 1))
    changed = with_units(retry, commit.key, [(0, 3)])
    assert issues(output) == [
        f"{LEDGER}/{changed.key}: found units [2]; expected units that this pass has of the shard"
    ]


def test_what_a_killed_publisher_leaves_is_no_fault_and_damage_to_it_is(output: str) -> None:
    run = begun(output)
    commits = commit_results(run, 1, results_of(PLAN, *PLAN.units_of_shard(0)))
    publication = choose_commits(run, 0, commits)
    run.ledger.create(publication.key, publication.to_json())
    assert counts(verify_run(output)) == ("incomplete", 0, 0, 24, 26)
    _, tables = make_tables(run, publication)
    write_file(run.store, "boxes/shard-00000", tables["boxes"], "boxes")
    assert counts(verify_run(output)) == ("incomplete", 0, 0, 24, 26)
    write_file(run.store, "labels/shard-00000", tables["labels"].slice(1), "labels")
    (issue,) = verify_run(output).issues
    assert (issue.file, issue.found[:6]) == ("labels/shard-00000.parquet", "sha256")
    assert "which the commits make of it" in issue.expected
    publish_shard(run, 0)
    assert counts(verify_run(output)) == ("incomplete", 1, 24, 0, 26)


@IN_BUCKETS_TOO
def test_what_a_killed_publisher_of_a_retry_leaves_is_no_fault_and_a_row_lost_in_it_is(output: str) -> None:
    retry = retried(output, 3, 7)
    commits = commit_results(retry, 2, results_of(retry.current, 0, 1, cured=True))
    publication = choose_commits(retry, 0, commits)
    retry.ledger.create(publication.key, publication.to_json())
    _, tables = make_tables(retry, publication)
    for name in ("boxes", "labels", "errors"):
        assert counts(verify_run(output)) == ("incomplete", 0, 0, 2, 0)
        write_file(retry.store, f"{name}/shard-00000", tables[name], name)
    assert counts(verify_run(output)) == ("incomplete", 0, 0, 2, 0)
    write_file(retry.store, "errors/shard-00000", tables["errors"].slice(1), "errors")
    assert issues(output) == [
        "labels/shard-00000.parquet and errors/shard-00000.parquet: found no manifest row 11; expected each "
        "row once, in one of the two"
    ]


def test_a_choice_whose_parts_are_gone_is_named(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    publication = choose_commits(run, 0, commit_results(run, 1, results_of(PLAN, *PLAN.units_of_shard(0))))
    run.ledger.create(publication.key, publication.to_json())
    for kind in (COMMITS, PARTS):
        run.ledger.clear(kind)
    (issue,) = verify_run(str(tmp_path)).issues
    assert issue.file == f"{LEDGER}/{publication.key}"
    assert "a choice that cannot be published" in issue.found


def test_a_shard_that_is_published_between_a_look_and_its_reading_is_looked_at_again(output: str) -> None:
    folder = begun(output)
    commit_results(folder, 1, results_of(PLAN, *PLAN.units_of_shard(0)))
    run = RunSnapshot.take(output)
    snapshot = take_snapshot(run, 0)
    publish_shard(folder, 0)
    assert "no such file" in check_snapshot(run, snapshot).issues[0].found
    report = check_shard(run, 0)
    assert (report.issues, report.published, report.committed) == ([], True, 0)


@IN_BUCKETS_TOO
def test_a_run_that_is_being_written_has_no_fault_at_any_moment(output: str) -> None:
    """Commits that become one, shards that are published, a retry over them, each while it is proved."""
    run = begun(output)
    states: list[str] = []
    ended = threading.Event()

    def write() -> None:
        try:
            for shard in range(PLAN.shards):
                units = PLAN.units_of_shard(shard)
                merge_commits(run, [commit_results(run, 1, results_of(PLAN, u))[0] for u in units])
                publish_shard(run, shard)
            finish_run(run)
            retry = Retry(number=1, codes=["TRUNCATED"], rows=to_ranges(FAILED))
            run.ledger.create(retry.key, retry.to_json())
            run.store.delete(["_SUCCESS"])
            again = run_directory(output, Pass(PLAN, np.array(FAILED), 1))
            for unit in again.current.units.tolist():
                commit_results(again, 2, results_of(again.current, unit, cured=True))
            for shard in again.current.shards:
                publish_shard(again, shard)
            finish_run(again)
        finally:
            ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        assert issues(output) == []
        states.append(verify_run(output).state)
    writer.join()
    assert "incomplete" in states
    assert counts(verify_run(output)) == ("complete", 3, 50, 0, 0)
    assert verify_run(output).tables["labels"] == 50


def test_many_faults_are_counted_and_the_first_of_them_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = completed(str(tmp_path)).store
    for number in range(30):
        store.write(f"errors/{number:02d}", b"")
    with pytest.raises(ReconcileError) as raised:
        reconcile_run(str(tmp_path), as_json=True)
    first, *lines, last, mend = str(raised.value).splitlines()
    assert first == f"{tmp_path} is not as its ledger says, 30 issues:"
    assert (len(lines), last) == (MAX_ISSUES_SHOWN, "  and 10 more")
    assert mend.endswith("or start over with --restart")
    assert lines[0] == "  errors/00: found a file that no shard of this run has; expected none"
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["issue_count"], len(told["issues"])) == ("damaged", 30, MAX_ISSUES_SHOWN)
    assert told["issues"][0] == {
        "file": "errors/00",
        "found": "a file that no shard of this run has",
        "expected": "none",
    }


def test_nothing_is_written_and_where_no_run_is_it_is_said(tmp_path: Path) -> None:
    completed(str(tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    verify_run(str(tmp_path / "out"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(StorageError, match="found no run at"):
        verify_run(str(tmp_path / "none"))


@pytest.mark.parametrize("command", ["verify.reconcile", "results.status"])
def test_the_commands_need_neither_ray_nor_torch(command: str) -> None:
    code = f"import sys, jobs.{command}; print(sorted({{'ray', 'torch', 'timm'}} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_exit_codes_tell_proven_from_incomplete_from_damaged(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "raylabel"), "reconcile", str(tmp_path)]
    run = begun(str(tmp_path))

    def code() -> int:
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert code() == 10
    commit_results(run, 1, results_of(PLAN, *range(PLAN.units)))
    for shard in range(PLAN.shards):
        publish_shard(run, shard)
    finish_run(run)
    assert code() == 0
    run.store.delete([LABELS])
    assert code() == 8


steps = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.sets(st.integers(0, PLAN.units - 1), min_size=1, max_size=5)),
        st.tuples(st.just("merge"), st.integers(0, PLAN.shards - 1)),
        st.tuples(st.just("publish"), st.integers(0, 9)),
        st.tuples(st.just("begin anew"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=15)
@given(steps)
def test_whatever_is_committed_merged_published_and_read_again_in_any_order_adds_up(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.ledger.state.MERGE_AT", 2)
        assert_adds_up(str(tmp_path_factory.mktemp("run")), steps)


def assert_adds_up(output: str, steps: list[tuple[str, Any]]) -> None:
    """Attempts that overlap, as zombies make them: units committed twice, merged, published again."""
    run, attempt = begun(output), 1
    ledger = PassState.read(run)
    for verb, value in steps:
        match verb:
            case "commit":
                for commit in commit_results(run, attempt, results_of(PLAN, *value)):
                    ledger.add(commit)
            case "merge":
                ledger.merge(value)
            case "publish":
                for shard in sorted(ledger.publishable)[: value % 3 + 1]:
                    publish_shard(run, shard)
            case _:
                attempt, ledger = attempt + 1, PassState.read(run)
        assert verify_run(output).issues == ()
    ledger = PassState.read(run)
    assert set(ledger.pending.tolist()) | committed_units(run) == set(range(PLAN.units))
    if len(ledger.pending):
        commit_results(run, attempt, results_of(PLAN, *ledger.pending.tolist()))
    for shard in range(PLAN.shards):
        publish_shard(run, shard)
    assert finish_run(run) == SUMS
    report = verify_run(output)
    assert (report.state, report.issues, report.to_do) == ("complete", (), 0)


def committed_units(run: RunDirectory) -> set[int]:
    """The units that are published or in a commit."""
    published = {shard.shard for shard in run.read(Shard)}
    commits = run.read(Commit)
    units = {unit for commit in commits for unit in from_ranges(commit.units).tolist()}
    return units | {unit for shard in published for unit in PLAN.units_of_shard(shard)}
