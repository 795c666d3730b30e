"""Jobs whose processes are killed at random, again and again, while somebody reads the tables."""

import contextlib
import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.tables import TABLES
from tests.integration.jobs_here import rows, run_here
from tests.integration.killing import Attempt, Victim
from tests.s3 import S3Server
from workers.storage.store import Store

pytestmark = pytest.mark.slow

UNITS = {"rows": 4, "shard_rows": 24}
MODELS: dict[str, Any] = {
    "embedder": {"model": "efficientnet_lite0"},
    "taggers": {
        "scene": {"model": "efficientnet_lite0"},
        "what": {"model": "efficientnet_lite0", "on": "boxes", "top_k": 2},
    },
}
"""In addition to the usual ones; all but the detector have one network."""

VICTIMS: dict[Victim, int] = {"driver": 2, "raylet": 1, "actor": 8, "labeller": 8, "task": 1}
"""Whom to kill, and how often among the others."""

Tables = dict[str, pa.Table]


@pytest.fixture
def manifest(photos: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Photos, and some that are not there or broken: 160 rows, or as many copies as are asked for."""
    names = sorted(str(path) for path in photos.glob("*.[pj]*g"))
    (tmp_path / "half.jpg").write_bytes((photos / "china.jpg").read_bytes()[:60_000])
    names.append(str(tmp_path / "half.jpg"))
    path = tmp_path / "m.txt"
    path.write_text("\n".join([*names * getattr(request, "param", 19), *["/nowhere.jpg"] * 8]))
    return path


def job(manifest: Path, output: str) -> list[str]:
    """The command. Each image is a batch of its own: a score's last bits depend on the batch it was in."""
    settings = [f"units.{key}={value}" for key, value in UNITS.items()]
    settings += ["compute.batch_size=1", *(f"{key}={json.dumps(value)}" for key, value in MODELS.items())]
    pairs = [pair for setting in settings for pair in ("--set", setting)]
    return ["run", "--manifest", str(manifest), "--output", output, *pairs]


@pytest.fixture
def undisturbed(ray_here: None, manifest: Path, tmp_path: Path) -> Tables:  # noqa: ARG001
    """The tables of the same job that nobody disturbed."""
    output = tmp_path / "undisturbed"
    run_here(manifest=str(manifest), output=str(output), units=UNITS, compute={"batch_size": 1}, **MODELS)
    return published(Store(str(output)))


def published(store: Store) -> Tables:
    """The tables as a reader globs them; of those alone that the job has."""
    found = {name: store.read_tables(store.list(name)) for name in TABLES}
    return {name: pa.concat_tables(tables) for name, tables in found.items() if tables}


class Reader(threading.Thread):
    """Reads every file that a glob finds, all the time; each must be whole and a shard of the right tables.

    Attributes:
        wrong: what was not.
        files: how many were read.
    """

    def __init__(self, store: Store, expected: Tables) -> None:
        super().__init__(name="reader")
        self._store, self._over = store, threading.Event()
        self._expected = {name: rows(table) for name, table in expected.items()}
        self.wrong: list[str] = []
        self.files = 0

    def run(self) -> None:
        while not self._over.wait(0.2):
            for name in TABLES:
                for key in self._store.list(name):
                    self._read(name, key)

    def _read(self, name: str, key: str) -> None:
        try:
            (table,) = self._store.read_tables([key])
        except Exception as error:
            self.wrong.append(f"{key}: {error}")
            return
        self.files += 1
        shard = int(Path(key).stem.removeprefix("shard-"))
        span = range(shard * UNITS["shard_rows"], (shard + 1) * UNITS["shard_rows"])
        if rows(table) != [row for row in self._expected[name] if row["manifest_index"] in span]:
            self.wrong.append(f"{key} is not the shard that it should be")

    @contextlib.contextmanager
    def reading(self) -> Iterator["Reader"]:
        self.start()
        try:
            yield self
        finally:
            self._over.set()
            self.join()


def run_under_fire(command: list[str], choose: random.Random, most: int) -> Counter[str]:
    """Runs a job to its end, again and again, killing at random until enough were killed; counts them.

    The orphans of a driver that was killed live on, as long as Ray lets them, beside the next attempt.
    """
    killed: Counter[str] = Counter()
    with contextlib.ExitStack() as attempts:
        for _ in range(most + 5):
            attempt = attempts.enter_context(Attempt(*command))
            shoot(attempt, choose, killed, most)
            if attempt.end()[0] == 0:
                return killed
    pytest.fail(f"no attempt came to its end; killed: {killed}")


def shoot(attempt: Attempt, choose: random.Random, killed: Counter[str], most: int) -> None:
    """Kills one process after another of an attempt, until enough are dead or it has ended."""
    pause = choose.uniform(0, 20)  # from its start-up on
    while killed.total() < most and attempt.process.poll() is None:
        end = time.monotonic() + pause
        while time.monotonic() < end and attempt.process.poll() is None:
            time.sleep(0.02)
        (victim,) = choose.choices(list(VICTIMS), list(VICTIMS.values()))
        killed[victim] += attempt.kill(victim, choose)
        pause = choose.uniform(0, 4)


def assert_survives(
    store: Store, command: list[str], undisturbed: Tables, seed: int, most: int
) -> Counter[str]:
    with Reader(store, undisturbed).reading() as reader:
        killed = run_under_fire(command, random.Random(seed), most)
    assert reader.wrong == []
    assert reader.files
    found = published(store)
    for name, table in undisturbed.items():
        assert rows(found[name]) == rows(table), f"seed {seed}, killed: {killed}"
    return killed


def test_a_job_under_fire_ends_with_the_tables_of_an_undisturbed_one(
    manifest: Path, undisturbed: Tables, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    killed = assert_survives(Store(output), job(manifest, output), undisturbed, seed=3, most=4)
    assert killed.total() == 4


@pytest.mark.parametrize("manifest", [60], indirect=True)
def test_two_hundred_kills_leave_no_trace_in_the_tables(
    manifest: Path, undisturbed: Tables, tmp_path: Path, s3: S3Server
) -> None:
    killed: Counter[str] = Counter()
    seed = 0
    while killed.total() < 200:
        local = seed % 2 == 0
        output = str(tmp_path / f"out-{seed}") if local else f"s3://{s3.new_bucket()}/out"
        killed += assert_survives(Store(output), job(manifest, output), undisturbed, seed, most=25)
        print(f"seed {seed} on {'local files' if local else 'S3'}: killed so far {dict(killed)}", flush=True)
        if local:
            shutil.rmtree(output)
        seed += 1
