"""THE pipeline: manifest → pending units → fetch, decode, label and commit → publish → reconcile."""

import logging
from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy

from jobs.cluster import connect as cluster
from jobs.cluster.pools import Pool
from jobs.prepare.resolve import ResolvedJob
from jobs.run.budget import FailureLimits
from jobs.run.console import Reporter
from jobs.run.metrics import Exporter
from jobs.run.observers import Observers
from jobs.run.publisher import Publisher
from jobs.run.retried import retried_manifest, with_carried
from jobs.run.stop import stops_as_raised
from schemas.exceptions import OutputConflictError, StorageError
from schemas.ledger import MANIFEST, Attempt, Commit, RunRecord, manifest_folder
from schemas.metrics import Usage
from schemas.plan import make_bundles, one_per_bundle
from workers import logs
from workers.label.actors import DecodeActor, LabelActor
from workers.label.settings import LabelSettings
from workers.label.supervise import longest_s
from workers.ledger.attempts import start_attempt
from workers.ledger.directory import RunDirectory
from workers.ledger.heartbeat import Heartbeat
from workers.ledger.runs import (
    assert_replaceable,
    assert_same_rows,
    assert_same_run,
    begin_run,
    read_run,
    remove_previous_runs,
    replace_run,
)
from workers.ledger.state import PassState, finish_run, lost_records, read_success, stray_tables
from workers.manifest.manifest import Manifest
from workers.manifest.open import open_manifest
from workers.storage.store import UNCONDITIONAL, Store

MAX_DAMAGE_SHOWN = 10
"""Damaged files of the ledger that are named one by one."""

