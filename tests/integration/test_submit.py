"""Jobs sent to a cluster that this process is no part of, over its dashboard, as a user sends them."""

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.cluster.jobs_api import STOP_WAIT_S
from jobs.cluster.submit import SubmitOptions, pack
from schemas.spec_file import build_spec
from tests.image_server import ImageServer, serving
from tests.integration.jobs_here import raylabel, rows, tables
from tests.integration.killing import PATIENCE_S, Attempt, commits
from tests.integration.nodes import Nodes, running_nodes
from tests.s3 import DIRECTLY, S3Server, free_ports
from tests.s3_proxy import Exchange, proxying
from tests.workers.models import golden

SKY = """
import torch
from workers.models.model import ClassifierModel


def sky() -> ClassifierModel:
    return ClassifierModel(
        module=torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)),
        transform=lambda image: torch.nn.functional.interpolate(image[None] / 255, (8, 8))[0],
        categories=("sky", "other"),
    )
"""


def start(**environment: str) -> Any:
    """A head with two CPUs and a dashboard, which finds no raylabel on its path but what is sent there."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return running_nodes(0, head_cpus=2, dashboard=True, PATH=path, PYTHONPATH="", **environment)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with start() as nodes:
        yield nodes


@pytest.fixture
def gate() -> threading.Event:
    """Until it is set, a job gets no more than its first images."""
    return threading.Event()


@pytest.fixture
def server(gate: threading.Event, photos: Path) -> Iterator[ImageServer]:
    """The photos, of which the first twelve are answered at once."""

    def answer(*_: object) -> int:
        if sum(photo_server.requests.values()) > 12:
            gate.wait()
        return 200

    with serving(photos) as photo_server:
        photo_server.answer = answer
        yield photo_server
        gate.set()


@pytest.fixture
def job(server: ImageServer, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of 14 units of three photos, in one actor, with paths that are meant from its folder."""
    names = sorted(path.name for path in photos.glob("*.[pj]*g"))
    (tmp_path / "m.txt").write_text("\n".join(server.url(f"{n}/{name}") for n in range(6) for name in names))
    file = tmp_path / "birds.yaml"
    file.write_text(
        "{manifest: m.txt, output: out, units: {rows: 3}, compute: {actors: 1}, fetch: {timeout_s: 300}}"
    )
    monkeypatch.chdir(tmp_path)
    return file


def at(nodes: Nodes) -> list[str]:
    return ["--address", nodes.dashboard]


def submitted(nodes: Nodes, *arguments: str) -> str:
    """Submits a job; its id."""
    done = raylabel("submit", *arguments, "--json", *at(nodes))
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    assert told["event"] == "submitted"
    return told["submission"]


def listed(nodes: Nodes) -> dict[str, dict[str, Any]]:
    """What `raylabel jobs` tells, by id."""
    done = raylabel("jobs", "--json", *at(nodes))
    assert (done.returncode, done.stderr) == (0, "")
    return {job["submission"]: job for job in json.loads(done.stdout)}


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_a_submitted_job_gives_what_is_recorded_of_its_photos(
    cluster: Nodes, photos: Path, tmp_path: Path
) -> None:
    job = ["--manifest", str(photos), "--output", str(tmp_path / "out"), "--wait", "--json"]
    done = raylabel("submit", *job, *at(cluster))
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in told if event["event"] != "progress"] == [
        "submitted",
        "started",
        "complete",
        "ended",
    ]
    assert (told[-1]["state"], told[-1]["exit_code"]) == ("SUCCEEDED", 0)
    assert f"these are local paths: manifest.uri {photos}, output {tmp_path}/out" in done.stderr

    found = tables(tmp_path / "out")
    golden.assert_recorded(found, [Path(uri).name for uri in found["labels"]["uri"].to_pylist()])
    assert found["labels"]["manifest_index"].to_pylist() == list(range(7))

    status = raylabel("status", told[0]["submission"], *at(cluster))
    assert (status.returncode, status.stderr) == (0, "")
    assert f"submission: {told[0]['submission']}, succeeded, since" in status.stdout
    assert "images: 7 of 7 done, 0 failed" in status.stdout


