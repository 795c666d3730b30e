"""A run that was stopped or killed goes on where it was; two attempts do not get into each other's way."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.integration.jobs_here import raylabel, rows, run_here, tables
from tests.integration.killing import Attempt, commits

pytestmark = pytest.mark.slow


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


def stop(job: list[str], output: Path, *numbers: int) -> tuple[int, str, float]:
    """Starts an attempt, signals it after its first commit; its exit code, complaint and seconds to end."""
    before = len(commits(output))
    with Attempt(*job) as attempt:
        attempt.wait_until(lambda: len(commits(output)) > before)
        since = time.monotonic()
        for number in numbers:
            attempt.process.send_signal(number)
        code, _, complaint = attempt.end()
        return code, complaint, time.monotonic() - since


@pytest.mark.usefixtures("ray_here")
def test_a_job_stopped_by_ctrl_c_sigterm_or_a_deadline_goes_on_where_it_was(
    job: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job += ["--output", str(output)]
    said = "raylabel: stopped by {}; committed work stays, and the same command resumes\n"

    assert stop(job, output, signal.SIGINT)[:2] == (130, said.format("Ctrl-C"))
    kept = {path: path.read_bytes() for path in commits(output)}
    assert stop(job, output, signal.SIGTERM)[:2] == (143, said.format("SIGTERM"))
    code, _, seconds = stop(job, output, signal.SIGINT, signal.SIGINT)
    assert code == 130
    assert seconds < 5, "a second Ctrl-C ends at once"

    late = raylabel(*job, "--stop-after", "1s", "--json")
    assert (late.returncode, late.stderr) == (9, said.format("the deadline"))
    assert json.loads(late.stdout.splitlines()[-1])["reason"] == "the deadline"

    assert {path: path.read_bytes() for path in kept} == kept
    entries = [json.loads(path.read_text()) for path in commits(output)]
    assert {entry["attempt"] for entry in entries} == {1, 2, 3}
    done = [unit for entry in entries for start, stop in entry["units"] for unit in range(start, stop)]
    assert len(done) == len(set(done)), "a committed unit was done again"
    assert not list(output.glob("labels/*"))
    assert not (output / "_SUCCESS").exists()

    assert raylabel("run", str(output)).returncode == 0
    assert found(output) == undisturbed(job, tmp_path / "undisturbed")


def test_of_two_attempts_at_once_one_goes_on_and_the_other_says_why_it_stopped(
    job: list[str], tmp_path: Path
) -> None:
    job += [
        "--output",
        str(tmp_path / "out"),
        "--set",
        "fetch.rate=4",
    ]  # still at work when the other's Ray runs
    with Attempt(*job) as one, Attempt(*job) as two:
        ended = {attempt.process.pid: attempt.end() for attempt in (one, two)}
    (winner,) = (pid for pid, (code, _, _) in ended.items() if code == 0)
    ((code, _, complaint),) = (end for pid, end in ended.items() if pid != winner)
    assert code == 6
    assert f"attempt 1 (process {winner} on " in complaint
    assert "is running here. Two at once would do all work twice" in complaint
    assert tables(tmp_path / "out")["labels"]["manifest_index"].to_pylist() == list(range(168))


@pytest.mark.usefixtures("ray_here")
def test_a_driver_that_slept_is_taken_over_from_and_stops_when_it_wakes(
    job: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job += ["--output", str(output)]
    with Attempt(*job) as first:
        first.wait_until(lambda: len(commits(output)) >= 3)
        first.process.send_signal(signal.SIGSTOP)  # its workers go on: zombies
        with Attempt(*job) as second:
            second.wait_until(lambda: "/000002-" in "".join(map(str, commits(output))))
            first.process.send_signal(signal.SIGCONT)
            code, _, complaint = first.end()
            assert second.end()[0] == 0
    assert code == 6
    assert "attempt 2 (process" in complaint
    assert "This one stops; what it committed counts" in complaint
    assert found(output) == undisturbed(job, tmp_path / "undisturbed")
