"""A command in a process that has its modules already is as one that a user starts."""

import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.jobs_here import COMMAND, raylabel
from tests.jobs.report.test_page import put_full_run
from tests.warm import READ_WHEN_IMPORTED, warm_commands


def cold(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "200"}
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, env=env)


def test_it_prints_and_ends_as_one_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_full_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    for arguments in (["status", "run"], ["status", "none"], ["show", "run", "--limit", "x"]):
        warm, own = raylabel(*arguments), cold(*arguments)
        assert (warm.returncode, warm.stdout, warm.stderr) == (own.returncode, own.stdout, own.stderr)
    assert {raylabel(*arguments).returncode for arguments in (["status", "run"], ["status", "none"])} == {
        0,
        5,
    }


def test_it_has_the_environment_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = put_full_run(tmp_path)
    wide = raylabel("show", output)
    assert max(map(len, wide.stdout.splitlines())) > 60
    monkeypatch.setenv("COLUMNS", "60")
    assert raylabel("show", output).stdout == wide.stdout  # the helper's own is 200
    narrow = raylabel("show", output, COLUMNS="60")
    assert max(map(len, narrow.stdout.splitlines())) <= 60


@pytest.mark.parametrize("name", [f"{begin}X" for begin in READ_WHEN_IMPORTED])
def test_what_libraries_read_when_they_are_imported_needs_a_process_of_its_own(name: str) -> None:
    assert warm_commands().can_run(dict(os.environ))
    assert not warm_commands().can_run({**os.environ, name: "1"})


def test_where_a_command_killed_the_fork_server_the_next_one_gets_another(
    tmp_path: Path, photos: Path
) -> None:
    check = ["check", "--manifest", str(photos), "--output", str(tmp_path / "out"), "--detector", "nanodet_x"]
    assert raylabel(*check).returncode == 4
    (fork_server,) = (
        process
        for process in psutil.Process(warm_commands().pid).children()
        if process.status() != psutil.STATUS_ZOMBIE and "run_server()" in " ".join(process.cmdline())
    )
    fork_server.kill()
    while (
        fork_server.status() != psutil.STATUS_ZOMBIE or len(os.listdir(f"/proc/{fork_server.pid}/task")) > 1
    ):
        time.sleep(0.01)
    done = raylabel(*check)
    assert done.stderr.startswith("raylabel: detector: there is no detector 'nanodet_x'")
    assert done.returncode == 4
