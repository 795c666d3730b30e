"""The rows of a retry: those that the run holds, and what of them only the manifest has."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.prepare.resolve import ResolvedJob
from schemas.exceptions import ManifestError, OutputConflictError, StorageError
from schemas.ledger import manifest_folder, table_key
from schemas.tables import KEYS, carried_names
from schemas.words import counted
from workers.ledger.damage import TABLE, damaged
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.ledger.state import assert_published, read_success
from workers.manifest.held import held_manifest, located, not_held
from workers.manifest.manifest import Manifest
from workers.manifest.open import map_here, open_manifest
from workers.printable import message_of, short_line
from workers.storage.store import Store
from workers.storage.uris import clean_uri, split_chain


def with_carried(run: RunDirectory) -> RunDirectory:
    """The run of a retry whose manifest has changed, with the columns that its tables have of it.

    Raises:
        DamagedFileError: its tables are damaged.
    """
    names = carried_names(pa.schema([(name, pa.null()) for name in run.record.manifest_columns]), "errors")
    schema = _errors(run.store, 0).schema
    return replace(
        run, carried=pa.schema([(name, schema.field(there).type) for name, there in names.items()])
    )


def assert_retriable(job: ResolvedJob, output: str, codes: list[str]) -> None:
    """Refuses a retry before it begins for which neither the run nor the manifest has all that it needs.

    Raises:
        OutputConflictError: see `retried_manifest`.
        DamagedFileError: see `begin_retry`.
    """
    run = find_run(output).newest()
    if job.began_with is None or read_success(run.store) is None:
        return
    assert_published(run)
    tables = [_errors(run.store, shard) for shard in range(run.plan.shards)]
    failed = pa.concat_tables(table.filter(pc.is_in(table["code"], pa.array(codes))) for table in tables)
    if not _lacks(failed, job):
        return
    retry = run.retry + 1

    def opened() -> Manifest:
        return open_manifest(job.spec.manifest, job.sources, run.store, map_here, retry)

    try:
        _locating(job, run, failed, opened)
    except OutputConflictError:
        run.store.clear(manifest_folder(retry))
        raise


def retried_manifest(job: ResolvedJob, run: RunDirectory, opened: Callable[[], Manifest]) -> Manifest:
    """The rows to retry where the manifest has changed or is gone: those that the run holds.

    Only what tables do not show is taken from the manifest: passwords and queries of URLs.

    Args:
        job: that is retried.
        run: in the pass that retries them.
        opened: opens the manifest as it is now.

    Raises:
        OutputConflictError: the run does not hold all of a row, and the manifest has another in its place.
    """
    rows = pa.array(run.current.rows, pa.int64())
    tables = [_errors(run.store, shard) for shard in run.current.shards]
    failed = pa.concat_tables(table.filter(pc.is_in(table["manifest_index"], rows)) for table in tables)
    manifest = _locating(job, run, failed, opened)
    held = held_manifest(failed, run.carried, f"{run.store.url}/{manifest_folder(run.retry)}/held")
    return held if manifest is None else located(held, manifest)


def _locating(
    job: ResolvedJob, run: RunDirectory, failed: pa.Table, opened: Callable[[], Manifest]
) -> Manifest | None:
    """The manifest as it is now, where it has the rows that failed; None: the run holds all of these.

    Raises:
        OutputConflictError: neither.
    """
    why = job.not_found
    if job.sources:
        try:
            if _has_all(manifest := opened(), _by_unit(run, failed)):
                return manifest
            why = "the manifest has changed, and rows that failed are no longer where they were"
        except (ManifestError, StorageError) as error:
            why = str(error)
    if reason := _lacks(failed, job):
        raise OutputConflictError(
            f"{clean_uri(run.store.url)} cannot be retried without the manifest it began with: {reason}. "
            f"As it is now: {why}. Put it back, or name one with the same rows in the same places (--set "
            "manifest.uri=…)"
        )
    return None


def _errors(store: Store, shard: int) -> pa.Table:
    """The errors table of a shard."""
    key = table_key("errors", shard)
    try:
        return pq.read_table(pa.BufferReader(store.read(key)))
    except (FileNotFoundError, pa.ArrowException) as error:
        wrong = short_line(message_of(error))
        raise damaged(TABLE, store, key, f"it is no table that can be read ({wrong})") from None


def _by_unit(run: RunDirectory, failed: pa.Table) -> list[pa.Table]:
    """Failed rows, those of each unit together."""
    units = failed["manifest_index"].to_numpy() // run.plan.unit_rows
    starts = [0, *(np.flatnonzero(np.diff(units)) + 1).tolist(), len(units)]
    return [failed.slice(start, stop - start) for start, stop in pairwise(starts)]


def _has_all(manifest: Manifest, units: list[pa.Table]) -> bool:
    """Whether a manifest has rows with the keys of those that failed, in their places."""
    return all(_has(manifest, unit.select([field.name for field in KEYS])) for unit in units)


def _has(manifest: Manifest, keys: pa.Table) -> bool:
    rows = keys["manifest_index"].to_pylist()
    if rows[-1:] >= [manifest.rows]:
        return False
    return bool(manifest.read(rows).table.select(keys.column_names).to_pylist() == keys.to_pylist())


def _lacks(failed: pa.Table, job: ResolvedJob) -> str:
    """What a run does not hold of rows that failed; "" where it holds all that leads to their images."""
    if lacking := not_held(failed).select(["manifest_index", "uri"]).to_pylist():
        first = f"row {lacking[0]['manifest_index']:,}, {lacking[0]['uri']}"
        return (
            f"the URIs of {counted(len(lacking), 'image')} that failed ({first}) have a password, a query or "
            "the image itself, which a run does not keep"
        )
    changed = {file.uri for file in job.files} - {s.file.uri for s in job.sources if s.file in job.files}
    uris = (chain[1] for uri in failed["absolute_uri"].to_pylist() if uri and (chain := split_chain(uri)))
    lost = next((uri for uri in uris if uri in changed), None)
    return f"images that failed are in {lost}, which is gone or has changed" if lost else ""
