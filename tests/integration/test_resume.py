"""A run that was stopped goes on where it was."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.jobs_here import COMMAND, raylabel, rows, run_here, tables


@pytest.mark.usefixtures("ray_here")
def test_a_job_whose_driver_was_killed_goes_on_where_it_was(photos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.txt"
    names = sorted(str(path) for path in photos.glob("*.[pj]*g"))
    manifest.write_text("\n".join(names * 8))
    job = ["run", "--manifest", str(manifest), "--set", "units.rows=4", "--json"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    run_here(manifest=str(manifest), output=str(undisturbed), units={"rows": 4})

    process = subprocess.Popen([COMMAND, *job, "--output", str(killed)], stdout=subprocess.DEVNULL)
    commits = killed / "_work" / "commits"
    end = time.monotonic() + 120
    while len(list(commits.rglob("*.json"))) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.read_bytes() for path in commits.rglob("*.json")}
    assert 3 <= len(kept) < 14
    assert not list(killed.glob("labels/*"))

    assert raylabel(*job, "--output", str(killed)).returncode == 0
    assert {path: path.read_bytes() for path in kept} == kept
    units = [unit for path in commits.rglob("*.json") for unit in json.loads(path.read_text())["units"]]
    redone = len(units) - 14  # at most what the killed attempt committed while it was dying
    assert sorted(set(units)) == list(range(14))
    assert redone == 0
    there, here = tables(undisturbed), tables(killed)
    for name in there:
        assert rows(here[name]) == rows(there[name])


def test_ctrl_c_says_that_the_run_can_go_on(photos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.txt"
    manifest.write_text("\n".join(str(path) for path in sorted(photos.glob("*.[pj]*g")) * 30))
    job = [COMMAND, "run", "--manifest", str(manifest), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(job, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list((tmp_path / "out").rglob("commits/*/*.json")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (
        complaint == "raylabel: stopped; what is committed stays, and the same command goes on from there\n"
    )
    assert not (tmp_path / "out" / "_SUCCESS").exists()
