import pytest

from jobs.budget import check_budget
from schemas.exceptions import FailureBudgetError


@pytest.mark.parametrize(
    ("limit", "failed", "done", "rows", "stops"),
    [
        (None, 100, 100, 100, False),
        (0, 0, 10, 100, False),
        (0, 1, 10, 100, True),
        (5, 5, 10, 100, False),
        (5, 6, 10, 100, True),
        (0.1, 10, 10, 100, False),
        (0.1, 11, 11, 100, True),
        (0.1, 101, 999, 1_000_000, False),
        (0.1, 101, 1_000, 1_000_000, True),
        (0.0, 1, 1, 10, True),
    ],
)
def test_a_run_stops_when_more_failed_than_the_budget(
    limit: float | None, failed: int, done: int, rows: int, stops: bool
) -> None:
    try:
        check_budget(limit, {"TIMEOUT": failed}, done, rows)
    except FailureBudgetError:
        assert stops
    else:
        assert not stops


def test_the_message_counts_the_codes_and_says_what_to_do() -> None:
    with pytest.raises(FailureBudgetError) as raised:
        check_budget(2, {"TIMEOUT": 1, "NOT_FOUND": 2000}, 5000, 10_000)
    assert str(raised.value) == (
        "stopped: 2,001 of the 5,000 images done have failed (NOT_FOUND 2,000, TIMEOUT 1), and max_failed is "
        "2. What is committed stays. See the errors, mend their cause, and run again in a new output; or "
        "raise max_failed and run the same command again to go on"
    )
