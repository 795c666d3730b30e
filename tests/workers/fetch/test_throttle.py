import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.clock import standing_still
from workers.fetch.throttle import AdaptiveLimiter


def most_at_once(limiter: AdaptiveLimiter, reads: int, threads: int) -> int:
    """Reads that were under way at once, at most."""
    under_way, most, lock = 0, 0, threading.Lock()

    def read(_: int) -> None:
        nonlocal under_way, most
        with limiter.slot():
            with lock:
                under_way += 1
                most = max(most, under_way)
            time.sleep(0.01)
            with lock:
                under_way -= 1

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(reads)))
    return most


def test_no_more_reads_are_under_way_than_asked() -> None:
    assert most_at_once(AdaptiveLimiter(3), 30, 10) == 3


def test_a_complaint_halves_what_is_under_way_and_success_brings_it_back() -> None:
    limiter = AdaptiveLimiter(16)
    limiter.on_throttle()
    limiter.on_throttle()  # of a read that was under way already
    assert limiter.limit == 8
    assert most_at_once(limiter, 40, 16) == 8
    for _ in range(8):  # a round of reads, and a little more: the bound grows meanwhile
        limiter.on_success()
    assert limiter.limit == 8
    limiter.on_success()
    assert limiter.limit == 9
    for _ in range(1000):
        limiter.on_success()
    assert limiter.limit == 16


def test_a_limit_that_is_halved_leaves_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    limiter = AdaptiveLimiter(3)
    for _ in range(3):
        limiter._reduced_at = -math.inf
        limiter.on_throttle()
        limiter.on_throttle()  # of a read that was under way already
    text = "the store throttles: reads at once limited from 3 to 1"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", text)]


def test_one_read_is_always_allowed() -> None:
    limiter = AdaptiveLimiter(4)
    for _ in range(10):
        limiter._reduced_at = -math.inf
        limiter.on_throttle()
    assert limiter.limit == 1
    assert most_at_once(limiter, 5, 4) == 1


def test_a_reader_is_told_how_long_the_rate_made_it_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    limiter, waits = AdaptiveLimiter(1, per_s=0.001), list[float]()
    for _ in range(3):
        with limiter.slot() as wait:
            waits.append(wait)
    assert [round(wait, -2) for wait in waits] == [0, 1000, 2000]
    assert slept == waits[1:]
    with AdaptiveLimiter(1).slot() as wait:
        assert wait == 0


@pytest.mark.parametrize("up_s", [0.0, 30.0, 1e7])
def test_the_first_read_and_the_first_complaint_wait_for_nothing_however_long_the_machine_is_up(
    up_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", standing_still(up_s))
    monkeypatch.setattr("time.sleep", lambda _: None)
    limiter = AdaptiveLimiter(8, per_s=0.001)
    limiter.on_throttle()
    assert limiter.limit == 4
    waits = []
    for _ in range(2):
        with limiter.slot() as wait:
            waits.append(wait)
    assert waits == [0, 1000]


def test_reads_begin_no_faster_than_the_rate() -> None:
    limiter, began = AdaptiveLimiter(8, per_s=100), time.monotonic()
    begun = []

    def read(_: int) -> None:
        with limiter.slot():
            begun.append(time.monotonic() - began)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(30)))
    assert all(at >= n / 100 - 0.001 for n, at in enumerate(sorted(begun)))
