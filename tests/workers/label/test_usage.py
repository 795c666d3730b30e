import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from schemas.metrics import NO_USAGE
from workers.label.usage import UsageMeter


def test_what_threads_spend_is_added_up_and_given_out_once() -> None:
    meter = UsageMeter()

    def work(_: int) -> None:
        for _ in range(100):
            meter.fetched(3)
            with meter.timing("decode"):
                pass

    with ThreadPoolExecutor(8) as threads, meter.timing("fetch"):
        list(threads.map(work, range(8)))
    usage = meter.take()
    assert usage.fetched_bytes == 2400
    assert usage.stage_s.keys() == {"fetch", "decode"}
    assert meter.take() == NO_USAGE


def test_seconds_count_however_a_block_ends() -> None:
    meter = UsageMeter()
    with contextlib.suppress(KeyError), meter.timing("fetch"):
        time.sleep(0.01)
        raise KeyError
    assert meter.take().stage_s["fetch"] >= 0.01
