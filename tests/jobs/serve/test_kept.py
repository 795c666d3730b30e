import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from jobs.serve.kept import GaveUpError, Kept, Lane, Latest


async def waits() -> bool:
    return False


async def has_gone() -> bool:
    return True


def test_what_was_used_last_is_kept_within_the_bound() -> None:
    made: list[str] = []

    def making(name: str) -> Callable[[], Awaitable[bytes]]:
        async def make() -> bytes:
            made.append(name)
            return name.encode() * 4

        return make

    async def ask(kept: Kept) -> None:
        for name in ("a", "b", "a", "c", "a", "b"):
            assert await kept.get(name, making(name)) == name.encode() * 4
            assert kept.size <= 8

    asyncio.run(ask(Kept(8)))
    assert made == ["a", "b", "c", "b"]


def test_an_answer_larger_than_the_bound_is_given_and_not_kept() -> None:
    async def make() -> bytes:
        return b"12345"

    kept = Kept(4)
    assert asyncio.run(kept.get("key", make)) == b"12345"
    assert kept.size == 0


def test_one_answer_is_made_once_however_many_ask_for_it() -> None:
    calls: list[int] = []

    async def make() -> bytes:
        calls.append(1)
        await asyncio.sleep(0.01)
        return b"answer"

    async def ask() -> list[bytes]:
        kept = Kept(100)
        return await asyncio.gather(*(kept.get("key", make) for _ in range(20)))

    assert asyncio.run(ask()) == [b"answer"] * 20
    assert calls == [1]


def test_where_making_fails_the_next_one_tries_again() -> None:
    calls: list[int] = []

    async def make() -> bytes:
        calls.append(1)
        if len(calls) == 1:
            raise GaveUpError
        return b"answer"

    async def ask() -> list[bytes | BaseException]:
        kept = Kept(100)
        return await asyncio.gather(*(kept.get("key", make) for _ in range(2)), return_exceptions=True)

    first, second = asyncio.run(ask())
    assert isinstance(first, GaveUpError)
    assert second == b"answer"


def test_only_so_many_calls_run_at_once_and_those_who_left_cost_nothing() -> None:
    running, most, calls, lock = 0, 0, 0, threading.Lock()

    def call() -> None:
        nonlocal running, most, calls
        with lock:
            running, calls = running + 1, calls + 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    async def ask() -> list[BaseException | None]:
        lane = Lane("test", 2)
        asked = (lane.run(call, has_gone if n % 2 else waits) for n in range(10))
        found = await asyncio.gather(*asked, return_exceptions=True)
        lane.close()
        return found

    found = asyncio.run(ask())
    assert [isinstance(one, GaveUpError) for one in found] == [bool(n % 2) for n in range(10)]
    assert (most, calls) == (2, 5)


@pytest.mark.parametrize(("key", "value"), [(0, None), (1, 1), (2, 2)])
def test_the_latest_values_are_kept(key: int, value: int | None) -> None:
    latest = Latest[int, int](2)
    for number in range(3):
        latest[number] = number
    assert latest.get(key) == value
