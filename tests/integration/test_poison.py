"""Images and models that crash, raise or answer nonsense, in whole jobs."""

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


def test_an_image_that_crashes_the_model_costs_one_row_and_the_job_goes_on(tmp_path: Path) -> None:
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


def test_a_model_that_fails_on_every_image_stops_the_job_and_is_blamed(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as stopped:
        run_here(**job(tmp_path, ["yellow", "green"] * 50))
    said = str(stopped.value)
    assert "stopped: the models failed on each of the 32 images that they were given (" in said
    assert "so they are at fault, not the images. One of the failures: " in said
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_a_model_that_crashes_at_every_image_stops_the_job_and_is_blamed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"process crashed on each of the first 3 images.*signal SIGSEGV"):
        run_here(**job(tmp_path, ["red"] * 50))
