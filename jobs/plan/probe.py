"""Measures what an image takes: a sample goes through as many labelling processes as a run has here."""

import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from jobs.cluster.pools import Pool, pool_on
from jobs.plan.predict import OVERHEAD_CPU_S
from jobs.prepare.resolve import ResolvedJob
from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ProcessDiedError, RaylabelError
from schemas.locations import Location
from schemas.prediction import Cluster, Costs, Probed
from schemas.spec import ComputeSpec
from workers.label.children import build_gpu_counter, build_profiler
from workers.label.settings import LabelSettings
from workers.manifest.manifest import Manifest
from workers.process.child import Child
from workers.process.cpus import usable_cpus
from workers.process.forkserver import shared_fork_server

SEED = 0
"""The same manifest gives the same sample."""

SAMPLE_RUNS = 16
"""Runs of consecutive rows that make up a sample: each may be a row group to read."""


@dataclass(frozen=True)
class Probe:
    """What was measured.

    Attributes:
        images: probed by each process.
        processes: that probed at once.
        device: the models ran on, "cuda" or "cpu".
        failed: number of failed images, by error code.
        example: an image that failed and why; "" where none did.
        seconds: that the probe took, once the models were loaded.
        share: of its cores' time that the probe got while it labelled, 0 to 1; less than 1 where other
            processes ran.
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
    """A cluster of one node: the cores that this process may use, and the GPUs that torch finds."""
    counter = Child(shared_fork_server().address, build_gpu_counter, None, memory_share=1, plain_output=True)
    try:
        gpus: int = counter(None)
    finally:
        counter.end()
    return Cluster(1, usable_cpus(), gpus)


def sample_locations(manifest: Manifest, size: int) -> list[Location]:
    """The locations of a sample's images; no other columns are read."""
    bare = dataclasses.replace(manifest, image_id_column=None, carried=pa.schema([]))
    return [location for rows in sample_rows(manifest.rows, size) for location in bare.read(rows).locations]


def sample_rows(rows: int, size: int) -> Iterator[range]:
    """A sample of up to `size` rows in at most `SAMPLE_RUNS` runs, spread over the manifest.

    The same in every call; all rows where the manifest has no more.
    """
    generator = random.Random(SEED)
    size = min(size, rows)
    runs = min(SAMPLE_RUNS, size) if size < rows else 1
    for run in range(runs):
        first, end = size * run // runs, size * (run + 1) // runs
        # Each run is shifted by a random part of its own share of the rows left out: runs never overlap
        low, high = (rows - size) * run // runs, (rows - size) * (run + 1) // runs
        start = first + generator.randint(low, high)
        yield range(start, start + end - first)


def probe_here(job: ResolvedJob, rows: int, locations: list[Location], here: Cluster) -> Probe:
    """Sends images through as many processes at once as a run has on this machine.

    Each process gets all images, in another order, so that they do not read the same file at once.

    Args:
        job: the images' job.
        rows: of the whole manifest.
        locations: of the images.
        here: this machine; without GPUs where the models should run on the CPU.

    Raises:
        RaylabelError: a process died, or no image can be labelled.
    """
    if not locations:
        raise RaylabelError("the manifest has no rows: there is nothing to predict")
    pool = pool_here(job.spec.compute, here)
    settings = job.probe_settings(rows, pool.actors, pool)
    seconds, profiles = _profiles(settings, pool.actors, locations)
    failed, example = profiles[0].failed, profiles[0].example
    if sum(failed.values()) == len(locations):
        raise RaylabelError(f"none of the {len(locations):,} probed images can be labelled: {example}")
    share = sum(profile.work_cpu_s for profile in profiles) / sum(profile.work_s for profile in profiles)
    share = min(share, 1.0) if pool.device == "cpu" else 1.0
    costs = average(profiles)
    return Probe(len(locations), pool.actors, pool.device, failed, example, seconds, share, costs)


def _profiles(
    settings: LabelSettings, processes: int, locations: list[Location]
) -> tuple[float, list[Probed]]:
    """The seconds that the probe took, and what each process measured.

    Raises:
        RaylabelError: a process died.
    """
    with ExitStack() as stack:
        children = []
        for _ in range(processes):
            children.append(
                Child(
                    settings.fork_server,
                    build_profiler,
                    settings,
                    settings.memory_share,
                    settings.timeouts,
                    plain_output=True,
                )
            )
            stack.callback(children[-1].end)
        threads = stack.enter_context(ThreadPoolExecutor(processes))
        try:
            # Each step starts when all processes are ready for it, so that they meet the load of a run:
            # build the models (no images are sent), fetch the files, then decode and label
            list(threads.map(lambda child: child([]), children))
            start = time.monotonic()
            orders = [_rotated(locations, number / processes) for number in range(processes)]
            list(threads.map(lambda child, order: child(order), children, orders))
            profiles = list(threads.map(lambda child: child(None), children))
        except ProcessDiedError as death:
            raise RaylabelError(_died(death)) from None
        return time.monotonic() - start, profiles


def _died(death: ProcessDiedError) -> str:
    """Why a process that probes died, and what to do."""
    if death.code == ErrorCode.TIMEOUT:
        key = "decode.timeout_s" if death.stage == Stage.DECODE else "compute.timeout_s"
        return (
            f"an image of the sample {death.message} in stage {death.stage} ({key}). A run makes it a failed "
            f"row and continues; for a plan use another --sample, or raise {key}"
        )
    return (
        f"the process that probed the images died in stage {death.stage}: {death.message}. A run "
        "finds the image that is the cause and continues; for a plan use another --sample"
    )


def pool_here(compute: ComputeSpec, here: Cluster) -> Pool:
    """The processes that probe: those of a run on this machine, but no more than it has room for."""
    compute_here = compute.model_copy(update={"device": compute.device if here.gpus else "cpu"})
    room = pool_on(compute_here.model_copy(update={"actors": "auto"}), here)
    actors = min(room.actors, pool_on(compute_here, here).actors)
    return dataclasses.replace(room, actors=actors, least=actors, most=actors)


def average(profiles: list[Probed]) -> Costs:
    """What one image took, on average over some processes."""
    images = sum(profile.images for profile in profiles)

    def per_image(seconds: Callable[[Probed], float]) -> float:
        return sum(map(seconds, profiles)) / images

    return Costs(
        fetch_s=sum(profile.fetch_s for profile in profiles) / len(profiles),
        file_bytes=per_image(lambda profile: profile.file_bytes),
        fetch_cpu_s=per_image(lambda profile: profile.fetch_cpu_s),
        decode_cpu_s=per_image(lambda profile: profile.decode_cpu_s),
        own_cpu_s=OVERHEAD_CPU_S,
        models={
            name: sum(profile.models[name] for profile in profiles) / images for name in profiles[0].models
        },
    )


def _rotated(items: list[Location], share: float) -> list[Location]:
    """The same items, starting from a share of the way in, 0 to 1."""
    cut = int(len(items) * share)
    return items[cut:] + items[:cut]
