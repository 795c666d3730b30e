import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from workers.fetch.patience import MAX_WAIT_S, retry_after_s, wait_s, within


class RefusedError(Exception):
    """As libraries tell of an answer."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2),
        (" 120 ", 120),
        ("1.5", 1.5),
        ("", 0),
        ("-3", 0),
        ("soon", 0),
        ("9" * 400, 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Fri, 99 Dec 2099 23:59:59 GMT", 0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0),
    ],
)
def test_a_server_says_in_seconds_or_by_a_date_when_it_wants_to_be_asked_again(
    header: str, seconds: float
) -> None:
    assert retry_after_s(RefusedError(retry_after=header)) == seconds


def test_a_date_is_seconds_from_now() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 85 < retry_after_s(RefusedError(headers={"Retry-After": soon})) <= 90


def test_it_is_known_from_each_library_that_reads_files() -> None:
    botocore = {"ResponseMetadata": {"HTTPHeaders": {"retry-after": "7"}}}
    headers = {"Retry-After": "7"}
    for error in (
        RefusedError(response=botocore),
        RefusedError(response=RefusedError(headers=headers)),
        RefusedError(headers=headers),
    ):
        wrapped = OSError()
        wrapped.__cause__ = error
        assert retry_after_s(wrapped) == 7
    assert retry_after_s(OSError()) == 0


def test_what_a_server_asks_for_is_heeded_within_a_bound() -> None:
    assert 2 <= wait_s(1, asked_s=2, bound_s=10) <= 2.4
    assert 9.8 <= wait_s(9, asked_s=9.8, bound_s=10) <= 10
    assert wait_s(1, asked_s=10**9, bound_s=300) <= 0.4  # as if it had not asked
    assert wait_s(50, asked_s=0, bound_s=300) <= MAX_WAIT_S


def test_a_call_that_hangs_is_not_waited_for() -> None:
    end, begin = threading.Event(), time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.2 s"):
        within(0.2, lambda: end.wait(20))
    assert time.monotonic() - begin < 5
    end.set()
    assert within(5, lambda: "the result") == "the result"
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)
