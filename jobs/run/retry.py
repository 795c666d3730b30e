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
from workers.ledger.runs import find_run, last_retry, ledger_of
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
    _, record = find_run(output)
    return override_spec(record.spec, {**settings, "output": output}, "the run's spec")


def begin_retry(output: str, codes: list[str]) -> int:
    """Begins a pass over the rows of a complete run that failed so, or finds one that was stopped.

    The pass is done by `jobs.run.pipeline.label`. Its record is put before `_SUCCESS` is deleted: killed in
    between, the run is as complete as it was, and the next call begins the next pass over the same rows.

    Returns:
        How many rows it has; 0: no row failed so, and none was begun.

    Raises:
        OutputConflictError: the run is not complete.
    """
    store, record = find_run(output)
    ledger = ledger_of(store, record)
    before = last_retry(ledger)
    if read_success(store) is None:
        if before is None:
            raise OutputConflictError(
                f"{clean_uri(store.url)} is not complete; run the command that began it again, then retry"
            )
        return sum(stop - start for start, stop in before.rows)
    rows = failed_rows(output, codes)
    if len(rows):
        number = before.number + 1 if before else 1
        retry = Retry(number=number, codes=codes, rows=to_ranges(rows))
        ledger.create(retry.key, retry.to_json())
        store.delete([SUCCESS])
    return len(rows)


def failed_rows(output: str, codes: list[str]) -> NDArray[np.int64]:
    """The manifest rows that failed with some codes, ascending."""
    found = [
        batch.filter(np.isin(batch["code"].to_numpy(zero_copy_only=False), codes))["manifest_index"]
        for batch in scan(output, "errors", ["manifest_index", "code"])
    ]
    return np.concatenate([np.empty(0, np.int64), *(column.to_numpy() for column in found)])
