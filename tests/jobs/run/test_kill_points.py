"""Nothing lost, nothing twice: the ledger's protocol killed at every change of the store that it makes.

`plain_driver` runs the pipeline without models and Ray. The fast tests die once at every kind of change, at
seeded places; the slow ones at every change, before, amid and after it.
"""

import contextlib
import functools
import itertools
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.tables import TABLES
from tests.jobs.run.plain_driver import ROWS, Death, Doing, Done, Kind, Moment, finish, start, write_manifest
from tests.s3 import S3Server
from tests.s3_proxy import Exchange, proxying
from tests.workers.tables.made_results import CARRIED
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import read_run
from workers.ledger.state import PassState, read_success
from workers.storage.store import Store

TWO_UNITS = {"rows": 17, "shard_rows": 17}
"""In two shards."""

Files = dict[str, list[dict[str, Any]]]
"""The rows of each file of the tables, by key: what a reader sees."""


@dataclass(frozen=True)
class Point:
    """A moment to die at, and what is changed then."""

    death: Death
    what: str

    def __str__(self) -> str:
        return f"{self.death.moment} change {self.death.number}: {self.what}"


class Disk:
    """Run directories on this disk; processes die at their own calls."""

    units = {"rows": 4, "shard_rows": 12}  # noqa: RUF012
    """Of thirty-four rows: nine units in three shards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = itertools.count()
        self.manifest = write_manifest(folder)
        self.environment: dict[str, str] = {}

    def new(self, start: Store | None = None) -> Store:
        """A directory that is empty, or as another one is."""
        store = Store(str(self._folder / f"out{next(self._count)}"))
        if start:
            shutil.copytree(start.root, store.root)
        return store

    def forget(self, store: Store) -> None:
        """Deletes a directory."""
        shutil.rmtree(store.root, ignore_errors=True)

    def doing(self, kind: Kind, store: Store, units: dict[str, int]) -> Doing:
        """A command on a directory."""
        trace = self._folder / f"trace{next(self._count)}"
        return Doing(kind, store.url, self.manifest, units, trace, environment=self.environment)

    def die(self, doing: Doing, death: Death) -> Done:
        """Runs a command until it dies."""
        return killed(finish(replace(doing, death=death)))

    def changes(self, doing: Doing) -> list[str]:
        """The changes that a command makes, run to its end: verb and what kind of key."""
        done = finish(doing)
        assert done.exit_code == 0, done.trace
        return named([re.sub(r"^(rmdir) \d+$", r"\1 pass", change) for change in done.changes])


class Bucket(Disk):
    """Run directories on a real S3 server; the proxy before it kills."""

    units = {"rows": 6, "shard_rows": 18}  # noqa: RUF012
    """Six units in two shards: requests take longer."""

    def __init__(self, folder: Path, direct: S3Server) -> None:
        super().__init__(folder)
        self._bucket = direct.new_bucket()
        self.environment = direct.environment
        self.scythe = Scythe()
        self.proxied: dict[str, str] = {}

    def new(self, start: Store | None = None) -> Store:
        store = Store(f"s3://{self._bucket}/out{next(self._count)}")
        for key in start.list("") if start else []:
            store.write(key, start.read(key))
        return store

    def forget(self, store: Store) -> None:
        store.clear("")

    def doing(self, kind: Kind, store: Store, units: dict[str, int]) -> Doing:
        # no heartbeat by the clock: on a slow machine there were more requests to count than the next time
        return replace(super().doing(kind, store, units), heartbeat_s=60)

    def die(self, doing: Doing, death: Death) -> Done:
        self.scythe.begin(death)
        return killed(finish(replace(doing, environment=self.proxied)))

    def changes(self, doing: Doing) -> list[str]:
        self.scythe.begin(None)
        done = finish(replace(doing, environment=self.proxied))
        assert done.exit_code == 0, done.trace
        return named(self.scythe.seen)


@dataclass
class Scythe:
    """Counts the requests that change a store, and kills the client of one."""

    death: Death | None = None
    seen: list[str] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)

    def begin(self, death: Death | None) -> None:
        """From now on counts from 0."""
        self.death = death
        self.seen = []

    def at(self, moment: Moment) -> Callable[[Exchange], None]:
        """The hook of a moment."""

        def hook(exchange: Exchange) -> None:
            if not exchange.changes:
                return
            if moment == "before":
                self._numbers[id(exchange)] = len(self.seen)
                key = min(exchange.paths).split("/", 2)[2]
                self.seen.append(f"{exchange.method.lower()} {key}")
            if self.death == Death(self._numbers[id(exchange)], moment):
                exchange.kill_client()

        return hook


def killed(done: Done) -> Done:
    """A process that did die."""
    assert done.exit_code == -signal.SIGKILL, done.trace
    return done


def named(changes: list[str]) -> list[str]:
    """The kind of each change: a temporary file is named after what becomes of it."""
    names = [
        re.sub(
            r"[0-9a-f]{32}|\d{8}T\d{6}-\w{8}|[\d-]+\d-\w+(?=\.)|(?<=-)\w{12}(?=\.)|\d+(-\w{32})?", "N", each
        )
        for each in changes
    ]
    for number, name in enumerate(names):
        if name.startswith("fsync "):
            names[number] = f"make {names[number + 1]}"
        elif re.match(r"unlink .*/tmp/N", name):
            names[number] = f"made {names[number - 1]}"
    return names


def points(changes: list[str], times: int | None, seed: int) -> list[Point]:
    """Moments to die at: all that differ, or some, each at another kind of change while there are kinds.

    Nothing is changed between the end of one change and the beginning of the next.
    """
    every = [Point(Death(0, "before"), changes[0])]
    for number, what in enumerate(changes):
        halves: list[Moment] = ["half"] if what.startswith(("make ", "put ")) else []
        every += [Point(Death(number, moment), what) for moment in (*halves, "after")]
    if times is None:
        return every
    random.Random(seed).shuffle(every)
    firsts = list({point.what: point for point in reversed(every)}.values())
    return (firsts + [point for point in every if point not in firsts])[:times]


@functools.lru_cache(1000)
def rows_in(data: bytes) -> list[dict[str, Any]]:
    """The rows of a Parquet file, which must be whole, without the run that they are of."""
    table = pq.read_table(pa.BufferReader(data)).drop_columns(["run_id"])
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def seen(store: Store) -> Files:
    """All that a reader finds in the folders of the tables."""
    return {key: rows_in(store.read(key)) for table in TABLES for key in store.list(table)}


def counted(files: Files) -> dict[str, int]:
    """Rows of each table."""
    found = Counter(dict.fromkeys(TABLES, 0))
    for key, rows in files.items():
        found[key.split("/")[0]] += len(rows)
    return dict(found)


def assert_whole(store: Store, *versions: Files) -> None:
    """What a reader sees are whole shards, and where the run is marked complete, all of them."""
    files, success = seen(store), read_success(store)
    for key, rows in files.items():
        assert any(version.get(key) == rows for version in versions), key
    if success is not None:
        assert files in versions
        assert success == counted(files)


def assert_complete(store: Store, expected: Files) -> None:
    """The tables are these and no others, and the run is marked complete."""
    assert seen(store) == expected
    assert read_success(store) == counted(expected)


def pending(store: Store) -> list[int] | None:
    """The units that the newest pass still has to do; None where no pass is begun and not complete."""
    record = read_run(store)
    if record is None or read_success(store):
        return None
    return [int(unit) for unit in PassState.read(RunDirectory.first(store, record, CARRIED).newest()).pending]


def go_on(place: Disk, kind: Kind, store: Store, units: dict[str, int]) -> None:
    """Runs a command to its end: it does what is left, without waiting for the dead."""
    left = pending(store) if kind != "restart" else None
    done = finish(place.doing(kind, store, units))
    assert (done.exit_code, done.words) == (0, "")
    if left is not None:
        assert done.units == left


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """Where run directories are."""
    if request.param == "disk":
        yield Disk(tmp_path)
        return
    server: S3Server = request.getfixturevalue("s3")
    bucket = Bucket(tmp_path, server)
    scythe = bucket.scythe
    with proxying(
        server, before=scythe.at("before"), halfway=scythe.at("half"), after=scythe.at("after")
    ) as proxied:
        bucket.proxied = proxied.environment
        yield bucket


def complete(place: Disk, units: dict[str, int]) -> Store:
    """A run that nobody disturbed."""
    store = place.new()
    go_on(place, "run", store, units)
    return store


def at(disk: int, s3: int | None) -> pytest.MarkDecorator:
    """Where a test is done, and at how many points; all of them, and those in buckets, are slow."""
    slow = pytest.mark.slow
    return pytest.mark.parametrize(
        ("place", "times"),
        [
            pytest.param("disk", disk, id="disk"),
            pytest.param("disk", None, id="disk-all", marks=slow),
            pytest.param("s3", s3, id="s3", marks=slow),
        ],
        indirect=["place"],
    )


def assert_passed_through(changes: list[str], kinds: list[str]) -> None:
    """What a command changes is what it is killed at: nothing is left out of the tests unseen."""
    verbs = {"link": "add", "replace": "add", "put": "add", "unlink": "delete", "post": "delete"}
    found = {f"{verbs.get(verb, verb)} {key}" for verb, key in (each.split(" ", 1) for each in changes)}
    found |= {each.rpartition("/")[0] for each in found if each.startswith("delete _work")}
    assert [kind for kind in kinds if kind not in found] == [], sorted(found)


def try_all(points: list[Point], attempt: Callable[[Point], None]) -> None:
    """Tries every point, and fails with all that went wrong."""
    wrong = []
    for point in points:
        try:
            attempt(point)
        except Exception as error:
            error.add_note(f"killed {point}")
            wrong.append(error)
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} of {len(points)} points", wrong)


@at(disk=24, s3=None)
def test_a_run_killed_anywhere_goes_on_to_the_same_tables(place: Disk, times: int | None) -> None:
    undisturbed = place.new()
    changes = place.changes(place.doing("run", undisturbed, place.units))
    expected = seen(undisturbed)
    assert len(expected) == len(TABLES) * (3 if type(place) is Disk else 2)
    assert_complete(undisturbed, expected)
    assert_passed_through(changes, RUN)
    entries = [what for what in changes if re.match("(link|put) _work/N/commits/", what)]
    assert len(entries) > -(-ROWS // place.units["rows"])  # some were merged

    def attempt(point: Point) -> None:
        store = place.new()
        place.die(place.doing("run", store, place.units), point.death)
        assert_whole(store, expected)
        go_on(place, "run", store, place.units)
        assert_complete(store, expected)
        place.forget(store)

    try_all(points(changes, times, seed=1), attempt)


@at(disk=8, s3=20)
def test_a_retry_killed_anywhere_goes_on_to_the_same_tables(place: Disk, times: int | None) -> None:
    start = complete(place, place.units)
    undisturbed = place.new(start)
    changes = place.changes(place.doing("retry", undisturbed, place.units))
    before, after = seen(start), seen(undisturbed)
    assert before != after
    assert_complete(undisturbed, after)
    assert_passed_through(changes, RETRY)
    chance = random.Random(6)

    def attempt(point: Point) -> None:
        store = place.new(start)
        place.die(place.doing("retry", store, place.units), point.death)
        assert_whole(store, before, after)
        if chance.random() < 0.5:
            found = seen(store) if read_success(store) else after
            go_on(place, "run", store, place.units)
            assert_complete(store, found)
        go_on(place, "retry", store, place.units)
        assert_complete(store, after)
        place.forget(store)

    try_all(points(changes, times, seed=2), attempt)


@at(disk=8, s3=20)
@pytest.mark.parametrize("old_is", ["complete", "killed"])
def test_a_restart_killed_anywhere_leaves_no_row_of_the_old_run(
    place: Disk, old_is: str, times: int | None
) -> None:
    start = complete(place, place.units)
    old, new = seen(start), seen(complete(place, TWO_UNITS))
    if old_is == "killed":
        changes = place.changes(place.doing("run", place.new(), place.units))
        _, second, *_ = (n for n, what in enumerate(changes) if re.match("(link|put) _work/N/publ", what))
        start = place.new()
        place.die(place.doing("run", start, place.units), Death(second, "before"))
        assert 0 < len(seen(start)) < len(old)
    undisturbed = place.new(start)
    changes = place.changes(place.doing("restart", undisturbed, TWO_UNITS))
    assert_complete(undisturbed, new)
    assert_passed_through(changes, RESTART)
    chance = random.Random(7)

    def attempt(point: Point) -> None:
        store = place.new(start)
        place.die(place.doing("restart", store, TWO_UNITS), point.death)
        assert_whole(store, old, new)
        then: Kind = chance.choice(["run", "restart"])
        if then == "run" and read_run(store) == read_run(start):
            refused = finish(place.doing("run", store, TWO_UNITS))
            assert "raised OutputConflictError: " in refused.words
            assert_whole(store, old)
            go_on(place, "restart", store, TWO_UNITS)
        else:
            go_on(place, then, store, TWO_UNITS)
        assert_complete(store, new)
        place.forget(store)

    try_all(points(changes, times, seed=3), attempt)


@pytest.mark.parametrize(
    "times", [pytest.param(5, id="some"), pytest.param(100, id="many", marks=pytest.mark.slow)]
)
def test_a_run_killed_twice_goes_on_to_the_same_tables(tmp_path: Path, times: int) -> None:
    place = Disk(tmp_path)
    undisturbed = place.new()
    changes = place.changes(place.doing("run", undisturbed, place.units))
    expected = seen(undisturbed)
    chance = random.Random(4)
    every = points(changes, None, seed=4)

    def attempt(point: Point) -> None:
        store, second = place.new(), chance.choice(every)
        place.die(place.doing("run", store, place.units), point.death)
        finish(replace(place.doing("run", store, place.units), death=second.death))  # it may be done before
        assert_whole(store, expected)
        go_on(place, "run", store, place.units)
        assert_complete(store, expected)
        place.forget(store)

    try_all(chance.sample(every, times), attempt)


def test_a_run_that_is_told_of_no_change_the_first_time_ends_with_the_same_tables(
    s3: S3Server, tmp_path: Path
) -> None:
    place = Bucket(tmp_path, s3)
    expected = seen(complete(place, place.units))
    told: set[tuple[str, str]] = set()

    def lose(exchange: Exchange) -> None:
        """Each change takes effect, and its answer is lost; the client asks again."""
        change = (exchange.method, min(exchange.paths))
        if exchange.changes and change not in told:
            told.add(change)
            exchange.drop()

    store = place.new()
    with proxying(s3, after=lose) as proxied:
        done = finish(replace(place.doing("run", store, place.units), environment=proxied.environment))
    assert done.exit_code == 0, done.trace
    assert "does not refuse to overwrite" not in done.words
    assert done.units == list(range(6))
    assert len(told) > 40
    assert_complete(store, expected)


COMMITTING = [
    *(f"add _work/N/parts/N/shard-N/N.{table}-N.parquet" for table in TABLES),
    "add _work/N/commits/N/shard-N/N.json",
]
PUBLISHING = [
    "add _work/N/publications/N/shard-N.json",
    *(f"add {table}/shard-N.parquet" for table in TABLES),
    "add _work/N/shards/shard-N.json",
    "delete _work/N/commits/N/shard-N",
    "delete _work/N/parts/N/shard-N",
]
BEGINNING = ["add _work/N/attempts/N.json", "add _work/N/heartbeats/N.json"]
FINISHING = ["add _SUCCESS", "delete _work/N/publications/N"]
RUN = ["add _work/manifest/N/N.json", "add run.json", *BEGINNING, *COMMITTING, *PUBLISHING, *FINISHING]
RETRY = ["add _work/N/retries/N.json", "delete _SUCCESS", *BEGINNING, *COMMITTING, *PUBLISHING, *FINISHING]
CLEARING = ["delete labels/shard-N.parquet", "delete _work/N/attempts"]
"""A multi-object delete is known by its first key."""
RESTART = ["delete _SUCCESS", "add run.json", *BEGINNING, *CLEARING, *COMMITTING, *PUBLISHING, *FINISHING]


@pytest.mark.parametrize(
    "more", [pytest.param(0, id="publishing"), pytest.param(20, id="many", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("meanwhile", ["retry", pytest.param("restart", marks=pytest.mark.slow)])
def test_an_attempt_that_slept_writes_nothing_over_what_came_after_it(
    tmp_path: Path, meanwhile: Kind, more: int
) -> None:
    place = Disk(tmp_path)
    undisturbed = place.new()
    changes = place.changes(place.doing("run", undisturbed, place.units))
    units = TWO_UNITS if meanwhile == "restart" else place.units
    go_on(place, meanwhile, undisturbed, units)
    expected = seen(undisturbed)

    def attempt(point: Point) -> None:
        store = place.new()
        doing = place.doing("run", store, place.units)
        with asleep(
            replace(doing, heartbeat_s=0.2, death=replace(point.death, signal=signal.SIGSTOP))
        ) as zombie:
            if meanwhile == "retry":
                assert finish(place.doing("run", store, place.units)).exit_code == 0
            assert finish(place.doing(meanwhile, store, units)).exit_code == 0
            assert_complete(store, expected)
            record = read_run(store)
            zombie.resume()
            zombie.wait(30)
        assert_complete(store, expected)
        assert read_run(store) == record
        go_on(place, "run", store, units)
        assert_complete(store, expected)
        place.forget(store)

    def in_time(point: Point) -> bool:
        """Not between looking and writing: there older rows do replace newer ones."""
        late = re.fullmatch(rf"(make )?replace ({'|'.join(TABLES)}|_work/N/shards)/.*", point.what)
        return not late or (point.what.startswith("replace") and point.death.moment == "after")

    awake = [p for p in points(changes, None, seed=5) if p.death.moment == "after" and in_time(p)]
    firsts = list({p.what: p for p in reversed(awake)}.values())
    publishing = [p for p in firsts if re.fullmatch("replace .*shard-N.(parquet|json)", p.what)]
    assert len(publishing) == len(TABLES) + 1
    try_all(publishing + random.Random(5).sample(firsts, more), attempt)


@contextlib.contextmanager
def asleep(doing: Doing) -> Iterator[psutil.Process]:
    """A process that stops in the middle of what it does, for the length of a block."""
    process = start(doing)
    try:
        assert process.pid
        sleeper = psutil.Process(process.pid)
        end = time.monotonic() + 30
        while sleeper.status() != psutil.STATUS_STOPPED and time.monotonic() < end:
            time.sleep(0.01)
        assert sleeper.status() == psutil.STATUS_STOPPED
        yield sleeper
    finally:
        process.kill()
        process.join()
        process.close()