ROUND_BUNDLES, ROUND_BUNDLES_AN_ACTOR = 16_384, 1_024
"""Bundles of units, at least and for each actor, after which new actors are started.

Ray Data hands out ten a second when nobody asks for one, and each takes 10 KB of the driver's memory.
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunningAttempt:
    """An attempt at a pass over a run's manifest, as it was started.

    Attributes:
        job: what was asked.
        manifest: its rows, by position.
        run: where it is kept, in the pass that is attempted.
        attempt: the number that this process took.
    """

    job: ResolvedJob
    manifest: Manifest
    run: RunDirectory
    attempt: Attempt


def label(job: ResolvedJob, reporter: Reporter, *, restart: bool = False) -> dict[str, int]:
    """Labels what is pending of a job, publishes it, and marks the run complete when the sums agree.

    Needs a Ray connection (`jobs.cluster.connect.connect`). Killed at any moment, it resumes when it is
    called again. So does a retry that was started (`jobs.run.retry`).

    Args:
        job: what to do.
        reporter: prints messages and progress.
        restart: delete the run that the output holds, and start over.

    Returns:
        Rows of each table.

    Raises:
        ManifestError: the manifest cannot be read as asked.
        ModelError: the models cannot be built on the cluster, or fail on every image.
        OutputConflictError: the output holds another run, or another attempt is running.
        FailureBudgetError: more images failed than `max_failed` allows.
        StorageError: a file cannot be read or written.
        ReconcileError: the tables do not add up.
    """
    run, attempt, manifest = start(job, reporter, restart=restart)
    heartbeat, metrics = Heartbeat(run, attempt), Exporter(run.store.url)
    with heartbeat.running(), stops_as_raised(), metrics.exporting():
        remove_previous_runs(run)
        manifest = manifest or reopened(job, run, heartbeat)
        run = replace(run, carried=manifest.carried)
        running = RunningAttempt(job, manifest, run, attempt)
        publisher, limits = Publisher(run), FailureLimits(job.spec.max_failed, run, running.manifest)
        observers = Observers(heartbeat, reporter, metrics, limits, publisher)
        published = False
        while not published:  # once, unless a staged part turns out to be damaged
            state = undamaged_state(run, publisher.suspects, heartbeat, reporter)
            observers.on_progress(state)
            with closing(committed(running, state.pending)) as commits:
                for commit, usage in commits:
                    heartbeat.assert_newest()
                    state.add(commit)
                    state.merge(commit.shard)
                    observers.on_progress(state, usage)
            published = publisher.finish()
        heartbeat.assert_newest()
        rows = finish_run(run, heartbeat.assert_newest)
    for stray in stray_tables(run):
        reporter.message(f"note: {stray}")
    return rows


def start(
    job: ResolvedJob, reporter: Reporter, *, restart: bool = False
) -> tuple[RunDirectory, Attempt, Manifest | None]:
    """Makes or finds the run, and takes an attempt's number.

    Returns:
        The run in its newest pass, the attempt, and the manifest where the run is new: its record tells how
        many rows that has. Otherwise the manifest is not opened yet, so that what is refused writes nothing.
    """
    store = Store(job.spec.output)
    store.conditional = store.creates_once()
    if not store.conditional:
        reporter.message(f"note: {UNCONDITIONAL}")
    record, manifest = begin(job, store, reporter, restart=restart)
    logs.configure(record.id)
    run = RunDirectory.first(store, record)
    attempt = start_attempt(run, reporter.message)
    _log.info("%s starts", attempt)
    # the pass is looked for last: until the number is taken another attempt may start the next one
    return run.newest(), attempt, manifest


def begin(
    job: ResolvedJob, store: Store, reporter: Reporter, *, restart: bool
) -> tuple[RunRecord, Manifest | None]:
    """The record of a new run, with its manifest; or of the one that the directory holds."""
    if restart:
        assert_replaceable(store, reporter.message)
    elif there := read_run(store):
        assert_same_run(store, there.identity(), job.identity())
        return there, None
    with nothing_left_if_complete(store):
        manifest = open_manifest(job.spec.manifest, job.sources, store, cluster.map_tasks)
        new = job.record(manifest)
        put = replace_run if restart else begin_run
        record = put(store, new, reporter.message)
    return record, manifest if record == new else None


@contextmanager
def nothing_left_if_complete(store: Store) -> Iterator[None]:
    """Where a block fails next to a run that is complete, deletes what it made of the manifest.

    Elsewhere the next attempt goes on with it; it has whole URLs, with what may be secret.
    """
    try:
        yield
    except BaseException:
        with suppress(StorageError):
            if read_success(store, lambda _: None):
                store.clear(MANIFEST)
        raise


def reopened(job: ResolvedJob, run: RunDirectory, heartbeat: Heartbeat) -> Manifest:
    """The manifest of a run that was begun before, whose rows are those that it began with.

    Raises:
        OutputConflictError: they are not; nothing is left of it.
    """

    def opened() -> Manifest:
        return open_manifest(job.spec.manifest, job.sources, run.store, cluster.map_tasks, run.retry)

    try:
        if job.began_with is not None:
            return retried_manifest(job, with_carried(run), opened)
        manifest = opened()
        assert_same_rows(run, manifest.rows, manifest.columns)
    except OutputConflictError:
        heartbeat.assert_newest()
        run.store.clear(manifest_folder(run.retry))
        raise
    return manifest


def undamaged_state(
    run: RunDirectory, suspects: Collection[int], heartbeat: Heartbeat, reporter: Reporter
) -> PassState:
    """The state of a pass, whose damaged records are named and deleted: what they counted is pending.

    Raises:
        OutputConflictError: another attempt has taken over, and knows better what is damaged.
        DamagedFileError: see `PassState.read`.
    """
    if lost := lost_records(run):
        reporter.message(f"note: {lost}")
    state = PassState.read(run, suspects)
    if state.damage:
        heartbeat.assert_newest()
        for damage in state.damage[:MAX_DAMAGE_SHOWN]:
            reporter.message(f"note: {damage}")
        if (more := len(state.damage) - MAX_DAMAGE_SHOWN) > 0:
            reporter.message(f"note: {more:,} more files are damaged; what they held is done again")
        state.take_back()
    return state


def committed(
    running: RunningAttempt, pending: NDArray[np.int64]
) -> Generator[tuple[Commit, Usage], None, None]:
    """Labels and commits the pending units on the cluster.

    Yields:
        Each commit as soon as it counts, with what was spent since the one before.
    """
    if not len(pending):
        return
    pool, decoders = cluster.pools_of(running.job.spec.compute)
    unit_rows = running.run.record.plan.unit_rows
    bundles = (
        one_per_bundle(pending) if decoders else make_bundles(pending, unit_rows, pool.most, pool.device)
    )
    size = max(ROUND_BUNDLES, ROUND_BUNDLES_AN_ACTOR * pool.most)
    with cluster.own_exceptions():
        for first in range(0, len(bundles), size):
            for row in commits_of(running, pool, decoders, bundles[first : first + size]).iter_rows():
                yield Commit.model_validate_json(row["commit"]), Usage.model_validate_json(row["usage"])


def commits_of(
    running: RunningAttempt, pool: Pool, decoders: Pool | None, bundles: pa.ListArray
) -> ray.data.Dataset:
    """What labels and commits some bundles of units when it is iterated over; see `LabelActor`."""
    settings = settings_of(running, pool, decoders)
    bundle_units = max(bundles.value_lengths().to_pylist())
    bundle_rows = bundle_units * running.run.plan.unit_rows
    bundle_s = longest_s(bundle_rows, settings.timeouts, settings.most_parts)
    cluster.end_without_progress(bundle_s)
    units = ray.data.from_arrow(pa.table({"units": bundles})).repartition(target_num_rows_per_block=1)
    if decoders:
        decoding = decoding_settings(settings, decoders)
        # one call at a time: what it gives is in memory that the next one writes to
        stage = in_actors(decoders, bundles, calls=1)
        units = units.map_batches(DecodeActor, fn_constructor_args=[decoding], **stage)
    labelling = [settings, running.run.for_workers(), running.attempt.number]
    stage = in_actors(pool, bundles, calls=2)
    return units.map_batches(LabelActor, fn_constructor_args=labelling, **stage)


def in_actors(pool: Pool, bundles: pa.ListArray, calls: int) -> dict[str, Any]:
    """How Ray Data calls a stage: in a pool of actors, a bundle a call, so many calls to an actor at once."""
    return {
        "batch_size": 1,  # Ray Data demands it next to GPUs
        "batch_format": "pyarrow",
        "compute": ActorPoolStrategy(
            min_size=min(pool.least, len(bundles)),
            initial_size=min(pool.actors, len(bundles)),
            max_size=min(pool.most, len(bundles)),
            max_concurrent_calls_per_actor=calls,
        ),
        "num_cpus": pool.num_cpus,
        "num_gpus": pool.num_gpus,
        "resources": pool.resources,
    }


def settings_of(running: RunningAttempt, pool: Pool, decoders: Pool | None) -> LabelSettings:
    """The part of the job that the labelling actors get."""
    run = running.run
    settings = running.job.label_settings(
        running.manifest, run.current, run.plan.rows, (decoders or pool).most, pool
    )
    return replace(settings, run_id=run.record.id)


def decoding_settings(labelling: LabelSettings, decoders: Pool) -> LabelSettings:
    """The same for actors that decode for those."""
    return replace(
        labelling,
        fetch=labelling.fetch.model_copy(update={"concurrency": labelling.fetch.reads("decoder")}),
        device=decoders.device,
        threads=decoders.threads,
        memory_share=decoders.memory_share,
    )
