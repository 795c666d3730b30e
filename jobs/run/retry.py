"""`raylabel retry`: the failed rows of a complete run once more."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.prepare.resolve import ResolvedJob
from jobs.results.status import retry_command
from jobs.results.summary import scan
from schemas.errors import ErrorCode
from schemas.exceptions import OutputConflictError, SpecError
from schemas.ledger import MANIFEST, SUCCESS, Retry
from schemas.ranges import to_ranges
from schemas.tables import KEYS
from schemas.words import by_code, counted
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.ledger.state import assert_published, read_success
from workers.manifest.held import held_manifest, is_enough
from workers.manifest.manifest import Manifest
from workers.storage.uris import clean_uri

ALL = "all"
"""The name that stands for every error code."""

RETRYABLE = [code.value for code in ErrorCode if code.retryable]


def codes_of(names: list[str] | None) -> list[str]:
    """The error codes that some names stand for; all retryable ones where there is no name.

    Raises:
        SpecError: a name is none.
    """
    known = [code.value for code in ErrorCode]
    if unknown := sorted(set(names or []) - {*known, ALL}):
        raise SpecError(f"--code: found {', '.join(unknown)}; allowed: {', '.join(known)}, or {ALL}")
    if names and ALL in names:
        return known
    return sorted(set(names)) if names else RETRYABLE


def begin_retry(output: str, codes: list[str]) -> int:
    """Starts a pass over the failed rows of a complete run, or finds one that was stopped.

    The pass is done by `jobs.run.pipeline.label`. Its record is put before `_SUCCESS` is deleted: killed in
    between, the run is as complete as it was, and the next call starts the next pass over the same rows.

    Returns:
        How many rows it has; 0: no row failed with these codes, and no pass was started.

    Raises:
        OutputConflictError: the run is not complete.
        DamagedFileError: a file is damaged or gone without which the tables cannot be changed.
    """
    run = find_run(output).newest()
    if read_success(run.store) is None:
        if not run.retry:
            raise OutputConflictError(
                f"{clean_uri(run.store.url)} is not complete: `raylabel run {clean_uri(run.store.url)}` "
                "completes it; then retry"
            )
        return run.current.size
    assert_published(run)
    rows = failed_rows(output, codes)
    if len(rows):
        run.create(Retry(number=run.retry + 1, codes=codes, rows=to_ranges(rows)))
        run.store.delete([SUCCESS])
    return len(rows)


def failed_by_code(output: str) -> Counter[str]:
    """The images in a run's errors table, by error code."""
    return Counter(code for batch in scan(output, "errors", ["code"]) for code in batch["code"].to_pylist())


def nothing_to_retry(output: str, codes: list[str], failed: Mapping[str, int]) -> str:
    """Why no image of a run is retried, and the command that takes those that failed.

    Args:
        output: the run directory, without credentials.
        codes: that were asked for; none of them is in `failed`.
        failed: the images that failed, by code.
    """
    if not failed:
        return f"no image of {output} failed. Nothing to do."
    why = (
        "with codes that a retry does not take by itself"
        if codes == RETRYABLE
        else f"none of them with {', '.join(codes)}"
    )
    return (
        f"{counted(sum(failed.values()), 'image')} of {output} failed, {why}: {by_code(failed)}. Nothing was "
        f"retried. Once the cause is removed, {retry_command(output, failed)} labels them again"
    )


def failed_rows(output: str, codes: list[str]) -> NDArray[np.int64]:
    """The manifest rows that failed with some codes, ascending."""
    rows = [
        batch.filter(np.isin(batch["code"].to_numpy(zero_copy_only=False), codes))["manifest_index"]
        for batch in scan(output, "errors", ["manifest_index", "code"])
    ]
    return np.concatenate([np.empty(0, np.int64), *(column.to_numpy() for column in rows)])


def as_it_began(job: ResolvedJob, output: str) -> ResolvedJob:
    """A job whose manifest may have changed since its run began: what is retried is what the run holds."""
    began_with = find_run(output).record.manifest
    return job if began_with == job.files else replace(job, began_with=began_with)


def retried_manifest(run: RunDirectory, manifest: Manifest) -> Manifest:
    """The rows to retry where the manifest has changed: those that the run holds, or the same ones in it.

    Args:
        run: in the pass that retries them.
        manifest: as it is now.

    Raises:
        OutputConflictError: the run does not hold all of a row, and the manifest's is another one.
    """
    failed = _failed_keys(run)
    if not run.record.manifest_columns and all(map(is_enough, failed["uri"].to_pylist())):
        return held_manifest(failed, f"{run.store.url}/{MANIFEST}/retry-{run.retry:06d}")
    columns = {field.name: str(field.type) for field in manifest.carried}
    same = columns == run.record.manifest_columns and manifest.rows >= run.plan.rows
    if not same or not all(_is_same(manifest, failed, rows) for rows in _by_unit(run, failed)):
        raise OutputConflictError(
            f"the manifest of {clean_uri(run.store.url)} has changed since the run began, and rows "
            "that failed are no longer where they were, or have other columns. Put it back to retry them, or "
            "label it into another output"
        )
    return manifest


def _failed_keys(run: RunDirectory) -> pa.Table:
    """The keys of the rows to retry that are still failed, ascending."""
    names, retried = [field.name for field in KEYS], run.current.rows
    assert retried is not None  # as every retry's are
    batches = [
        batch.filter(np.isin(batch["manifest_index"].to_numpy(), retried))
        for batch in scan(run.store.url, "errors", names)
    ]
    return pa.Table.from_batches(batches, pa.schema(KEYS))


def _by_unit(run: RunDirectory, failed: pa.Table) -> list[NDArray[np.int64]]:
    """The positions in a table of failed rows, those of each unit together."""
    units = failed["manifest_index"].to_numpy() // run.plan.unit_rows
    return np.split(np.arange(len(units)), np.flatnonzero(np.diff(units)) + 1) if len(units) else []


def _is_same(manifest: Manifest, failed: pa.Table, positions: NDArray[np.int64]) -> bool:
    there = failed.take(positions)
    here = manifest.read(there["manifest_index"].to_pylist()).table
    return bool(here.select(there.column_names).to_pylist() == there.to_pylist())
