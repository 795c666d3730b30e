"""THE pipeline: manifest → pending units → fetch, decode and label → commit → publish → reconcile."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from jobs import cluster
from jobs.budget import check_budget
from jobs.cluster import Pool
from jobs.ledger import Ledger, begin_epoch, begin_run, finish_run
from jobs.manifest import open_manifest
from jobs.publish import Publisher
from jobs.resolve import ResolvedJob
from schemas.ledger import Commit, Epoch, RunRecord
from workers.label import LabelSettings, LabelUnits
from workers.manifest import Manifest
from workers.parts import RunFolder, commit_results
from workers.storage import Store

TASK_CPUS = 0.25
"""Of a commit or a publication: mostly waiting for storage, and what the actors leave is little."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run, as it was begun."""

    job: ResolvedJob
    manifest: Manifest
    record: RunRecord
    folder: RunFolder
    epoch: Epoch


def label(job: ResolvedJob, progress: Callable[[Ledger], None]) -> dict[str, int]:
    """Labels what is pending of a job, publishes it, and marks the run complete when the sums agree.

    Needs a Ray connection (`jobs.cluster.connect`). Killed at any moment, it goes on where it was when it is
    called again.

    Args:
        job: what to do.
        progress: is shown the ledger after each commit.

    Returns:
        Rows of each table.

    Raises:
        ManifestError: the manifest cannot be read as asked.
        OutputConflictError: the output holds another run.
        FailureBudgetError: more images failed than `max_failed` allows.
        ReconcileError: the tables do not add up.
    """
    attempt = begin(job)
    store, plan = attempt.folder.store, attempt.folder.plan
    ledger = Ledger.read(store, plan)
    publisher = Publisher(attempt.folder)
    progress(ledger)
    for commit in committed(attempt, ledger.pending):
        ledger.add(commit)
        progress(ledger)
        check_budget(job.spec.max_failed, ledger.failed, ledger.done, plan.rows)
        publisher.publish(ledger.publishable)
    check_budget(job.spec.max_failed, ledger.failed, ledger.done, plan.rows)
    publisher.publish(ledger.publishable)
    publisher.finish()
    return finish_run(store, plan)


def begin(job: ResolvedJob) -> Attempt:
    """Opens the manifest, makes or finds the run, and takes an epoch."""
    store = Store(job.spec.output)
    job.assert_same_run(store)
    manifest = open_manifest(job.spec.manifest, job.sources, store, cluster.map_tasks)
    record = begin_run(store, job.record(manifest))
    folder = RunFolder(store, record.plan, manifest.carried)
    return Attempt(job, manifest, record, folder, begin_epoch(store))


def committed(attempt: Attempt, pending: list[int]) -> Iterator[Commit]:
    """Labels and commits the pending units on the cluster; each commit as soon as it counts."""
    if not pending:
        return
    pool = cluster.pool_of(attempt.job.spec.compute)
    units = ray.data.range(len(pending), override_num_blocks=1 + len(pending) // 10_000)
    commits = (
        units.repartition(target_num_rows_per_block=1)
        .map_batches(
            LabelUnits,
            fn_constructor_args=[settings_of(attempt, pending, pool)],
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=min(pool.actors, len(pending)), max_concurrent_calls_per_actor=2),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            max_restarts=cluster.RETRIES,
            max_task_retries=cluster.RETRIES,
        )
        .map_batches(
            commit_task(attempt),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
            max_retries=cluster.RETRIES,
        )
    )
    with cluster.own_exceptions():
        for row in commits.iter_rows():
            yield Commit.model_validate_json(row["commit"])


def settings_of(attempt: Attempt, pending: list[int], pool: Pool) -> LabelSettings:
    """The part of the job that the labelling actors get."""
    spec, models = attempt.job.spec, (attempt.record.classifier, attempt.record.detector)
    return LabelSettings(
        manifest=attempt.manifest,
        plan=attempt.record.plan,
        pending=pending,
        classifier=spec.classifier,
        detector=spec.detector,
        fingerprints=tuple(model.fingerprint for model in models if model),
        fetch=spec.fetch,
        decode=spec.decode,
        compute=spec.compute,
        device=pool.device,
        threads=pool.threads,
    )


def commit_task(attempt: Attempt) -> Callable[[pa.Table], pa.Table]:
    """What a commit task runs: results in, commit entries out."""
    folder, epoch = attempt.folder, attempt.epoch.number

    def commit(results: pa.Table) -> pa.Table:
        commits = commit_results(folder, epoch, results)
        return pa.table({"commit": [entry.model_dump_json() for entry in commits]})

    return commit
