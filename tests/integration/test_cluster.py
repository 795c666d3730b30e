"""Joining a Ray cluster that is there already, and leaving it as it was."""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._common.usage import usage_constants as usage_constant
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from tests.integration.jobs_here import events, raylabel
from tests.integration.nodes import Nodes, running_nodes
from tests.s3 import free_ports


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with running_nodes(0, head_cpus=2) as nodes:
        yield nodes


def test_a_job_joins_the_cluster_at_an_address_leaves_it_running_and_shows_its_log_with_verbose(
    cluster: Nodes, photos: Path, tmp_path: Path
) -> None:
    job = ["run", "--manifest", f"{photos}/c*.png", "--output", str(tmp_path / "out"), "--detector", "none"]
    sessions = Path(os.environ["RAY_TMPDIR"], "ray")
    before = set(sessions.glob("session_*"))
    done = raylabel(*job, "--json", "--verbose", "--address", cluster.address)
    assert set(sessions.glob("session_*")) == before, "it started a Ray of its own"
    assert cluster.head.poll() is None
    assert done.returncode == 0, done.stderr
    *_, last = events(done)
    assert (last["labels"], last["errors"]) == (3, 0)
    run = json.loads((tmp_path / "out" / "run.json").read_text())["id"]
    assert f" INFO jobs.run.pipeline [run {run}] attempt 1 (" in done.stderr
    assert f" INFO workers.label.actors [run {run}] labelling in attempt 1: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("there", "advice"),
    [
        ("2.9.3", "This raylabel needs Ray"),
        ("2.60.99", "Run raylabel with Ray 2.60.99 and Python"),
    ],
)
def test_a_cluster_with_another_ray_is_refused_with_both_versions(
    cluster: Nodes, photos: Path, tmp_path: Path, there: str, advice: str
) -> None:
    with saying_its_ray_is(cluster, there):
        job = ["run", "--manifest", str(photos), "--output", str(tmp_path / "out")]
        done = raylabel(*job, "--address", cluster.address)
    assert (done.returncode, done.stdout) == (11, "")
    assert f"the Ray cluster at {cluster.address} has Ray {there} and Python" in done.stderr
    assert f"this machine has Ray {ray.__version__} and Python {platform.python_version()}" in done.stderr
    assert advice in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@contextlib.contextmanager
def saying_its_ray_is(cluster: Nodes, version: str) -> Iterator[None]:
    """The cluster tells whoever joins of another version of Ray, for the length of a block."""
    store = GcsClient(address=cluster.address)
    place = {"key": usage_constant.CLUSTER_METADATA_KEY, "namespace": KV_NAMESPACE_CLUSTER}
    true = store.internal_kv_get(**place)
    told = json.dumps({**json.loads(true), "ray_version": version}).encode()
    store.internal_kv_put(value=told, overwrite=True, **place)
    yield
    store.internal_kv_put(value=true, overwrite=True, **place)


def test_an_address_without_a_cluster_is_refused(photos: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    job = ["run", "--manifest", str(photos), "--output", str(tmp_path)]
    done = raylabel(*job, "--address", f"127.0.0.1:{port}")
    assert done.returncode == 11
    assert f"cannot join a Ray cluster at 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
