"""Images and models that crash, raise or answer nonsense, in whole jobs."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.exceptions import ModelError
from tests.integration.jobs_here import run_here, tables
from tests.poison import paint

pytestmark = pytest.mark.usefixtures("ray_here")


def job(folder: Path, names: list[str]) -> dict[str, Any]:
    """Coloured images for a model that some colours are bad for, in units of two."""
    paint(folder)
    (folder / "m.txt").write_text("\n".join(f"{folder}/{name}.png" for name in names))
    return {
        "manifest": str(folder / "m.txt"),
        "output": str(folder / "out"),
        "classifier": "tests.poison:poisoned",
        "detector": None,
        "units": {"rows": 2},
    }


def test_an_image_that_crashes_the_model_costs_one_row_and_the_job_goes_on_and_is_logged(
    ray_here: Path, tmp_path: Path
) -> None:
    names = ["blue", "grey", "red", "blue", "green", "yellow", "grey"]
    assert run_here(**job(tmp_path, names)) == {"labels": 4, "boxes": 0, "errors": 3}
    found = tables(tmp_path / "out")
    labels = found["labels"].select(["manifest_index", "label"]).to_pylist()
    assert [tuple(row.values()) for row in labels] == [(0, "blue"), (1, "other"), (3, "blue"), (6, "other")]
    errors = found["errors"].select(["manifest_index", "stage", "code", "retryable"]).to_pylist()
    assert [tuple(row.values()) for row in errors] == [
        (2, "classify", "WORKER_CRASHED", True),
        (4, "classify", "MODEL_ERROR", False),
        (5, "classify", "NON_FINITE", False),
    ]
    run = json.loads((tmp_path / "out" / "run.json").read_text())["id"]
    (actor,) = [text for log in ray_here.glob("worker-*.err") if f"[run {run}" in (text := log.read_text())]
    assert (
        f" INFO workers.label.actors [run {run}] labelling in attempt 1: models tests.poison:poisoned-"
        in actor
    )
    assert f" INFO workers.label.labeller [run {run}] models loaded in " in actor
    parent = f" WARNING workers.label.supervise [run {run}, unit 1] "
    assert [line.partition(parent)[2] for line in actor.splitlines() if parent in line] == [
        "the process died in stage classify (WORKER_CRASHED): 2 rows, 2 to 3",
        "the process died in stage classify (WORKER_CRASHED): 2 rows, 2 to 3",
        "bisecting 2 rows, 2 to 3 at row 3",
        "the process died in stage classify (WORKER_CRASHED): row 2",
        "the process died in stage classify (WORKER_CRASHED): row 2",
        "these of its 2 rows crash the process: [2]",
    ]


@pytest.mark.slow
def test_a_model_that_fails_on_every_image_stops_the_job_and_is_blamed(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as stopped:
        run_here(**job(tmp_path, ["yellow", "green"] * 50))
    said = str(stopped.value)
    assert "stopped: the models failed on each of the 32 images that they were given (" in said
    assert "so the cause is the models, not the images. One of the failures: " in said
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_a_model_that_crashes_at_every_image_stops_the_job_and_is_blamed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"process crashed on each of the first 3 images.*signal SIGSEGV"):
        run_here(**job(tmp_path, ["red"] * 50))
