import json
from pathlib import Path

import pytest

from schemas.exceptions import OutputConflictError, StorageError
from schemas.ledger import SUCCESS, RunRecord, SourceFile
from tests.s3 import S3Server
from tests.workers.tables.made_results import CARRIED, DETECTOR, PLAN, record, results_of
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.ledger.runs import (
    assert_same_run,
    begin_run,
    find_run,
    read_run,
    remove_previous_runs,
    replace_run,
)
from workers.ledger.state import read_success
from workers.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_a_run_is_begun_once_and_found_again(store: Store) -> None:
    assert read_run(store) is None
    first = begin_run(store, record())
    again = begin_run(store, record(id="other", created_at="2030-01-01T00:00:00Z", raylabel="1"))
    assert first == again == read_run(store) == record()


def test_a_run_of_other_rows_is_refused_with_every_difference(store: Store) -> None:
    begin_run(store, record())
    other = DETECTOR.model_copy(update={"settings": {"score_threshold": 0.5}, "weights_sha256": "0" * 64})
    spec = {**record().spec, "decode": {"max_pixels": 200}}
    with pytest.raises(OutputConflictError) as raised:
        begin_run(store, record(spec=spec, models={"detector": other}))
    assert str(raised.value).splitlines() == [
        f"{store.url} holds a run whose rows would differ from this job's:",
        "  classifier: guess there, nothing now",
        "  decode.max_pixels: 100 there, 200 now",
        "  detector.settings.score_threshold: 0.4 there, 0.5 now",
        f"  detector.weights_sha256: nothing there, {'0' * 57}... now",
        "  embedder of objects: feel one there, nothing now",
        "  embedder: feel there, nothing now",
        "  taggers.scene: look there, nothing now",
        "Choose another output, or start over with --restart, which deletes its tables",
    ]


def test_what_changed_of_manifest_or_code_is_told_in_words(store: Store) -> None:
    files = [SourceFile(uri=uri, size=1, version="1") for uri in ("/a.csv", "/b.csv")]
    begin_run(store, record(manifest=files))
    now = [
        files[0].model_copy(update={"size": 2, "version": "2"}),
        files[1].model_copy(update={"uri": "/c.csv"}),
    ]
    with pytest.raises(OutputConflictError) as raised:
        begin_run(store, record(manifest=now, code={"tables": {"workers/tables/results.py": "other"}}))
    assert str(raised.value).splitlines()[1:-1] == [
        "  manifest: what is in /a.csv has changed since the run began; put it back to resume",
        "  manifest[1].uri: /b.csv there, /c.csv now (a copy counts only in its old place)",
        "  tables: workers/tables/results.py of raylabel changed since the run began, and may make other "
        "rows; the version that began it (see `raylabel` in run.json) resumes it",
    ]


def with_heif(version: str | None) -> RunRecord:
    decoders = {"pillow": "13.0.0"} | ({"pillow-heif": version} if version else {})
    return record(code={"reading and decoding": decoders})


def test_a_run_that_began_without_a_decoder_of_heic_resumes_without_and_is_retried_with_it(
    store: Store,
) -> None:
    begin_run(store, with_heif(None))
    with pytest.raises(OutputConflictError) as raised:
        begin_run(store, with_heif("1.8.1, libheif 1.23.6"))
    assert str(raised.value).splitlines()[1:-1] == [
        "  reading and decoding: pillow-heif 1.8.1, libheif 1.23.6 now, none there; uninstall it to resume, "
        "then retry what failed for the lack of it"
    ]
    store.write(SUCCESS, json.dumps({"labels": 8, "boxes": 0, "errors": 4}).encode())
    assert begin_run(store, with_heif("1.8.1, libheif 1.23.6")) == with_heif(None)


@pytest.mark.parametrize("now", [None, "1.9.0, libheif 1.24.0"])
def test_a_run_with_a_decoder_of_heic_goes_on_with_the_same_only(store: Store, now: str | None) -> None:
    begin_run(store, with_heif("1.8.1, libheif 1.23.6"))
    store.write(SUCCESS, json.dumps({"labels": 8, "boxes": 0, "errors": 4}).encode())
    with pytest.raises(OutputConflictError) as raised:
        begin_run(store, with_heif(now))
    assert str(raised.value).splitlines()[1:-1] == [
        f"  reading and decoding: pillow-heif 1.8.1, libheif 1.23.6 there, {now or 'not recorded'} now; "
        "install what was there to resume"
    ]


