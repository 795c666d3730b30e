"""The rows of a retry: those that the run holds, and what of them only the manifest has."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.prepare.resolve import ResolvedJob
from schemas.exceptions import ManifestError, OutputConflictError, StorageError
from schemas.ledger import Shard, manifest_folder, table_key
from schemas.tables import ERRORS, IN_MANIFEST, MANIFEST_URI, carried_names
from schemas.words import counted
from workers.ledger.damage import TABLE, damaged
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.ledger.state import assert_published, read_success
from workers.manifest.held import held_manifest, located, not_held, with_image
from workers.manifest.manifest import Manifest
from workers.manifest.open import map_here, open_manifest
from workers.printable import message_of, short_line
from workers.storage.uris import clean_uri, split_chain


def with_carried(run: RunDirectory) -> RunDirectory:
    """The run of a retry whose manifest has changed, with the columns that its tables have of it.

    Raises:
        DamagedFileError: its tables are damaged.
    """
    schema = _errors(run, 0).schema
    types = [(name, schema.field(there).type) for name, there in _carried_names(run).items()]
    return replace(run, carried=pa.schema(types))


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
    tables = [_errors(run, published.shard, published) for published in run.read_shards()]
    failed = pa.concat_tables(table.filter(pc.is_in(table["code"], pa.array(codes))) for table in tables)
    retry = run.retry + 1

    def opened() -> Manifest:
        return open_manifest(job.spec.manifest, job.sources, run.store, map_here, retry)

    try:
        _locating(job, run, failed, opened)
    except BaseException:
        if run.newest().retry < retry:  # otherwise it is that of a retry which was begun meanwhile
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
    tables = [_errors(run, shard) for shard in run.current.shards]
    failed = pa.concat_tables(table.filter(pc.is_in(table["manifest_index"], rows)) for table in tables)
    manifest = _locating(job, run, failed, opened)
    into = f"{run.store.url}/{manifest_folder(run.retry)}/held"
    held = held_manifest(failed, run.carried, into, run.record.facts)
    return held if manifest is None else located(held, manifest)


def _locating(
    job: ResolvedJob, run: RunDirectory, failed: pa.Table, opened: Callable[[], Manifest]
) -> Manifest | None:
    """The manifest as it is now, for the rows whose images the run does not hold; None: it holds all.

    Raises:
        OutputConflictError: the manifest does not have them, or images are in a file of it that has changed.
    """
    where = f"{clean_uri(run.store.url)} cannot be retried without the manifest it began with"
    if lost := _lost(failed, job):
        raise OutputConflictError(
            f"{where}: images that failed are in {lost}, which is gone or has changed. Put it back"
        )
    lacking = not_held(failed)
    if not lacking.num_rows:
        return None
    why = job.not_found
    if not why:
        try:
            if _has_all(manifest := opened(), _by_unit(run, lacking)):
                return manifest
            why = "the manifest has changed, and rows that failed are no longer where they were"
        except (ManifestError, StorageError) as error:
            why = str(error)
    raise OutputConflictError(
        f"{where}: {_what_lacks(lacking)}. As it is now: {why}. Put it back, or name one with the same rows "
        "in the same places (--set manifest.uri=…)"
    )


def _errors(run: RunDirectory, shard: int, published: Shard | None = None) -> pa.Table:
    """The errors table of a shard.

    Args:
        run: whose.
        shard: its number.
        published: what the table must be; None: it may be changed already by the retry that is under way.

    Raises:
        DamagedFileError: it cannot be read, lacks a column, or is not what was published.
    """
    key = table_key("errors", shard)
    try:
        data = run.store.read(key)
        if published and hashlib.sha256(data).hexdigest() != published.files["errors"].sha256:
            raise damaged(TABLE, run.store, key, "its content is not what was published")
        types = {field.name: str(field.type) for field in ERRORS}
        types |= {there: run.record.manifest_columns[name] for name, there in _carried_names(run).items()}
        table = pq.read_table(pa.BufferReader(data)).select(list(types))
        table.validate(full=True)
        if wrong := [f"{f.name} is {f.type}" for f in table.schema if str(f.type) != types[f.name]]:
            raise ValueError(", ".join(wrong))
    except (OSError, ValueError, LookupError, pa.ArrowException) as error:
        reason = short_line(message_of(error))
        raise damaged(TABLE, run.store, key, f"it is no table that can be read ({reason})") from None
    return table


def _carried_names(run: RunDirectory) -> dict[str, str]:
    """The names of the manifest's own columns in the errors table, by their names in the manifest."""
    columns = pa.schema([(name, pa.null()) for name in run.record.manifest_columns])
    return carried_names(columns, "errors", run.record.facts)


def _by_unit(run: RunDirectory, failed: pa.Table) -> list[pa.Table]:
    """Failed rows, those of each unit together."""
    units = failed["manifest_index"].to_numpy() // run.plan.unit_rows
    starts = [0, *(np.flatnonzero(np.diff(units)) + 1).tolist(), len(units)]
    return [failed.slice(start, stop - start) for start, stop in pairwise(starts)]


def _has_all(manifest: Manifest, units: list[pa.Table]) -> bool:
    """Whether a manifest has rows with the keys of those that failed, in their places."""
    names = [field.name for field in (*IN_MANIFEST, MANIFEST_URI)]
    return all(_has(manifest, unit.select(names)) for unit in units)


def _has(manifest: Manifest, keys: pa.Table) -> bool:
    rows = keys["manifest_index"].to_pylist()
    if rows[-1:] >= [manifest.rows]:
        return False
    there = manifest.read(rows).for_results().select(keys.column_names)
    return bool(there.to_pylist() == keys.to_pylist())


def _what_lacks(lacking: pa.Table) -> str:
    """What a run does not hold of some rows that failed."""
    first = f"row {lacking['manifest_index'][0].as_py():,}, {lacking['uri'][0].as_py()}"
    return (
        f"the URIs of {counted(len(lacking), 'image')} that failed ({first}) have a password, a query or "
        "the image itself, which a run does not keep"
    )


def _lost(failed: pa.Table, job: ResolvedJob) -> str | None:
    """A file of the manifest that holds images of rows which failed, and is gone or has changed."""
    changed = {file.uri for file in job.files} - {s.file.uri for s in job.sources if s.file in job.files}
    uris = (chain[1] for uri in with_image(failed)["uri"].to_pylist() if (chain := split_chain(uri)))
    return next((uri for uri in uris if uri in changed), None)
