"""A run that was stopped or killed goes on where it was; two attempts do not get into each other's way."""

import json
import random
import signal
from pathlib import Path

import pytest

from tests.integration.jobs_here import raylabel, rows, run_here, tables
from tests.integration.killing import commits, started


@pytest.fixture
def job(photos: Path, tmp_path: Path) -> list[str]:
    """The command for a job of 42 units of four photos, but for its output."""
    manifest = tmp_path / "m.txt"
    manifest.write_text("\n".join(sorted(str(path) for path in photos.glob("*.[pj]*g")) * 24))
    settings = ["--detector", "none", "--set", "units.rows=4"]
    return ["run", "--manifest", str(manifest), *settings]


def undisturbed(job: list[str], output: Path) -> dict[str, list[dict[str, object]]]:
    """The rows of the same job that nobody disturbed."""
    run_here(manifest=job[2], output=str(output), detector=None, units={"rows": 4})
    return {name: rows(table) for name, table in tables(output).items()}


def found(output: Path) -> dict[str, list[dict[str, object]]]:
    return {name: rows(table) for name, table in tables(output).items()}


@pytest.mark.usefixtures("ray_here")
def test_a_killed_job_goes_on_where_it_was_and_a_second_attempt_beside_a_running_one_is_refused(
    job: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job += ["--output", str(output)]
    with started(*job) as first:
        first.wait_until(lambda: len(commits(output)) >= 3)
        second = raylabel(*job)
        assert (second.returncode, first.process.poll()) == (6, None)
        assert f"attempt 1 (process {first.process.pid} on " in second.stderr
        assert "is running here. Two at once would do all work twice" in second.stderr
        first.kill("driver", random.Random(0))
    kept = {path: path.read_bytes() for path in commits(output)}
    assert 3 <= len(kept) < 42
    assert not list(output.glob("labels/*"))

    with started(*job) as again:
        again.wait_until(lambda: len(commits(output)) > len(kept))
        assert {path: path.read_bytes() for path in kept} == kept
        entries = [json.loads(path.read_text()) for path in commits(output)]
        assert sum(entry["epoch"] == 1 for entry in entries) == len(kept)
        done = [unit for entry in entries for start, stop in entry["units"] for unit in range(start, stop)]
        assert len(done) == len(set(done)), "a committed unit was done again"
        assert again.end()[0] == 0
    assert found(output) == undisturbed(job, tmp_path / "undisturbed")


@pytest.mark.usefixtures("ray_here")
def test_ctrl_c_sigterm_and_a_deadline_end_cleanly_and_the_run_goes_on(
    job: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job += ["--output", str(output)]
    for number, (name, code) in {signal.SIGINT: ("Ctrl-C", 130), signal.SIGTERM: ("SIGTERM", 143)}.items():
        before = len(commits(output))
        with started(*job) as attempt:
            attempt.wait_until(lambda before=before: len(commits(output)) > before)
            attempt.process.send_signal(number)
            returned, _, complaint = attempt.end()
            assert attempt.pids("raylet") == []
        assert returned == code
        assert complaint == (
            f"raylabel: stopped by {name}; what is committed stays, and the same command goes on from there\n"
        )
    late = raylabel(*job, "--stop-after", "1s", "--json")
    assert late.returncode == 9
    assert json.loads(late.stdout.splitlines()[-1])["reason"] == "the deadline"
    assert "stopped by the deadline; what is committed stays" in late.stderr
    assert not (output / "_SUCCESS").exists()
    assert raylabel(*job).returncode == 0
    assert found(output) == undisturbed(job, tmp_path / "undisturbed")


def test_a_second_ctrl_c_ends_at_once(job: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    with started(*job, "--output", str(output)) as attempt:
        attempt.wait_until(lambda: commits(output))
        attempt.process.send_signal(signal.SIGINT)
        attempt.process.send_signal(signal.SIGINT)
        assert attempt.process.wait(5) == 130
