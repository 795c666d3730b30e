"""The limits of failure: too many images fail, the models fail on all of them, or none may be read."""

from collections.abc import Callable, Mapping

from schemas.errors import ErrorCode
from schemas.exceptions import FailureBudgetError, ModelError, StorageError
from schemas.metrics import Usage
from workers.ledger.directory import RunDirectory
from workers.ledger.state import PassState

ENOUGH_ROWS = 1_000
"""Rows from which on a fraction of what is done stands for the whole."""

MIN_ROWS_TO_BLAME = 32
"""Images that failed alike, none labelled, from which on the cause is not the images."""

_OF_ACCESS = (ErrorCode.DENIED, ErrorCode.EXPIRED)

_OF_MODELS = (
    ErrorCode.MODEL_ERROR,
    ErrorCode.NON_FINITE,
    ErrorCode.OUT_OF_MEMORY,
    ErrorCode.WORKER_CRASHED,
)


class FailureLimits:
    """Stops a run in which too many images fail, or all for one reason (a retry is of failed ones).

    Args:
        max_failed: of the spec.
        run: the run, in the pass that is watched.
    """

    def __init__(self, max_failed: float | None, run: RunDirectory) -> None:
        self._max_failed = max_failed
        self._run = run

    def on_progress(self, state: PassState, usage: Usage) -> None:  # noqa: ARG002 - an observer's face
        """See `check_budget`, `check_models` and `check_access`, which it raises from."""
        counts = (state.failed, state.done, state.rows)
        check_budget(self._max_failed, *counts)
        if self._run.retry == 0:
            check_models(*counts, state.example)
            if self._max_failed is None:
                check_access(*counts, state.example)


def check_budget(limit: float | None, failed: Mapping[str, int], done: int, rows: int) -> None:
    """Stops a run that has failed too often.

    A count is a limit as it stands. A fraction (below 1) is one of all rows, and, from 1,000 rows on, of
    the rows done so far.

    Args:
        limit: `max_failed` of the spec; None: no limit.
        failed: images that failed, by code.
        done: rows in a final state.
        rows: rows of the manifest.

    Raises:
        FailureBudgetError: with the codes, most frequent first.
    """
    count = sum(failed.values())
    if limit is None:
        return
    if isinstance(limit, int):
        allowed: float = limit
    elif done >= ENOUGH_ROWS:
        allowed = limit * done
    else:
        allowed = limit * rows
    if count > allowed:
        raise FailureBudgetError(
            f"stopped: {count:,} of the {done:,} images done have failed ({_format_codes(failed)}), and "
            f"max_failed is {limit}. What is committed stays. Fix the cause of the errors and run in a new "
            "output; or raise max_failed and run the same command to resume"
        )


def check_models(failed: Mapping[str, int], done: int, rows: int, example_of: Callable[[str], str]) -> None:
    """Stops a run whose models fail on every image that they are given.

    Args:
        failed: images that failed, by code.
        done: rows in a final state.
        rows: rows of the manifest.
        example_of: gives the message of a failure with some code.

    Raises:
        ModelError: with the codes and the example.
    """
    blamed = _only(_OF_MODELS, failed)
    count = sum(blamed.values())
    if sum(failed.values()) < done or count < min(MIN_ROWS_TO_BLAME, max(rows, 1)):
        return
    example = example_of(max(blamed, key=blamed.__getitem__))
    raise ModelError(
        f"stopped: the models failed on each of the {count:,} images that they were given "
        f"({_format_codes(blamed)}), so the cause is the models, not the images. One of the failures: "
        f"{example}. Fix the model, its weights or its settings, and run in a new output or with --restart"
    )


def check_access(failed: Mapping[str, int], done: int, rows: int, example_of: Callable[[str], str]) -> None:
    """Stops a run that may not read a single one of its images.

    Args:
        failed: images that failed, by code.
        done: rows in a final state.
        rows: rows of the manifest.
        example_of: gives the message of a failure with some code.

    Raises:
        StorageError: with the example.
    """
    refused = _only(_OF_ACCESS, failed)
    if sum(refused.values()) < max(done, min(MIN_ROWS_TO_BLAME, max(rows, 1))):
        return
    example = example_of(max(refused, key=refused.__getitem__))
    raise StorageError(
        f"stopped: the store refused each of the first {done:,} images ({_format_codes(refused)}). One of "
        f"them: {example}. Give the cluster's nodes the right to read them (storage in the job spec "
        "says with which credentials), and run with --restart or in a new output. With max_failed set, a "
        "run does not stop for this"
    )


def _only(codes: tuple[ErrorCode, ...], failed: Mapping[str, int]) -> dict[str, int]:
    """The failures with some codes."""
    return {code.value: failed[code] for code in codes if failed.get(code)}


def _format_codes(failed: Mapping[str, int]) -> str:
    """Codes and counts, most frequent first."""
    return ", ".join(f"{code} {n:,}" for code, n in sorted(failed.items(), key=lambda item: -item[1]))