@pytest.mark.slow
def test_a_job_is_followed_stopped_and_gone_on_with_and_another_beside_it_is_refused(
    cluster: Nodes, job: Path, gate: threading.Event, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    first = submitted(cluster, str(job))
    with Attempt("logs", "-f", first, *at(cluster)) as follower:
        follower.wait_until(lambda: commits(output))
        second = raylabel("submit", str(job), "--wait", *at(cluster))
        assert second.returncode == 6
        assert "is running here. Two at once would do all work twice" in second.stdout
        assert "failed with exit code 6" in second.stderr

        jobs = listed(cluster)
        one, two = jobs[first], jobs[second.stdout.split()[1]]
        assert (one["state"], one["output"], one["job_name"]) == ("RUNNING", str(output), "birds")
        assert (two["state"], two["exit_code"]) == ("FAILED", 6)
        assert two["last_log_line"].startswith("raylabel: attempt 1 (process ")
        status = json.loads(raylabel("status", first, "--json", *at(cluster)).stdout)
        assert (status["state"], status["run"]["state"]) == ("RUNNING", "running")

        since = time.monotonic()
        stopped = raylabel("stop", first, *at(cluster))
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert f"{first} was stopped; committed work stays" in stopped.stdout
        assert time.monotonic() - since < STOP_WAIT_S, "it was killed"
        code, said, complaint = follower.end()
    assert code == 143
    assert "raylabel: stopped by SIGTERM; committed work stays" in said
    assert f"{first} was stopped" in complaint
    assert raylabel("status", str(output)).stdout.splitlines()[1] == "state: stopped: SIGTERM"

    entries = [json.loads(path.read_text()) for path in commits(output)]
    kept = [row for entry in entries for start, end in entry["units"] for row in range(3 * start, 3 * end)]
    gate.set()
    done = raylabel("submit", str(job), "--wait", *at(cluster))
    assert done.returncode == 0, done.stdout + done.stderr
    labels, errors = (tables(output)[name] for name in ("labels", "errors"))
    assert (labels["manifest_index"].to_pylist(), errors.num_rows) == (list(range(42)), 0)
    (attempt,) = output.glob("_work/*/attempts/000002.json")
    began = datetime.fromisoformat(json.loads(attempt.read_text())["started_at"])
    before = [row for row, at in enumerate(labels["processed_at"].to_pylist()) if at < began]
    assert before == sorted(kept) != [], "a committed unit was done again"


@pytest.mark.slow
def test_a_job_that_fails_gives_its_own_exit_code_and_no_secret_is_seen(
    cluster: Nodes, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    secret, signature = "s3cr3tpassw0rd", "s1gnatur3"
    manifest = f"http://me:{secret}@127.0.0.1:{port}/photos.csv?X-Amz-Signature={signature}"
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps({"manifest": manifest, "output": str(tmp_path / "out")}))
    done = raylabel("submit", str(job), "--wait", "--no-ship", *at(cluster))
    assert done.returncode in (3, 5), done.stdout + done.stderr
    assert f"http://127.0.0.1:{port}/photos.csv" in done.stdout, "the job did not get its manifest"

    token = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(f"{cluster.dashboard}/api/jobs/", headers=token)
    with DIRECTLY.open(request) as answer:
        seen = answer.read().decode()
    name = done.stdout.split()[1]
    (mine,) = (each for each in json.loads(seen) if each["submission_id"] == name)
    assert mine["entrypoint"] == "python -m jobs.cli run job.yaml"
    assert mine["metadata"] == {
        "job_name": "job",
        "output": str(tmp_path / "out"),
        "raylabel": "the cluster's own",
    }
    for text in (seen, done.stdout, done.stderr, raylabel("status", name, *at(cluster)).stdout):
        assert secret not in text
        assert signature not in text


@pytest.mark.slow
def test_failed_images_are_labelled_again_on_the_cluster(
    cluster: Nodes, photos: Path, server: ImageServer, tmp_path: Path
) -> None:
    names = sorted(path.name for path in photos.glob("*.[pj]*g"))
    (tmp_path / "m.txt").write_text("\n".join(server.url(f"0/{name}") for name in names))
    output = tmp_path / "out"
    job = ["submit", "--manifest", str(tmp_path / "m.txt"), "--output", str(output), "--detector", "none"]
    job += ["--wait", "--json", *at(cluster)]
    server.answer = lambda path, *_: 404 if names[2] in path else 200
    assert raylabel(*job).returncode == 0
    assert tables(output)["errors"]["code"].to_pylist() == ["NOT_FOUND"]
    before = rows(tables(output)["labels"])

    server.answer = lambda *_: 200
    done = raylabel(*job, "--retry", "--code", "NOT_FOUND", "--set", "fetch.concurrency=2")
    assert done.returncode == 0, done.stdout + done.stderr
    told = {event["event"]: event for event in map(json.loads, done.stdout.splitlines())}
    assert (told["complete"]["labels"], told["complete"]["errors"]) == (7, 0)
    after = rows(tables(output)["labels"])
    assert [row for row in after if row["manifest_index"] != 2] == before
    mine = listed(cluster)[told["submitted"]["submission"]]
    assert (mine["state"], mine["output"]) == ("SUCCEEDED", str(output))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--code", "TIMEOUT"], "found --code without --retry"),
        (["--retry", "--code", "SLOW"], "--code: found SLOW; allowed: NOT_FOUND"),
        (["--retry", "--restart"], "found --restart and --retry"),
        (["--retry", "--set", "detector.top=1"], "detector.top: unknown key"),
        (
            ["--retry", "--set", "detector.score_threshold=0.5"],
            "--set: found detector.score_threshold; allowed with --retry: keys of fetch, compute, max_failed",
        ),
    ],
)
def test_what_a_retry_does_not_take_is_refused_here(arguments: list[str], said: str) -> None:
    done = raylabel("submit", "--manifest", "s3://b/m.csv", "--output", "s3://b/out", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_cluster_with_another_ray_is_refused_before_anything_is_sent(cluster: Nodes) -> None:
    def older(exchange: Exchange) -> None:
        if exchange.path == "api/version" and exchange.answer:
            told = {**json.loads(exchange.answer.body), "ray_version": "2.40.0"}
            exchange.answer.body = json.dumps(told).encode()
            exchange.answer.length = len(exchange.answer.body)

    with proxying(S3Server(cluster.dashboard), after=older) as there:
        done = raylabel("submit", "--manifest", "m", "--output", "o", "--address", there.endpoint)
    assert (done.returncode, done.stdout) == (11, "")
    assert f"the cluster at {there.endpoint} has Ray 2.40.0; raylabel" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_is_shipped_runs_and_is_found_by_the_processes_that_label(
    cluster: Nodes, photos: Path, tmp_path: Path
) -> None:
    made, output = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    spec = build_spec({"manifest": "m", "output": "o"}, "a test")
    pack(made, spec, SubmitOptions(None, "a", None, True, [], wait=False, as_json=False))
    (made / "skies.py").write_text(SKY)
    next(made.glob("*.dist-info")).rename(made / "raylabel-9.9.dist-info")
    metadata = made / "raylabel-9.9.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: raylabel\nVersion: 9.9\n")
    wheel = shutil.make_archive(str(tmp_path / "raylabel-9.9-py3-none-any"), "zip", made)

    job = ["--manifest", f"{photos}/c*.png", "--output", str(output), "--detector", "none"]
    done = raylabel("submit", *job, "--classifier", "skies:sky", "--wheel", wheel, "--wait", *at(cluster))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((output / "run.json").read_text())["raylabel"] == "9.9"
    assert set(tables(output)["labels"]["label"].to_pylist()) <= {"sky", "other"}
    assert "skies:sky must be importable on the cluster" in done.stderr


