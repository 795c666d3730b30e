import dataclasses
import time
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import Stage
from schemas.exceptions import StorageError
from schemas.ledger import Commit
from schemas.metrics import COMMIT, NO_USAGE, Usage
from tests.poison import paint
from tests.workers.label.test_supervise import settings_of
from tests.workers.tables.made_results import record
from workers.label.actors import LabelActor
from workers.label.settings import LabelSettings
from workers.ledger.directory import RunDirectory
from workers.storage.store import Store


@pytest.fixture
def settings(tmp_path: Path) -> LabelSettings:
    """Twenty images in units of eight."""
    paint(tmp_path)
    return settings_of(tmp_path, ["grey.png"] * 19 + ["blue.png"])


@pytest.fixture
def run(tmp_path: Path, settings: LabelSettings) -> RunDirectory:
    store = Store(str(tmp_path / "run"))
    return RunDirectory(store, record(plan=settings.current.plan, models={}), settings.current)


def test_a_bundle_of_units_becomes_commits_of_each(settings: LabelSettings, run: RunDirectory) -> None:
    answer = LabelActor(settings, run, 7)(pa.table({"units": [[0, 2]]}))
    commits = [Commit.model_validate_json(entry) for entry in answer["commit"].to_pylist()]
    assert [(commit.attempt, commit.units) for commit in commits] == [(7, [(0, 1)]), (7, [(2, 3)])]
    assert [Commit.model_validate_json(run.ledger.read(commit.key)) for commit in commits] == commits
    labels = pa.concat_tables(run.ledger.read_tables(commit.files["labels"][0].key for commit in commits))
    assert labels["manifest_index"].to_pylist() == [*range(8), 16, 17, 18, 19]
    assert labels["label"].to_pylist() == ["other"] * 11 + ["blue"]


def test_a_bundle_says_what_was_spent_on_it(
    settings: LabelSettings, run: RunDirectory, tmp_path: Path
) -> None:
    began = time.perf_counter()
    label = LabelActor(settings, run, 7)
    bundles = [pa.table({"units": [[0, 2]]}), pa.table({"units": [[1]]})]
    usages = [Usage.model_validate_json(row) for b in bundles for row in label(b)["usage"].to_pylist()]
    seconds = time.perf_counter() - began
    grey, blue = ((tmp_path / f"{name}.png").stat().st_size for name in ("grey", "blue"))
    assert [usage.fetched_bytes for usage in usages] == [11 * grey + blue, 0, 8 * grey]
    assert usages[1] == NO_USAGE
    for usage in (usages[0], usages[2]):
        assert usage.stage_s.keys() == {Stage.FETCH, Stage.DECODE, Stage.CLASSIFY, COMMIT}
        assert usage.busy_s == pytest.approx(usage.stage_s[Stage.DECODE] + usage.stage_s[Stage.CLASSIFY])
    assert sum(usage.busy_s + usage.idle_s for usage in usages) <= seconds


def test_results_that_cannot_be_written_are_an_error_and_a_log_line(
    settings: LabelSettings, run: RunDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    Path(run.store.root).write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot write"):
        LabelActor(dataclasses.replace(settings, run_id="7f3a"), run, 1)(pa.table({"units": [[0]]}))
    logged = capfd.readouterr().err
    assert f"[run 7f3a, unit 0] cannot commit to {run.store.url}: StorageError\n" in logged


def test_a_start_is_logged_with_its_models_and_what_runs_them(
    settings: LabelSettings, run: RunDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = dataclasses.replace(settings, run_id="7f3a")
    LabelActor(settings, run, 7)(pa.table({"units": [[0]]}))
    (model,) = settings.fingerprints
    logged = capfd.readouterr().err
    models = f"models {model}; device cpu, runtime auto, 1 threads"
    assert f"INFO workers.label.actors [run 7f3a] labelling in attempt 7: {models}\n" in logged
    assert "INFO workers.label.labeller [run 7f3a] models loaded in " in logged  # by the child
