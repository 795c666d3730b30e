"""How fast a folder of a bucket is listed as a manifest, and in what memory of the driver.

    python -m tests.benchmarks.listing [--keys 200000] [--rounds 3] [--latency-ms 0] [--before CLONE]

Small objects in a few folders of a real S3 server on this machine are made into the rows of a manifest, in
Parquet, as a driver does, each time by a process of its own: a tenth of them and all. What all take of memory
beyond what the tenth does is what keys take. With --before, the raylabel of another clone takes turns with
this one. --latency-ms holds every answer back, as a store farther away does.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import S3Store

from tests.benchmarks.photos import ROOT
from tests.s3 import ACCESS_KEY, SECRET_KEY, S3Server, running_server
from tests.s3_proxy import proxying

FOLDERS, PART = 20, 10
"""Folders that keys are spread over, and how many times fewer there are in the small case."""

CHILD = """
import json, resource, sys, tempfile, time
from schemas.spec import ManifestSpec
from workers.manifest.open import open_manifest
from workers.manifest.find import find_sources
from workers.storage.store import Store
began = time.monotonic()
spec = ManifestSpec(uri=sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    rows = open_manifest(spec, find_sources(spec), Store(folder), lambda *_: []).rows
seconds, cpu = time.monotonic() - began, time.process_time()
print(json.dumps([rows, seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


@dataclass(frozen=True)
class Listed:
    """What listing a folder took.

    Attributes:
        rows: keys that became rows.
        seconds: without starting Python.
        cpu_seconds: of the process in all.
        peak: its most resident memory, in bytes.
    """

    rows: int
    seconds: float
    cpu_seconds: float
    peak: int


def main() -> None:
    """Prints a line for each listing, and what they come to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--before", type=Path)
    asked = parser.parse_args()
    clones = {"before": asked.before, "now": ROOT} if asked.before else {"now": ROOT}
    found: dict[str, list[tuple[Listed, Listed]]] = {name: [] for name in clones}
    with running_server() as server:
        bucket = server.new_bucket()
        for folder, count in (("few", asked.keys // PART), ("many", asked.keys)):
            put(server, bucket, folder, count)
        with delayed(server, asked.latency_ms / 1000) as place:
            for _ in range(asked.rounds):
                for name, clone in clones.items():
                    few, many = (listed(clone, place, f"s3://{bucket}/{each}") for each in ("few", "many"))
                    found[name].append((few, many))
                    print(f"{name}: {few}; {many}; load {os.getloadavg()[0]:.1f}", flush=True)
    for name, pairs in found.items():
        print(f"{name}: {summary(pairs)}")


def summary(pairs: list[tuple[Listed, Listed]]) -> str:
    """The medians of some rounds."""
    rate = statistics.median(many.rows / many.seconds for _, many in pairs)
    cpu = statistics.median((b.cpu_seconds - a.cpu_seconds) / (b.rows - a.rows) for a, b in pairs)
    grown = statistics.median((b.peak - a.peak) / (b.rows - a.rows) for a, b in pairs)
    peak = statistics.median(many.peak for _, many in pairs)
    each = f"{1e6 * cpu:.1f} CPU us and {grown:,.0f} bytes a key"
    return f"{rate:,.0f} keys/s, {each}, {peak / 1e6:,.0f} MB at most"


def put(server: S3Server, bucket: str, folder: str, count: int) -> None:
    """Makes so many objects below a folder."""
    store = S3Store(
        bucket,
        endpoint=server.endpoint,
        region="us-east-1",
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        client_options={"allow_http": True},
    )
    keys = (f"{folder}/set-{n % FOLDERS:02}/photo-of-a-middling-name-{n:09}.jpg" for n in range(count))
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda key: obstore.put(store, key, b"x"), keys):
            pass


@contextlib.contextmanager
def delayed(server: S3Server, seconds: float) -> Iterator[S3Server]:
    """The same server, from farther away."""
    if not seconds:
        yield server
        return
    with proxying(server, before=lambda _: time.sleep(seconds)) as place:
        yield place


def listed(clone: Path, server: S3Server, url: str) -> Listed:
    """What it takes the raylabel of a clone to list a folder."""
    environment = {**os.environ, **server.environment, "PYTHONPATH": str(clone)}
    command = [sys.executable, "-c", CHILD, url]
    out = subprocess.run(command, env=environment, cwd=clone, stdout=subprocess.PIPE, text=True, check=True)
    return Listed(*json.loads(out.stdout))


if __name__ == "__main__":
    main()
