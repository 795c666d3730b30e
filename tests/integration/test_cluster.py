"""Joining a Ray cluster that is there already, and leaving it as it was."""

import os
from pathlib import Path

from tests.integration.jobs_here import events, raylabel
from tests.integration.nodes import running_nodes
from tests.s3 import free_ports


def test_a_job_joins_the_cluster_at_an_address_and_leaves_it_running(photos: Path, tmp_path: Path) -> None:
    job = ["run", "--manifest", f"{photos}/c*.png", "--output", str(tmp_path / "out"), "--detector", "none"]
    sessions = Path(os.environ["RAY_TMPDIR"], "ray")
    with running_nodes(0, head_cpus=2) as nodes:
        before = set(sessions.glob("session_*"))
        done = raylabel(*job, "--json", "--address", nodes.address)
        assert set(sessions.glob("session_*")) == before, "it started a Ray of its own"
        assert nodes.head.poll() is None
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
