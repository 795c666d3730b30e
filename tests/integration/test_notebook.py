"""docs/quickstart.ipynb as a reader runs it, and the run that it leaves, opened and asked for again."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import raylabel
from tests.notebook import executed, pictures, recorded

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is a clone to the notebook."""
    return tmp_path_factory.mktemp("clone")


@pytest.fixture(scope="module")
def cells(clone: Path) -> list[Any]:
    """The cells with code, after the notebook was run in the clone."""
    return [cell for cell in executed(clone).cells if cell.cell_type == "code"]


@pytest.fixture
def run(cells: list[Any], clone: Path) -> raylabel.Run:
    assert cells
    return raylabel.open_run(clone / "build" / "quickstart" / "run")


def kinds(cells: list[Any]) -> list[list[list[str]]]:
    """What each output of each cell is: its media types, or the name of its stream."""
    return [[sorted(it.get("data", [it.get("name")])) for it in cell.outputs] for cell in cells]


def test_every_cell_runs_and_shows_what_the_saved_notebook_shows(cells: list[Any]) -> None:
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    saved = [cell for cell in recorded().cells if cell.cell_type == "code"]
    assert kinds(cells) == kinds(saved), "run `python -m tests.notebook` and look at the difference"


def test_pictures_of_photos_are_among_its_outputs(cells: list[Any]) -> None:
    found = [Image.open(io.BytesIO(base64.b64decode(picture))) for picture in pictures(cells)]
    assert len(found) >= 3
    assert all(picture.format == "JPEG" and min(picture.size) > 200 for picture in found)
    assert all(len(picture.convert("RGB").getcolors(2**20) or ()) > 1000 for picture in found)


def test_progress_is_one_output_that_ends_with_what_was_done(cells: list[Any]) -> None:
    texts = [it.data["text/plain"] for it in cells[1].outputs if it.output_type == "display_data"]
    assert len(texts) == 1
    assert texts[0].startswith("7 images labelled, 4 objects, 7 embeddings, 2 images failed in ")


def test_the_run_is_complete_and_its_tables_add_up(run: raylabel.Run) -> None:
    assert run.status()["state"] == "complete"
    assert (run.labels().count_rows(), run.boxes().count_rows(), run.errors().count_rows()) == (7, 4, 2)
    assert run.errors().to_table()["manifest_uri"].to_pylist() == ["gone.jpg", "LICENSES.md"]
    assert run.summary()["labelled"] == 7


def test_labelling_a_complete_run_again_opens_it(
    run: raylabel.Run, clone: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone / "docs")
    before = {path: path.stat().st_mtime_ns for path in Path(run.output).rglob("*")}
    events: list[dict[str, Any]] = []
    again = raylabel.label(os.path.relpath(run.output), progress=events.append)
    assert again.labels().to_table().equals(run.labels().to_table())
    assert [event["event"] for event in events] == ["complete"]
    assert events[0]["up_to_date"]
    assert {path: path.stat().st_mtime_ns for path in Path(run.output).rglob("*")} == before
    assert capfd.readouterr() == ("", "")
