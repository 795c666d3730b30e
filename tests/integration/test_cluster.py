"""Joining a Ray cluster that is there already, and leaving it as it was."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.jobs_here import events, raylabel
from tests.s3 import free_ports

RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a one-node cluster, which must be running when the test is over."""
    with tempfile.TemporaryDirectory(prefix="rc", ignore_cleanup_errors=True) as folder:
        (port,) = free_ports(1)
        command = [RAY, "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1"]
        command += ["--num-cpus=2", f"--temp-dir={folder}", "--include-dashboard=false"]
        with Path(folder, "head.log").open("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            end = time.monotonic() + 90
            while "Ray runtime started" not in Path(log.name).read_text() and time.monotonic() < end:
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
            running = process.poll() is None
            process.terminate()
            process.wait(90)
            assert running


def test_a_job_joins_the_cluster_at_an_address_and_leaves_it_running(
    address: str, photos: Path, tmp_path: Path
) -> None:
    job = ["run", "--manifest", f"{photos}/c*.png", "--output", str(tmp_path / "out"), "--detector", "none"]
    sessions = Path(os.environ["RAY_TMPDIR"], "ray")
    before = set(sessions.glob("session_*"))
    done = raylabel(*job, "--json", "--address", address)
    assert set(sessions.glob("session_*")) == before, "it started a Ray of its own"
    assert (done.returncode, done.stderr) == (0, "")
    *_, last = events(done)
    assert (last["labels"], last["errors"]) == (3, 0)


def test_an_address_without_a_cluster_is_refused(photos: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    job = ["run", "--manifest", str(photos), "--output", str(tmp_path)]
    done = raylabel(*job, "--address", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"cannot join a Ray cluster at 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
