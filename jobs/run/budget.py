"""The limits of failure: too many images fail, the models fail on all of them, or none may be read."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from schemas.exceptions import FailureBudgetError, ModelError, StorageError
from schemas.metrics import Usage
from schemas.words import by_code
from workers.fetch.locate import describe
from workers.ledger.directory import RunDirectory
from workers.ledger.state import PassState
from workers.manifest.manifest import Manifest
from workers.storage.uris import host_of

ENOUGH_ROWS = 1_000
"""Rows from which on a fraction of what is done stands for the whole."""

MIN_ROWS_TO_BLAME = 32
"""Images that failed alike, none labelled, from which on the cause is not the images."""

HOSTS_TO_BLAME = 8
"""Servers or buckets that refused all they were asked for, from which on no other is tried first."""

HOSTS_SAMPLE = 32
"""Rows that stand for those done, and for those still to do, when their servers are compared."""

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
        manifest: its rows.
    """

    def __init__(self, max_failed: float | None, run: RunDirectory, manifest: Manifest) -> None:
        self._max_failed = max_failed
        self._run = run
        self._manifest = manifest
        self._looked_at = 0

    def on_progress(self, state: PassState, usage: Usage) -> None:  # noqa: ARG002 - an observer's face
        """See `check_budget`, `check_models` and `refusal`, which it raises."""
        counts = (state.failed, state.done, state.rows)
        check_budget(self._max_failed, *counts)
        if self._run.retry == 0:
            check_models(*counts, state.example)
            if self._max_failed is None and is_refused(*counts) and self._are_all_hosts_refused(state):
                raise refusal(*counts[:2], state.example)

    def _are_all_hosts_refused(self, state: PassState) -> bool:
        """Whether no other server is left to try, where all rows done were refused.

        A list is often sorted by server, and then its first one alone has refused. Looked at whenever twice
        as much is done.
        """
        if state.done == state.rows:
            return True
        if state.done < 2 * self._looked_at:
            return False
        self._looked_at = state.done
        pending = state.pending
        done = np.setdiff1d(self._run.current.units, pending)
        return is_no_host_left(self._hosts(done), self._hosts(pending))

    def _hosts(self, units: NDArray[np.int64]) -> set[str]:
        """The servers and buckets of some rows of units, spread evenly."""
        chosen = units[np.linspace(0, len(units) - 1, min(HOSTS_SAMPLE, len(units)), dtype=int)]
        of_each = -(-HOSTS_SAMPLE // len(chosen))
        hosts: set[str] = set()
        for unit in chosen.tolist():
            rows = self._run.current.rows_of_unit(unit)
            read = self._manifest.read(list(rows[:: -(-len(rows) // of_each)]))
            hosts.update(host_of(describe(location)) for location in read.locations)
        return hosts


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
            f"stopped: {count:,} of the {done:,} images done have failed ({by_code(failed)}), and "
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
        f"({by_code(blamed)}), so the cause is the models, not the images. One of the failures: "
        f"{example}. Fix the model, its weights or its settings, and run in a new output or with --restart"
    )


def is_refused(failed: Mapping[str, int], done: int, rows: int) -> bool:
    """Whether a run may not read a single one of its first images.

    Args:
        failed: images that failed, by code.
        done: rows in a final state.
        rows: rows of the manifest.
    """
    return sum(_only(_OF_ACCESS, failed).values()) >= max(done, min(MIN_ROWS_TO_BLAME, max(rows, 1)))


def is_no_host_left(refused: set[str], pending: set[str]) -> bool:
    """Whether the servers and buckets that refused all images stand for those of the images to do."""
    return pending <= refused or len(refused) >= HOSTS_TO_BLAME


def refusal(failed: Mapping[str, int], done: int, example_of: Callable[[str], str]) -> StorageError:
    """The error of a run that may not read its images.

    Args:
        failed: images that failed, by code.
        done: rows in a final state.
        example_of: gives the message of a failure with some code.
    """
    refused = _only(_OF_ACCESS, failed)
    example = example_of(max(refused, key=refused.__getitem__))
    return StorageError(
        f"stopped: the store refused each of the first {done:,} images ({by_code(refused)}). One of "
        f"them: {example}. Give the cluster's nodes the right to read them (storage in the job spec says "
        "with which credentials; fetch.headers is what web servers are sent), and run with --restart or in a "
        "new output. With max_failed set, a run does not stop for this"
    )


def _only(codes: tuple[ErrorCode, ...], failed: Mapping[str, int]) -> dict[str, int]:
    """The failures with some codes."""
    return {code.value: failed[code] for code in codes if failed.get(code)}
