"""THE pipeline: manifest → pending units → fetch, decode, label and commit → publish → reconcile."""

from collections.abc import Generator
from contextlib import closing
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
from jobs.run.budget import check_access, check_budget, check_models
from jobs.run.console import Reporter
from jobs.run.metrics import Exporter
from jobs.run.publisher import Publisher
from schemas.ledger import Attempt, Commit, RunRecord
from schemas.metrics import Usage
from schemas.plan import make_bundles, one_per_bundle
from workers.label.actors import DecodeActor, LabelActor
from workers.label.settings import LabelSettings, runtime_of
from workers.ledger.attempts import Heartbeat, start_attempt
from workers.ledger.commit import RunFolder
from workers.ledger.runs import begin_run, folder_of, ledger_of, remove_previous_runs, replace_run
from workers.ledger.state import Ledger, finish_run
from workers.manifest.manifest import Manifest
from workers.manifest.open import open_manifest
from workers.process.forkserver import shared_fork_server
from workers.storage.store import Store

UNCONDITIONAL = (
    "note: this store does not refuse to overwrite (no conditional PUT). A run that is killed still loses "
    "and doubles nothing, but only as long as no two attempts at it run at once: see to that yourself"
)

ROUND_BUNDLES, ROUND_BUNDLES_AN_ACTOR = 16_384, 1_024
"""Bundles of units, at least and for each actor, after which the actors start anew.

Ray Data hands out ten a second when nobody asks for one, and each takes 10 KB of the driver's memory.
"""


@dataclass(frozen=True)
class RunningAttempt:
    """One attempt at a pass over a run's manifest, as it was begun."""

    job: ResolvedJob
    manifest: Manifest
    record: RunRecord
    folder: RunFolder
    attempt: Attempt


def label(job: ResolvedJob, reporter: Reporter, *, restart: bool = False) -> dict[str, int]:
    """Labels what is pending of a job, publishes it, and marks the run complete when the sums agree.

    Needs a Ray connection (`jobs.cluster.connect.connect`). Killed at any moment, it goes on where it was
    when it is called again. A retry that was begun (`jobs.run.retry`) is gone on with likewise.

    Args:
        job: what to do.
        reporter: is told what goes on, and shown the ledger after each commit.
        restart: delete the run that the output holds, and begin anew.

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
    running = begin(job, reporter, restart=restart)
    run = running.folder
    heartbeat = Heartbeat(run.store, running.record, run.ledger, running.attempt)
    with heartbeat.running(), Exporter(run.store.url).exporting() as metrics:
        remove_previous_runs(run.store, running.record)
        ledger = Ledger.read(run)
        heartbeat.watch(lambda: (ledger.done, dict(ledger.failed)))
        publisher = Publisher(run)
        reporter.show(ledger)
        metrics.show(ledger)
        check_failure_limits(running, ledger)
        publisher.publish(ledger.publishable)
        with closing(committed(running, ledger.pending)) as commits:
            for commit, usage in commits:
                heartbeat.assert_newest()
                ledger.add(commit)
                ledger.merge(commit.shard)
                reporter.show(ledger)
                metrics.show(ledger, usage)
                check_failure_limits(running, ledger)
                publisher.publish(ledger.publishable)
        publisher.finish()
        heartbeat.assert_newest()
        return finish_run(run)


def begin(job: ResolvedJob, reporter: Reporter, *, restart: bool = False) -> RunningAttempt:
    """Opens the manifest, makes or finds the run, and takes an attempt's number."""
    store = Store(job.spec.output)
    store.conditional = store.creates_once()
    if not store.conditional:
        reporter.message(UNCONDITIONAL)
    manifest = open_manifest(job.spec.manifest, job.sources, store, cluster.map_tasks)
    record = job.record(manifest)
    record = replace_run(store, record, reporter.message) if restart else begin_run(store, record)
    attempt = start_attempt(ledger_of(store, record), reporter.message)
    # the pass is looked for last: until the number is taken another attempt may begin the next one
    return RunningAttempt(job, manifest, record, folder_of(store, record, manifest.carried), attempt)


def check_failure_limits(running: RunningAttempt, ledger: Ledger) -> None:
    """Stops a run in which too many images fail, or all for one reason (a retry is of failed ones)."""
    limit, found = running.job.spec.max_failed, (ledger.failed, ledger.done, ledger.rows)
    check_budget(limit, *found)
    if running.folder.retry == 0:
        check_models(*found, ledger.example)
        if limit is None:
            check_access(*found, ledger.example)


def committed(
    running: RunningAttempt, pending: NDArray[np.int64]
) -> Generator[tuple[Commit, Usage], None, None]:
    """Labels and commits the pending units on the cluster; each commit as soon as it counts.

    Beside it what was spent since the commit before.
    """
    if not len(pending):
        return
    pool, decoders = cluster.pools_of(running.job.spec.compute)
    unit_rows = running.record.plan.unit_rows
    bundles = (
        one_per_bundle(pending) if decoders else make_bundles(pending, unit_rows, pool.most, pool.device)
    )
    size = max(ROUND_BUNDLES, ROUND_BUNDLES_AN_ACTOR * pool.most)
    with cluster.own_exceptions():
        for start in range(0, len(bundles), size):
            for row in commits_of(running, pool, decoders, bundles[start : start + size]).iter_rows():
                yield Commit.model_validate_json(row["commit"]), Usage.model_validate_json(row["usage"])


def commits_of(
    running: RunningAttempt, pool: Pool, decoders: Pool | None, bundles: pa.ListArray
) -> ray.data.Dataset:
    """What labels and commits some bundles of units when it is iterated over; see `LabelActor`."""
    settings = settings_of(running, pool, decoders)
    units = ray.data.from_arrow(pa.table({"units": bundles})).repartition(target_num_rows_per_block=1)
    if decoders:
        decoding = decoding_settings(settings, decoders)
        # one call at a time: what it gives is in memory that the next one writes to
        stage = in_actors(decoders, bundles, calls=1)
        units = units.map_batches(DecodeActor, fn_constructor_args=[decoding], **stage)
    labelling = [settings, running.folder, running.attempt.number]
    stage = in_actors(pool, bundles, calls=2)
    return units.map_batches(LabelActor, fn_constructor_args=labelling, **stage)


def in_actors(pool: Pool, bundles: pa.ListArray, calls: int) -> dict[str, Any]:
    """How Ray Data calls a stage: in a pool of actors, a bundle a call, so many calls to an actor at once."""
    return {
        "batch_size": 1,  # beside GPUs Ray Data wants to be told
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
    spec, models = running.job.spec, (running.record.classifier, running.record.detector)
    return LabelSettings(
        manifest=running.manifest,
        work=running.folder.work,
        classifier=spec.classifier,
        detector=spec.detector,
        fingerprints=tuple(model.fingerprint for model in models if model),
        fetch=spec.fetch.share_of((decoders or pool).most),
        places=spec.storage,
        decode=spec.decode,
        compute=spec.compute,
        device=pool.device,
        runtime=runtime_of(spec.compute, running.record.plan.rows),
        threads=pool.threads,
        memory_share=pool.memory_share,
        fork_server=shared_fork_server().address,
    )


def decoding_settings(labelling: LabelSettings, decoders: Pool) -> LabelSettings:
    """The same for actors that decode for those."""
    return replace(
        labelling,
        fetch=labelling.fetch.model_copy(update={"concurrency": labelling.fetch.reads("decoder")}),
        device=decoders.device,
        threads=decoders.threads,
        memory_share=decoders.memory_share,
    )
