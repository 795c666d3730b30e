"""Jobs across several nodes, some of which are lost and some of which come later."""

import itertools
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.tables import ALWAYS
from tests.integration.jobs_here import raylabel, rows, tables
from tests.integration.killing import Attempt
from tests.integration.nodes import Nodes, running_nodes


@pytest.fixture
def manifest(photos: Path, tmp_path: Path) -> str:
    """A few hundred photos."""
    return manifest_of(photos, tmp_path, images=240)


def manifest_of(photos: Path, folder: Path, images: int) -> str:
    """The demo photos again and again."""
    every = itertools.islice(itertools.cycle(sorted(map(str, photos.glob("*.[pj]*g")))), images)
    pq.write_table(pa.table({"uri": list(every)}), folder / "m.parquet")
    return str(folder / "m.parquet")


def job(manifest: str, output: Path, *settings: str) -> list[str]:
    every = ["units.rows=8", "units.shard_rows=64", *settings]
    return [
        *("run", "--manifest", manifest, "--output", str(output)),
        *(part for setting in every for part in ("--set", setting)),
    ]


def wait_for(nodes: Nodes, stage: str, number: int, seconds: float = 240) -> None:
    """Until a worker node has an actor of a stage."""
    end = time.monotonic() + seconds
    while not nodes.actors(number, stage):
        assert time.monotonic() < end, f"no actor of {stage} came to node {number}"
        time.sleep(0.1)


def assert_same_tables(one: Path, other: Path) -> None:
    found, expected = tables(one), tables(other)
    for name in ALWAYS:
        assert rows(found[name]) == rows(expected[name])


@pytest.mark.slow
def test_a_job_over_nodes_that_are_lost_and_added_ends_in_the_tables_of_one_machine(
    manifest: str, tmp_path: Path
) -> None:
    alone = raylabel(*job(manifest, tmp_path / "alone"))
    assert (alone.returncode, alone.stderr) == (0, "")
    with running_nodes(2) as nodes:
        settings = ["compute.actors={min: 1, max: 4}", "--address", nodes.address]
        command = [*job(manifest, tmp_path / "nodes", settings[0]), *settings[1:]]
        with Attempt(*command) as attempt:
            for number in (0, 1):
                wait_for(nodes, "LabelActor", number)
            time.sleep(3)
            nodes.kill(0)
            nodes.add()
            wait_for(nodes, "LabelActor", 2)
            code, _, complaint = attempt.end()
        assert (code, complaint) == (0, "")
    assert_same_tables(tmp_path / "nodes", tmp_path / "alone")


@pytest.mark.slow
def test_a_range_of_actors_grows_with_the_cluster(photos: Path, tmp_path: Path) -> None:
    manifest = manifest_of(photos, tmp_path, images=8_000)  # longer than Ray Data takes to see a node
    with running_nodes(1) as nodes:
        command = job(manifest, tmp_path / "out", "compute.actors={min: 1, max: 4}")
        with Attempt(*command, "--detector", "none", "--address", nodes.address):
            wait_for(nodes, "LabelActor", 0)
            nodes.add()
            wait_for(nodes, "LabelActor", 1)


@pytest.mark.slow
def test_actors_beside_gpus_are_handed_units_and_say_what_keeps_them(manifest: str, tmp_path: Path) -> None:
    with running_nodes(0) as nodes:
        nodes.add(gpus=1)  # which torch does not find
        done = raylabel(*job(manifest, tmp_path / "out"), "--address", nodes.address)
    assert (done.returncode, "Traceback" in done.stderr) == (4, False)
    assert "the labelling process crashed on each of the first 3 images" in done.stderr
    assert "Found no NVIDIA driver" in done.stderr


@pytest.mark.slow
def test_nodes_without_the_accelerator_decode_for_the_one_that_has_it(manifest: str, tmp_path: Path) -> None:
    alone = raylabel(*job(manifest, tmp_path / "alone"))
    assert (alone.returncode, alone.stderr) == (0, "")
    fed = ["compute.resources={accelerator: 1}", "compute.decoders={min: 1, max: 4}"]
    with running_nodes(0) as nodes:
        nodes.add(cpus=1, accelerator=1)
        nodes.add(cpus=3)
        with Attempt(*job(manifest, tmp_path / "fed", *fed), "--address", nodes.address) as attempt:
            wait_for(nodes, "LabelActor", 0)
            wait_for(nodes, "DecodeActor", 1)
            assert nodes.actors(1, "LabelActor") == 0
            time.sleep(3)
            nodes.kill(1)  # with images in its object store
            nodes.add(cpus=2)
            wait_for(nodes, "DecodeActor", 2)
            code, _, complaint = attempt.end()
        assert (code, complaint) == (0, "")
    assert_same_tables(tmp_path / "fed", tmp_path / "alone")
