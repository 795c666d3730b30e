from collections import Counter
from pathlib import Path

import pytest

from jobs.run.retry import DEFAULT_CODES, begin_retry, codes_of, failed_by_code, nothing_to_retry
from schemas.errors import ErrorCode
from schemas.exceptions import OutputConflictError, SpecError
from tests.jobs.results.test_terminal import put_run


def test_a_retry_takes_what_is_retryable_what_is_named_or_all() -> None:
    assert codes_of(None) == DEFAULT_CODES
    assert codes_of(["TIMEOUT", "denied", "TIMEOUT"]) == ["DENIED", "TIMEOUT"]
    assert codes_of(["all", "DENIED"]) == [code.value for code in ErrorCode]
    with pytest.raises(SpecError, match=r"--code: found SLOW; allowed: NOT_FOUND, DENIED.*INTERNAL, or all"):
        codes_of(["SLOW"])


def test_a_retry_of_a_run_that_is_not_complete_is_refused(tmp_path: Path) -> None:
    put_run(str(tmp_path))
    with pytest.raises(OutputConflictError, match=f"is not complete: `raylabel run {tmp_path}` completes"):
        begin_retry(str(tmp_path), ["TIMEOUT"])


def test_failures_are_counted_by_code(tmp_path: Path) -> None:
    put_run(str(tmp_path))
    assert failed_by_code(str(tmp_path)) == Counter({"NOT_FOUND": 2, "TRUNCATED": 1})


@pytest.mark.parametrize(
    ("codes", "failed", "expected"),
    [
        (DEFAULT_CODES, {}, "no image of out failed. Nothing to do."),
        (
            DEFAULT_CODES,
            {"NOT_FOUND": 1},
            "1 image of out failed, with codes that a retry does not take by itself: 1 NOT_FOUND. Nothing "
            "was retried. Once the cause is removed, `raylabel retry out --code NOT_FOUND` labels them again",
        ),
        (
            ["DENIED"],
            {"NOT_FOUND": 2, "EMPTY": 1, "TIMEOUT": 1, "TRUNCATED": 3},
            "7 images of out failed, none of them with DENIED: 3 TRUNCATED, 2 NOT_FOUND, 1 EMPTY, 1 TIMEOUT. "
            "Nothing was retried. Once the cause is removed, `raylabel retry out --code all` labels them "
            "again",
        ),
    ],
)
def test_a_retry_that_takes_nothing_names_what_failed_and_the_command_that_takes_it(
    codes: list[str], failed: dict[str, int], expected: str
) -> None:
    assert nothing_to_retry("out", codes, failed) == expected
