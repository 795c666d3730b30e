import pytest

from jobs.run.budget import check_access, check_budget, check_models
from schemas.exceptions import FailureBudgetError, ModelError, StorageError


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
        "2. What is committed stays. Fix the cause of the errors and run in a new output; or raise "
        "max_failed and run the same command to resume"
    )


@pytest.mark.parametrize(
    ("failed", "done", "rows", "stops"),
    [
        ({"NON_FINITE": 31}, 31, 100, False),
        ({"NON_FINITE": 32}, 32, 100, True),
        ({"NON_FINITE": 32}, 33, 100, False),  # one was labelled
        ({"MODEL_ERROR": 20, "WORKER_CRASHED": 12, "NOT_FOUND": 500}, 532, 1_000, True),
        ({"NOT_FOUND": 500}, 500, 1_000, False),
        ({"MODEL_ERROR": 7}, 7, 7, True),
        ({"MODEL_ERROR": 6, "TRUNCATED": 1}, 7, 7, False),
        ({}, 0, 100, False),
    ],
)
def test_a_run_stops_when_the_models_fail_on_every_image_that_they_are_given(
    failed: dict[str, int], done: int, rows: int, stops: bool
) -> None:
    try:
        check_models(failed, done, rows, str)
    except ModelError:
        assert stops
    else:
        assert not stops


def test_a_model_at_fault_is_blamed_with_an_example() -> None:
    with pytest.raises(ModelError) as raised:
        check_models(
            {"NOT_FOUND": 3, "NON_FINITE": 60, "MODEL_ERROR": 4}, 67, 1_000, lambda code: f"a {code} image"
        )
    assert str(raised.value) == (
        "stopped: the models failed on each of the 64 images that they were given (NON_FINITE 60, "
        "MODEL_ERROR 4), so the cause is the models, not the images. One of the failures: a NON_FINITE "
        "image. Fix the model, its weights or its settings, and run in a new output or with --restart"
    )


@pytest.mark.parametrize(
    ("failed", "done", "rows", "stops"),
    [
        ({"DENIED": 31}, 31, 100, False),
        ({"DENIED": 32}, 32, 100, True),
        ({"DENIED": 20, "EXPIRED": 12}, 32, 100, True),
        ({"DENIED": 32}, 33, 100, False),  # one was read
        ({"DENIED": 32, "NOT_FOUND": 1}, 33, 100, False),  # whoever is told so may look
        ({"DENIED": 4}, 4, 4, True),
        ({}, 0, 100, False),
    ],
)
def test_a_run_stops_when_the_store_refuses_every_image(
    failed: dict[str, int], done: int, rows: int, stops: bool
) -> None:
    try:
        check_access(failed, done, rows, str)
    except StorageError:
        assert stops
    else:
        assert not stops
