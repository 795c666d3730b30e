"""What a head tells Prometheus of runs on its cluster."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.metrics import (
    ACCELERATOR_SECONDS,
    FAILURES,
    FETCHED,
    IMAGES,
    METRICS,
    PENDING,
    STAGE_SECONDS,
    Metric,
)
from tests.integration.jobs_here import events, raylabel
from tests.integration.nodes import Nodes, running_nodes
from tests.s3 import DIRECTLY

LONG = "60000"
"""A report interval in milliseconds: what is seen after a run's end is what it reported when it ended."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with running_nodes(0, head_cpus=2, RAY_metrics_report_interval_ms=LONG) as nodes:
        yield nodes


@pytest.fixture
def files(photos: Path, tmp_path: Path) -> list[Path]:
    """Four that fail, in the first two units, and the photos twice."""
    good = sorted(photos.glob("*.[pj]*g"))
    half, words = tmp_path / "half.jpg", tmp_path / "words.jpg"
    half.write_bytes((photos / "china.jpg").read_bytes()[:50_000])
    words.write_text("no image")
    return [tmp_path / "gone.jpg", half, words, tmp_path / "gone-too.jpg", *good, *good]


def run(files: list[Path], output: Path, nodes: Nodes, *settings: str) -> CompletedProcess[str]:
    """Runs a job on the cluster in one actor."""
    manifest = output.with_suffix(".txt")
    if not manifest.exists():  # written again, it would be another manifest
        manifest.write_text("\n".join(map(str, files)))
    every = ["units.rows=3", "compute.actors=1", *settings]
    options = [part for setting in every for part in ("--set", setting)]
    job = ("--manifest", str(manifest), "--output", str(output), "--json", "--address", nodes.address)
    done = raylabel("run", *job, *options, RAY_metrics_report_interval_ms=LONG)
    assert "Traceback" not in done.stderr, done.stderr
    return done


Seen = dict[Metric, defaultdict[str, float]]


def seen(nodes: Nodes, output: Path) -> Seen:
    """The values of a run's metrics, by what they are told apart by beside the run."""
    with DIRECTLY.open(f"{nodes.metrics}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    found: Seen = {metric: defaultdict(float) for metric in METRICS}
    for metric, values in found.items():
        for sample in (each for family in families for each in family.samples if each.name == metric.name):
            if sample.labels["run"] == str(output):
                values[" ".join(sample.labels[label] for label in metric.labels[1:])] += sample.value
    return found


def size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.exists())


@pytest.mark.slow
def test_a_head_tells_exactly_what_a_run_did(nodes: Nodes, files: list[Path], tmp_path: Path) -> None:
    assert run(files, tmp_path / "out", nodes).returncode == 0
    found = seen(nodes, tmp_path / "out")
    assert found[IMAGES] == {"labelled": 14, "failed": 4}
    assert found[FAILURES] == {"NOT_FOUND": 2, "TRUNCATED": 1, "NOT_AN_IMAGE": 1}
    assert found[FETCHED] == {"": size(files)}
    assert found[STAGE_SECONDS].keys() == {"fetch", "decode", "classify", "detect", "commit"}
    assert found[ACCELERATOR_SECONDS].keys() == {"busy", "idle"}
    assert all(value > 0 for name in (STAGE_SECONDS, ACCELERATOR_SECONDS) for value in found[name].values())
    assert found[PENDING].keys() == {""}
    assert found[PENDING][""] == 0


@pytest.mark.slow
def test_an_attempt_that_goes_on_counts_what_it_does_itself(
    nodes: Nodes, files: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    stopped = run(files, output, nodes, "max_failed=1")
    assert stopped.returncode == 7
    before = seen(nodes, output)
    assert before[IMAGES]["failed"] > 1

    done = run(files, output, nodes)
    assert done.returncode == 0
    first = next(event for event in events(done) if event["event"] == "progress")
    assert first["failed"] > 1
    after = seen(nodes, output)[IMAGES]
    counted = {outcome: images - before[IMAGES][outcome] for outcome, images in after.items()}
    assert sum(counted.values()) == len(files) - first["done"]
    assert counted["failed"] == 4 - first["failed"]
