"""When a run is hopeless: too many images fail, the models fail on all of them, or none may be read."""

from collections.abc import Callable, Mapping

from schemas.errors import ErrorCode
from schemas.exceptions import FailureBudgetError, ModelError, StorageError

ENOUGH_ROWS = 1_000
"""Rows from which a fraction of what is done speaks for the whole."""

MIN_ROWS_TO_BLAME = 32
"""Images that failed alike, none labelled, from which on it is not the images."""

_OF_ACCESS = (ErrorCode.DENIED, ErrorCode.EXPIRED)

_OF_MODELS = (
    ErrorCode.MODEL_ERROR,
    ErrorCode.NON_FINITE,
    ErrorCode.OUT_OF_MEMORY,
    ErrorCode.WORKER_CRASHED,
)


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
            f"stopped: {count:,} of the {done:,} images done have failed ({_said(failed)}), and max_failed "
            f"is {limit}. What is committed stays. See the errors, mend their cause, and run again in a new "
            "output; or raise max_failed and run the same command again to go on"
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
        f"({_said(blamed)}), so they are at fault, not the images. One of the failures: {example}. Mend the "
        "model, its weights or its settings, and run in a new output or with --restart"
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
        f"stopped: the store refused each of the first {done:,} images ({_said(refused)}). One of them: "
        f"{example}. Give the cluster's nodes the right to read them (storage in the job spec says with "
        "which credentials), and run with --restart or in a new output. With max_failed set, a run does not "
        "stop for this"
    )


def _only(codes: tuple[ErrorCode, ...], failed: Mapping[str, int]) -> dict[str, int]:
    """The failures with some codes."""
    return {code.value: failed[code] for code in codes if failed.get(code)}


def _said(failed: Mapping[str, int]) -> str:
    """Codes and counts, most frequent first."""
    return ", ".join(f"{code} {n:,}" for code, n in sorted(failed.items(), key=lambda item: -item[1]))
