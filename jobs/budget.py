"""The failure budget: when a run is hopeless."""

from collections.abc import Mapping

from schemas.exceptions import FailureBudgetError

ENOUGH_ROWS = 1_000
"""Rows from which a fraction of what is done speaks for the whole."""


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
        codes = ", ".join(f"{code} {n:,}" for code, n in sorted(failed.items(), key=lambda item: -item[1]))
        raise FailureBudgetError(
            f"stopped: {count:,} of the {done:,} images done have failed ({codes}), and max_failed is "
            f"{limit}. What is committed stays. See the errors, mend their cause, and run again in a new "
            "output; or raise max_failed and run the same command again to go on"
        )
