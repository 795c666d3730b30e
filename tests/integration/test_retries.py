"""Tasks, actors and nodes that are lost in the middle are done again by Ray, with other outcomes: no row
is lost or doubled."""

import contextlib
import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.image_server import ImageServer, serving
from tests.integration.killing import Attempt
from tests.integration.nodes import Nodes, running_nodes
from tests.s3 import S3Server
from tests.s3_proxy import Exchange, proxying
from workers.storage.store import Store

pytestmark = pytest.mark.slow

IMAGES = 48


@pytest.fixture
def server(photos: Path) -> Iterator[ImageServer]:
    """Refuses every third image each first, third, ... time that it is asked for it."""
    with serving(photos) as server:
        server.answer = lambda path, before, _port: (
            503 if int(path.split("/")[1]) % 3 == 0 and before % 2 == 0 else 200
        )
        yield server


def job(server: ImageServer, photos: Path, folder: Path, output: str) -> list[str]:
    """The command for a job over photos on the web, in units of four, each tried once."""
    names = itertools.islice(itertools.cycle(sorted(path.name for path in photos.glob("*.[pj]*g"))), IMAGES)
    uris = [server.url(f"{n}/{name}") for n, name in enumerate(names)]
    pq.write_table(pa.table({"uri": uris}), folder / "m.parquet")
    settings = ["units.rows=4", "units.shard_rows=16", "fetch.attempts=1", "fetch.throttle_timeout_s=0"]
    return [
        *("run", "--manifest", str(folder / "m.parquet"), "--output", output, "--detector", "none"),
        *(part for setting in settings for part in ("--set", setting)),
    ]


def with_nodes(proxied: S3Server) -> contextlib.AbstractContextManager[Nodes]:
    """A cluster of two workers that reach the store through a proxy."""
    environment: dict[str, Any] = {**proxied.environment}
    return running_nodes(2, **environment)


def assert_every_row_is_there_once(store: Store) -> None:
    found = [table for name in ("labels", "errors") for table in store.read_tables(store.list(name))]
    ids = [index for table in found for index in table["manifest_index"].to_pylist()]
    assert sorted(ids) == list(range(IMAGES))
    codes = {code for table in found if "code" in table.column_names for code in table["code"].to_pylist()}
    assert codes <= {"THROTTLED"}


class Killer:
    """Kills the client of one request at each step of a commit, and counts the steps."""

    STEPS = tuple(
        (moment, kind)
        for kind in (".labels-", ".boxes-", ".errors-", "/commits/")
        for moment in ("before", "halfway", "after")
    )

    def __init__(self) -> None:
        self.killed: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def at(self, moment: str, exchange: Exchange) -> None:
        """Kills the client where this step was not tried yet."""
        with self._lock:
            for step in self.STEPS:
                mine = step[0] == moment and step[1] in exchange.path and exchange.method == "PUT"
                if mine and not self.killed[step]:
                    self.killed[step] += 1
                    exchange.kill_client()
                    return


def test_commits_killed_at_every_step_and_actors_killed_lose_and_double_nothing(
    server: ImageServer, photos: Path, tmp_path: Path, s3: S3Server
) -> None:
    output, killer = f"s3://{s3.new_bucket()}/out", Killer()
    hooks = {
        moment: lambda exchange, moment=moment: killer.at(moment, exchange)
        for moment in ("before", "halfway", "after")
    }
    with proxying(s3, **hooks) as proxied:
        command = job(server, photos, tmp_path, output)
        with Attempt(*command, **proxied.environment) as attempt:
            attempt.wait_until(lambda: Store(output).list("_work"))
            attempt.wait_until(lambda: killer.killed)
            assert attempt.kill("actor", random.Random(1))
            code, _, complaint = attempt.end()
        assert (code, complaint) == (0, "")
    assert killer.killed == Counter(Killer.STEPS)
    assert_every_row_is_there_once(Store(output))


def test_units_lost_with_a_node_are_made_again_and_no_row_is_lost_or_doubled(
    server: ImageServer, photos: Path, tmp_path: Path, s3: S3Server
) -> None:
    output = f"s3://{s3.new_bucket()}/out"
    held, go_on = threading.Semaphore(0), threading.Event()

    def hold(exchange: Exchange) -> None:
        """Keeps commits waiting."""
        if exchange.method == "PUT" and "/parts/" in exchange.path:
            held.release()
            go_on.wait(120)

    with proxying(s3, before=hold) as proxied, with_nodes(proxied) as nodes:
        command = job(server, photos, tmp_path, output)
        address = ["--address", nodes.address, "--set", "compute.actors=2"]
        with Attempt(*command, *address, **proxied.environment) as attempt:
            for _ in range(2):
                assert held.acquire(timeout=120)
            nodes.kill(0)
            go_on.set()
            code, _, complaint = attempt.end()
        assert (code, complaint) == (0, "")
    assert max(server.requests.values()) > 1, "nothing was made again"
    assert_every_row_is_there_once(Store(output))