def test_other_facts_are_other_rows_and_runs_of_before_have_none(store: Store) -> None:
    old = record()
    assert "facts" not in old.spec
    begin_run(store, old)
    begin_run(store, record(spec={**old.spec, "facts": []}))
    with pytest.raises(OutputConflictError, match="facts: none there, exif now"):
        begin_run(store, record(spec={**old.spec, "facts": ["exif"]}))


def test_a_folder_with_tables_of_somebody_elses_is_refused(store: Store) -> None:
    store.write("labels/mine.parquet", b"")
    with pytest.raises(
        OutputConflictError, match=r"1 files that no run here wrote, for example labels/mine\.parquet"
    ):
        begin_run(store, record())
    assert read_success(store) is None


def test_the_same_job_is_no_difference(store: Store) -> None:
    assert_same_run(store, record().identity(), record().identity())


def test_where_no_run_is_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"found no run at {tmp_path}"):
        find_run(str(tmp_path))


def test_a_restart_deletes_the_old_tables_and_ledger_and_nothing_else(store: Store, tmp_path: Path) -> None:
    begin_run(store, record())
    old = ("labels/shard-00000.parquet", "_work/run/commits/000/shard-00000/c.json", "_SUCCESS")
    of_a_retry = "_work/manifest/001/held-0.parquet"
    for key in (*old, of_a_retry, "_work/manifest/000/a.json", "notes.txt"):
        store.write(key, b"{}")
    new = replace_run(store, record(id="new", code={}), print)
    assert read_success(store) is None
    remove_previous_runs(RunDirectory.first(store, new))
    assert read_run(store) == new
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
        "_work/manifest/000/a.json",
        "notes.txt",
        "run.json",
    ]


def test_what_a_restarted_run_publishes_outlives_its_next_attempts(s3: S3Server) -> None:
    store = Store(f"s3://{s3.new_bucket()}/out")
    begin_run(store, record())
    store.write("_work/run/commits/000/shard-00000/c.json", b"{}")
    new = replace_run(store, record(id="new", code={}), print)
    remove_previous_runs(RunDirectory.first(store, new))
    assert store.folders("_work") == ["_work/run"]  # this server goes on naming it
    store.write("labels/shard-00000.parquet", b"")
    remove_previous_runs(RunDirectory.first(store, new))
    assert store.list("labels") == ["labels/shard-00000.parquet"]


def test_a_run_that_is_no_restart_keeps_its_tables(store: Store) -> None:
    begin_run(store, record())
    store.write("labels/shard-00000.parquet", b"")
    store.write("_work/run/shards/shard-00000.json", b"")
    remove_previous_runs(RunDirectory.first(store, record()))
    assert store.list("labels") == ["labels/shard-00000.parquet"]


def test_what_outlived_a_restart_costs_the_new_run_no_tables(store: Store) -> None:
    begin_run(store, record())
    new = replace_run(store, record(id="new"), print)
    remove_previous_runs(RunDirectory.first(store, new))
    run = RunDirectory.first(store, new, CARRIED)
    commit_results(run, 1, results_of(PLAN, *PLAN.units_of_shard(0)))
    publish_shard(run, 0)
    published = store.list("labels")
    commit_results(
        RunDirectory.first(store, record(), CARRIED), 1, results_of(PLAN, 0)
    )  # a worker of the old run's
    remove_previous_runs(RunDirectory.first(store, new))
    assert store.list("labels") == published == ["labels/shard-00000.parquet"]
    assert store.folders("_work") == ["_work/new", "_work/tmp"]


def test_an_attempt_at_a_run_that_was_restarted_clears_nothing(store: Store) -> None:
    begin_run(store, record())
    new = replace_run(store, record(id="new"), print)
    for key in ("labels/shard-00000.parquet", "_work/new/shards/shard-00000.json"):
        store.write(key, b"")
    with pytest.raises(OutputConflictError, match=r"another run was started in .* with --restart"):
        remove_previous_runs(RunDirectory.first(store, record()))
    assert read_run(store) == new
    assert store.list("labels") + store.list("_work/new/shards") == [
        "labels/shard-00000.parquet",
        "_work/new/shards/shard-00000.json",
    ]
