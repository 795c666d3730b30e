"""`raylabel retry`: the failed rows of a complete run once more."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.results.files import scan
from jobs.results.status import retry_command
from schemas.errors import ErrorCode
from schemas.exceptions import OutputConflictError, SpecError
from schemas.ledger import SUCCESS, Retry
from schemas.ranges import to_ranges
from schemas.words import by_code, counted, raylabel_command
from workers.ledger.runs import find_run
from workers.ledger.state import assert_published, read_success
from workers.storage.uris import clean_uri

ALL = "all"
"""The name that stands for every error code."""

DEFAULT_CODES = [code.value for code in ErrorCode if code.retryable]


def codes_of(names: list[str] | None) -> list[str]:
    """The error codes that some names stand for; all retryable ones where there is no name.

    Raises:
        SpecError: a name is none.
    """
    known = [code.value for code in ErrorCode]
    codes = {name if name == ALL else name.upper() for name in names or []}
    if unknown := sorted(codes - {*known, ALL}):
        raise SpecError(f"--code: found {', '.join(unknown)}; allowed: {', '.join(known)}, or {ALL}")
    if ALL in codes:
        return known
    return sorted(codes) or DEFAULT_CODES


def next_retry(output: str, codes: list[str]) -> Retry | None:
    """The pass over the failed rows of a complete run that can be started, or one that was stopped.

    Returns:
        The pass; one that was stopped may be for other codes. None: no row failed with these codes.

    Raises:
        OutputConflictError: the run is not complete.
        DamagedFileError: a file is damaged or gone without which the tables cannot be changed.
    """
    run = find_run(output).newest()
    if read_success(run.store) is None:
        if not run.retry:
            url = clean_uri(run.store.url)
            raise OutputConflictError(
                f"{url} is not complete: {raylabel_command('run', url)} completes it; then retry"
            )
        return run.get(Retry, run.retry)
    assert_published(run)
    rows = failed_rows(output, codes)
    if not len(rows):
        return None
    return Retry(number=run.retry + 1, codes=codes, rows=to_ranges(rows))


def begin_retry(output: str, codes: list[str]) -> Retry | None:
    """Starts the pass that `next_retry` gives; `jobs.run.pipeline.label` does it.

    Its record is put before `_SUCCESS` is deleted: killed in between, the run is as complete as it was, and
    the next call starts the next pass over the same rows.

    Returns:
        The pass; it may be one for other codes, which another process has just started.

    Raises:
        OutputConflictError, DamagedFileError: see `next_retry`.
    """
    retry = next_retry(output, codes)
    run = find_run(output)
    if retry is None or read_success(run.store) is None:
        return retry
    is_ours = run.create(retry)
    run.store.delete([SUCCESS])
    return retry if is_ours else run.get(Retry, retry.number)


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
        if codes == DEFAULT_CODES
        else f"none of them with {', '.join(codes)}"
    )
    return (
        f"{counted(sum(failed.values()), 'image')} of {output} failed, {why}: {by_code(failed)}. Nothing was "
        f"retried. Once the cause is removed, {retry_command(output, failed)} labels them again"
    )


def outcome_of_retry(output: str) -> str:
    """What the last retry of a complete run achieved, in a sentence."""
    rows = find_run(output).newest().current.rows
    if rows is None:
        return f"{output} was started over meanwhile, and is complete"
    failed = int(np.isin(failed_rows(output), rows).sum())
    return (
        f"{len(rows) - failed:,} of {counted(len(rows), 'retried image')} labelled, {failed:,} failed again"
    )


def failed_rows(output: str, codes: list[str] | None = None) -> NDArray[np.int64]:
    """The manifest rows that failed with some codes, or with any, ascending."""
    batches = scan(output, "errors", ["manifest_index", "code"])
    if codes is not None:
        batches = (batch.filter(pc.is_in(batch["code"], pa.array(codes))) for batch in batches)
    rows = [batch["manifest_index"] for batch in batches]
    return np.concatenate([np.empty(0, np.int64), *(column.to_numpy() for column in rows)])
