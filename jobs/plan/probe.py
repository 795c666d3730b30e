"""A sample of a job's images, sent through as many labelling processes as a run has on this machine."""

import dataclasses
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from jobs.cluster.pools import Pool, pool_on
from jobs.plan.predict import OVERHEAD_CPU_S
from jobs.prepare.resolve import ResolvedJob
from schemas.exceptions import ProcessDiedError, RaylabelError
from schemas.locations import Location
from schemas.plan import Pass, Plan
from schemas.prediction import Cluster, Costs, Probed
from schemas.spec import ComputeSpec
from workers.label.children import build_gpu_counter, build_profiler
from workers.manifest.manifest import Manifest
from workers.process.child import Child
from workers.process.forkserver import shared_fork_server

SEED = 0
SAMPLE_RUNS = 16
"""Places of a manifest that a sample is taken from: each may be a row group to read."""

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Probe:
    """What was measured.

    Attributes:
        images: that each process probed.
        processes: at once.
        device: that the models ran on.
        failed: of the images failed, by code.
        example: one that failed and why; "" where none did.
        seconds: that it took, models loaded.
        share: of the time of its cores that it got while it labelled; 1 where nobody else wanted them.
        costs: of one image.
    """

    images: int
    processes: int
    device: str
    failed: dict[str, int]
    example: str
    seconds: float
    share: float
    costs: Costs


def this_machine() -> Cluster:
    """The cores that this process may use, and the GPUs that torch finds."""
    counter = Child(shared_fork_server().address, build_gpu_counter, None, memory_share=1)
    try:
        gpus: int = counter(None)
    finally:
        counter.end()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = (CPU_QUOTA.read_text() if CPU_QUOTA.is_file() else "max 1").partition(" ")
    return Cluster(1, cores if quota == "max" else max(1, min(cores, int(quota) // int(period))), gpus)


def sample_locations(manifest: Manifest, size: int) -> list[Location]:
    """Where the images of a sample are; no other columns are read."""
    bare = dataclasses.replace(manifest, image_id_column=None, carried=pa.schema([]))
    return [where for rows in sample_rows(manifest.rows, size) for where in bare.read(rows).locations]


def sample_rows(rows: int, size: int) -> Iterator[range]:
    """So many rows in runs at up to `SAMPLE_RUNS` places, spread over a manifest; the same in every call.

    All rows where there are no more. Runs never overlap: how far each is shifted is drawn from its own part
    of the rows that are left over.
    """
    random_places = random.Random(SEED)
    size = min(size, rows)
    spots = min(SAMPLE_RUNS, size) if size < rows else 1
    for spot in range(spots):
        first, last = size * spot // spots, size * (spot + 1) // spots
        least, most = (rows - size) * spot // spots, (rows - size) * (spot + 1) // spots
        start = first + random_places.randint(least, most)
        yield range(start, start + last - first)


def probe_here(job: ResolvedJob, rows: int, locations: list[Location], here: Cluster) -> Probe:
    """Sends images through as many processes at once as a run has on this machine.

    Each gets all of them, in another order.

    Args:
        job: whose images they are.
        rows: of the whole manifest.
        locations: of the images.
        here: this machine, without GPUs where the models are to run on the CPU.

    Raises:
        RaylabelError: a process died, or no image can be labelled.
    """
    if not locations:
        raise RaylabelError("the manifest has no rows: there is nothing to predict")
    pool = pool_here(job.spec.compute, here)
    nothing = Plan(rows=0, unit_rows=1, shard_units=1)  # the processes are given images, not rows
    no_rows = Manifest([], "uri", None, pa.schema([]))
    settings = job.label_settings(no_rows, Pass(nothing), rows, pool.actors, pool)
    with ExitStack() as stack:
        children = []
        for _ in range(pool.actors):
            children.append(Child(settings.fork_server, build_profiler, settings, settings.memory_share))
            stack.callback(children[-1].end)
        threads = stack.enter_context(ThreadPoolExecutor(pool.actors))
        try:
            # no images at first: the models are built meanwhile. Each step begins when all are ready for it
            list(threads.map(lambda child: child([]), children))
            began = time.monotonic()
            turned = [_rotated(locations, number / pool.actors) for number in range(pool.actors)]
            list(threads.map(lambda child, each: child(each), children, turned))
            found = list(threads.map(lambda child: child(None), children))
        except ProcessDiedError as death:
            raise RaylabelError(
                f"the process that probed the images died in stage {death.stage}: {death.message}. A run "
                "finds the image at fault and goes on; for a plan take another --sample"
            ) from None
    seconds = time.monotonic() - began
    failed, example = found[0].failed, found[0].example
    if sum(failed.values()) == len(locations):
        raise RaylabelError(f"none of the {len(locations):,} probed images can be labelled: {example}")
    share = sum(each.work_cpu_s for each in found) / sum(each.work_s for each in found)
    share = min(share, 1.0) if pool.device == "cpu" else 1.0
    return Probe(len(locations), pool.actors, pool.device, failed, example, seconds, share, average(found))


def pool_here(compute: ComputeSpec, here: Cluster) -> Pool:
    """The processes that probe: those of a run on this machine, but no more than there is room for."""
    asked = compute.model_copy(update={"device": compute.device if here.gpus else "cpu"})
    room = pool_on(asked.model_copy(update={"actors": "auto"}), here)
    actors = min(room.actors, pool_on(asked, here).actors)
    return dataclasses.replace(room, actors=actors, least=actors, most=actors)


def average(found: list[Probed]) -> Costs:
    """What one image took, on average over some processes."""
    images = sum(each.images for each in found)
    return Costs(
        fetch_s=sum(each.fetch_s for each in found) / len(found),
        file_bytes=sum(each.file_bytes for each in found) / images,
        fetch_cpu_s=sum(each.fetch_cpu_s for each in found) / images,
        decode_cpu_s=sum(each.decode_cpu_s for each in found) / images,
        own_cpu_s=OVERHEAD_CPU_S,
        models={name: sum(each.models[name] for each in found) / images for name in found[0].models},
    )


def _rotated(items: list[Location], share: float) -> list[Location]:
    """The same items, beginning so far in."""
    cut = int(len(items) * share)
    return items[cut:] + items[:cut]
