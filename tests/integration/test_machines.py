"""Whole runs without standard streams, under low limits, and into what cannot be written."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.jobs_here import COMMAND, raylabel

pytestmark = pytest.mark.slow

TOO_LITTLE = ", which is too little for a Ray"


def shell(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell's command line, in which "$@" is `raylabel` with some arguments."""
    env = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}", "bash", COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ('"$@" <&- >&- 2>&-', None),
        ('"$@" > /dev/full', "No space left on device"),
        ('"$@" | head -n 1 > /dev/null', "Broken pipe"),
    ],
)
def test_a_run_without_output_goes_on_to_its_end(
    command: str, why: str | None, photos: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    output = tmp_path / "out"
    arguments = ["--manifest", str(photos / "rocket.jpg"), "--output", str(output), "--detector", "none"]
    done = shell(command, "run", *arguments, "--json")
    said = f"raylabel: cannot print any more ({why}); the job goes on, and its tables are written\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said if why else "")
    assert json.loads((output / "_SUCCESS").read_text()) == {"labels": 1, "boxes": 0, "errors": 0}
    assert left() == []


@pytest.mark.parametrize(
    ("limit", "codes", "named"),
    [
        ("-n 40", {11, 12}, "`ulimit -n` limits this process to 40 open files: raise it"),
        ("-v 3000000", {11}, "`ulimit -v` limits this process to 3,000,000 KB" + TOO_LITTLE),
        ("-f 2000", {11}, "`ulimit -f` limits this process to 2,000 KB" + TOO_LITTLE),
    ],
)
def test_a_limit_that_is_too_low_is_named(
    limit: str, codes: set[int], named: str, photos: Path, tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    arguments = ["--manifest", str(photos), "--output", str(tmp_path / "out")]
    done = shell(f'ulimit {limit}; "$@"', "run", *arguments)
    assert done.returncode in codes, "11 where Ray itself noticed first"
    assert done.stdout == ""
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert left() == []


def test_an_output_that_cannot_be_written_is_refused(photos: Path, left: Callable[[], list[str]]) -> None:
    job = ["--manifest", str(photos / "rocket.jpg"), "--output", "/proc/out", "--detector", "none"]
    for command, what in (("check", "to /proc/out/"), ("run", "/proc/out/_work/tmp")):
        done = raylabel(command, *job)
        assert done.returncode == 5
        assert done.stderr.startswith(f"raylabel: cannot write {what}")
        assert done.stderr.count("\n") == 1
        assert left() == []