def test_without_its_token_nobody_is_let_in(cluster: Nodes, photos: Path, tmp_path: Path) -> None:
    job = ["submit", "--manifest", str(photos), "--output", str(tmp_path / "out"), *at(cluster)]
    for environment in ({"RAY_AUTH_TOKEN": "wrong" * 8}, {"RAY_AUTH_MODE": "disabled"}):
        done = raylabel(*job, **environment)
        assert (done.returncode, done.stdout) == (11, "")
        assert f"{cluster.dashboard} needs its cluster's token" in done.stderr
        assert "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_job_that_the_cluster_does_not_know_is_refused(cluster: Nodes) -> None:
    for command in (["status"], ["logs"], ["logs", "-f"], ["stop"]):
        done = raylabel(*command, "raylabel-20260101T000000-00000000", *at(cluster))
        assert (done.returncode, done.stdout) == (11, "")
        assert "Job raylabel-20260101T000000-00000000 does not exist" in done.stderr


def test_an_address_where_no_dashboard_answers_is_refused_within_seconds() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections, and never answers
        for nobody in (port, mute.getsockname()[1]):
            since = time.monotonic()
            done = raylabel("jobs", "--address", f"http://me:s3cr3t@127.0.0.1:{nobody}")
            assert (done.returncode, done.stdout) == (11, "")
            assert f"no Ray dashboard answers at http://127.0.0.1:{nobody}" in done.stderr
            assert "s3cr3t" not in done.stderr
            assert time.monotonic() - since < 30


@pytest.mark.slow
def test_a_job_whose_head_was_killed_goes_on_when_it_is_submitted_to_the_next(
    job: Path, gate: threading.Event, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with start() as nodes:
        submitted(nodes, str(job))
        wait_until(lambda: commits(output))
        nodes.kill_head()
        gate.set()
        nodes.start_head(2, dashboard=True)
        done = raylabel("submit", str(job), "--wait", *at(nodes))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(output.glob("_work/*/attempts/*.json"))) == 2
    assert tables(output)["labels"]["manifest_index"].to_pylist() == list(range(42))


@pytest.mark.slow
def test_ctrl_c_while_waiting_leaves_the_job_running(
    cluster: Nodes, job: Path, gate: threading.Event, tmp_path: Path
) -> None:
    with Attempt("submit", str(job), "--wait", *at(cluster)) as waiting:
        waiting.wait_until(lambda: commits(tmp_path / "out"))
        waiting.process.send_signal(signal.SIGINT)
        code, said, complaint = waiting.end()
    gate.set()
    name = said.split()[1]
    assert code == 130
    assert (
        f"{name} is still running; `raylabel logs --follow {name} --address {cluster.dashboard}` follows it"
        in complaint
    )
    wait_until(lambda: listed(cluster)[name]["state"] == "SUCCEEDED")
