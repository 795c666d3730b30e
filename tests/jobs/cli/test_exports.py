"""`raylabel export` as a person or a program calls it."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from jobs.exports.registry import FORMATS
from tests.benchmarks.large_run import write_large_run
from tests.integration.jobs_here import COMMAND, raylabel
from tests.jobs.exports.made_run import write_run


def test_the_formats_are_listed_without_a_run() -> None:
    done = raylabel("export", "--list")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(FORMATS)


def test_a_program_gets_an_object_and_a_person_notes_on_stderr(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    options = ["--format", "openimages", "--classes", "person", "--min-score", "0.75", "--limit", "7"]
    done = raylabel("export", run, *options, "--into", str(tmp_path / "a"), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["images"], found["objects"], found["classes"]) == (7, 2, ["person"])
    done = raylabel("export", run, *options, "--into", str(tmp_path / "b"))
    assert (done.returncode, done.stdout) == (0, f"7 images, 2 objects exported: {tmp_path}/b\n")
    assert done.stderr.splitlines() == [f"raylabel: note: {note}" for note in found["notes"]]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "raylabel export takes a run, --format and --into"),
        (["run", "--format", "coco"], 2, "raylabel export takes a run, --format and --into"),
        (["run", "--format", "cocoa", "--into", "out"], 2, "--format cocoa: allowed are coco, coco-results,"),
        (
            ["run", "--format", "coco", "--into", "s3://b/out"],
            2,
            "--into s3:/b/out: allowed is a name on a disk",
        ),
        (["run", "--format", "coco", "--into", "out"], 5, "found no run at run"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = raylabel("export", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"raylabel: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run whose export takes some seconds."""
    run = tmp_path_factory.mktemp("large") / "run"
    write_large_run(str(run), 40_000)
    return str(run)


@pytest.mark.parametrize("form", ["yolo", "sqlite", "hf"])
def test_an_export_that_is_stopped_leaves_nothing(large_run: str, tmp_path: Path, form: str) -> None:
    command = [COMMAND, "export", large_run, "--format", form]
    into = tmp_path / "exports" / "out"
    into.parent.mkdir()
    with subprocess.Popen([*command, "--into", str(into)], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(into.parent.iterdir()):
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        said = process.stderr.read()
    assert said.splitlines()[-1] == "raylabel: stopped by Ctrl-C; nothing is written"
    assert process.returncode == 130
    assert list(into.parent.iterdir()) == []
