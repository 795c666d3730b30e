import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from schemas.metrics import NOTHING
from workers.label.usage import Spending


def test_what_threads_spend_is_added_up_and_given_out_once() -> None:
    spending = Spending()

    def work(_: int) -> None:
        for _ in range(100):
            spending.fetched(3)
            with spending.timing("decode"):
                pass

    with ThreadPoolExecutor(8) as threads, spending.timing("fetch"):
        list(threads.map(work, range(8)))
    spent = spending.take()
    assert spent.fetched_bytes == 2400
    assert spent.stage_s.keys() == {"fetch", "decode"}
    assert spending.take() == NOTHING


def test_seconds_count_however_a_block_ends() -> None:
    spending = Spending()
    with contextlib.suppress(KeyError), spending.timing("fetch"):
        time.sleep(0.01)
        raise KeyError
    assert spending.take().stage_s["fetch"] >= 0.01
