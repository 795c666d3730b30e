"""`raylabel retry`: the failed rows of a complete run once more."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.results.summary import scan
from schemas.errors import ErrorCode
from schemas.exceptions import OutputConflictError, SpecError
from schemas.ledger import SUCCESS, Retry
from schemas.ranges import to_ranges
from schemas.spec import JobSpec
from schemas.spec_file import override_spec
from workers.ledger.runs import find_run
from workers.ledger.state import read_success
from workers.storage.uris import clean_uri


def codes_of(names: list[str] | None) -> list[str]:
    """The error codes that some names stand for; all retryable ones where there is no name.

    Raises:
        SpecError: a name is none.
    """
    known = [code.value for code in ErrorCode]
    if unknown := sorted(set(names or []) - set(known)):
        raise SpecError(f"--code: found {', '.join(unknown)}; allowed: {', '.join(known)}")
    return sorted(set(names)) if names else [code.value for code in ErrorCode if code.retryable]


def retried_spec(output: str, settings: dict[str, Any]) -> JobSpec:
    """The spec of the run in a directory.

    Args:
        output: the run directory.
        settings: dotted keys of the spec to other values, such as {"fetch.concurrency": 4}.

    Raises:
        StorageError: there is no run.
        SpecError: a setting is wrong.
    """
    record = find_run(output).record
    return override_spec(record.spec, {**settings, "output": output}, "the run's spec")


def begin_retry(output: str, codes: list[str]) -> int:
    """Starts a pass over the failed rows of a complete run, or finds one that was stopped.

    The pass is done by `jobs.run.pipeline.label`. Its record is put before `_SUCCESS` is deleted: killed in
    between, the run is as complete as it was, and the next call starts the next pass over the same rows.

    Returns:
        How many rows it has; 0: no row failed with these codes, and no pass was started.

    Raises:
        OutputConflictError: the run is not complete.
    """
    run = find_run(output).newest()
    if read_success(run.store) is None:
        if not run.retry:
            raise OutputConflictError(
                f"{clean_uri(run.store.url)} is not complete; run the command that started it, then retry"
            )
        return run.current.size
    rows = failed_rows(output, codes)
    if len(rows):
        run.create(Retry(number=run.retry + 1, codes=codes, rows=to_ranges(rows)))
        run.store.delete([SUCCESS])
    return len(rows)


def failed_rows(output: str, codes: list[str]) -> NDArray[np.int64]:
    """The manifest rows that failed with some codes, ascending."""
    rows = [
        batch.filter(np.isin(batch["code"].to_numpy(zero_copy_only=False), codes))["manifest_index"]
        for batch in scan(output, "errors", ["manifest_index", "code"])
    ]
    return np.concatenate([np.empty(0, np.int64), *(column.to_numpy() for column in rows)])
