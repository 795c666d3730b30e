"""Users at once on the search page: how long an answer takes, and whether one is lost.

    python -m tests.benchmarks.large_run RUN --images 1000000 && raylabel index RUN
    python -m tests.benchmarks.serve RUN --users 50 --seconds 30 --think 2

Each user asks as a person does: for a query of words that are as frequent as people's are, and its facets
beside it; the next page, an image, suggestions; and looks at each answer for a while. Thumbnails are not
asked for, as a made-up run has no photos.
"""

import argparse
import asyncio
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any

import httpx
import psutil

from tests.benchmarks.large_run import CLASSES, LABELS

WORDS = ("person", "car", "dog", "cat", "chair", *CLASSES[5:40], *LABELS[:60])
"""What people ask for, the most frequent first: the n-th is asked for 1/n times as often as the first."""


@contextmanager
def serving(output: str) -> Iterator[tuple[str, psutil.Process]]:
    """A server in a process of its own; yields its address and the process."""
    command = [sys.executable, "-m", "raylabel", "serve", output, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            found = re.search(r"http://\S+", server.stdout.readline())
            if found is None:
                raise SystemExit("the server did not start")
            yield found[0], psutil.Process(server.pid)
        finally:
            server.terminate()


class User:
    """Somebody who searches.

    Args:
        address: of the server.
        number: of the user, who draws what to ask by it.
        think_s: seconds that an answer is looked at, on average.
        times: where the seconds that each kind of answer took are added.
        lost: where answers that are none are counted.
    """

    def __init__(
        self, address: str, number: int, think_s: float, times: dict[str, list[float]], lost: Counter[str]
    ) -> None:
        self._draw = random.Random(number)
        self._client = httpx.AsyncClient(base_url=address, timeout=60)
        self._think_s, self._times, self._lost = think_s, times, lost

    async def search(self, until: float) -> None:
        """Asks until a time of the monotonic clock."""
        async with self._client:
            await asyncio.sleep(self._draw.random() * self._think_s)
            while time.monotonic() < until:
                query = self.query()
                if self._draw.random() < 0.5:
                    await self._get("suggest", "/api/suggest", q=query[:3])
                    await self._look()
                page, _ = await asyncio.gather(
                    self._get("search", "/", q=query), self._get("facets", "/facets", q=query)
                )
                await self._look()
                if self._draw.random() < 0.3:
                    await self._get("page 2", "/", q=query, page="2")
                    await self._look()
                if images := re.findall(r'href="(/image/\d+\?[^"]*)"', page):
                    await self._get("image", self._draw.choice(images).replace("&amp;", "&"))
                    await self._look()

    def query(self) -> str:
        """A query: one to three words, or columns, some counted or excluded."""
        first, second, third = (self._word() for _ in range(3))
        form = self._draw.choices(
            [
                "{0}",
                "{0} {1}",
                "{0}.score>0.6",
                "{0} -{1}",
                "{0} OR {1}",
                "{0} photographer=Ann",
                "{0} {1} -{2}",
                "error:*",
            ],
            [30, 25, 10, 10, 5, 10, 7, 3],
        )[0]
        return form.format(first, second, third)

    def _word(self) -> str:
        word = self._draw.choices(WORDS, [1 / (n + 1) for n in range(len(WORDS))])[0]
        return f'"{word}"' if " " in word else word

    async def _look(self) -> None:
        await asyncio.sleep(self._draw.uniform(0.5, 1.5) * self._think_s)

    async def _get(self, kind: str, path: str, **values: str) -> str:
        began = time.monotonic()
        try:
            answer = await self._client.get(path, params=values or None)
        except httpx.HTTPError as error:
            self._lost[f"{kind}: {type(error).__name__}"] += 1
            return ""
        self._times[kind].append(time.monotonic() - began)
        if answer.status_code != 200:
            self._lost[f"{kind}: {answer.status_code}"] += 1
        return answer.text


async def measure(
    address: str, users: int, seconds: float, think_s: float
) -> tuple[dict[str, Any], Counter[str]]:
    """The seconds of each answer by kind, and what was lost."""
    times: dict[str, list[float]] = defaultdict(list)
    lost: Counter[str] = Counter()
    until = time.monotonic() + seconds
    every = [User(address, number, think_s, times, lost) for number in range(users)]
    await asyncio.gather(*(user.search(until) for user in every))
    return times, lost


def main() -> None:
    """Prints the answers a second, the median and the 95th percentile of each kind, and what was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--think", type=float, default=2, help="seconds that a user looks at an answer")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    with serving(options.output) as (address, server):
        began = sum(server.cpu_times()[:2])
        times, lost = asyncio.run(measure(address, options.users, options.seconds, options.think))
        cpu_s = sum(server.cpu_times()[:2]) - began
    print(f"{options.users} users, {options.think:g} s between answers")
    had = cpu_s / options.seconds
    print(f"{os.cpu_count()} cores, of which the server had {had:.2f}; load before {before:.1f}")
    every = [one for kind, all_ in times.items() if kind != "facets" for one in all_]
    for kind, all_ in [*times.items(), ("all but facets", every)]:
        high = quantiles(all_, n=20)[-1] if len(all_) > 1 else all_[0]
        print(
            f"{kind:14} {len(all_):6,} answers, {len(all_) / options.seconds:6.1f}/s, "
            f"median {median(all_) * 1e3:6.0f} ms, 95% under {high * 1e3:6.0f} ms"
        )
    answers = sum(map(len, times.values()))
    print(f"{cpu_s / max(answers, 1) * 1e3:.0f} ms of a core an answer; lost: {dict(lost) or 'nothing'}")


if __name__ == "__main__":
    main()
