import pickle
from pathlib import Path

import numpy as np
import pytest

from schemas.ledger import Attempt, Retry, Shard, SourceFile, StagedFile
from schemas.plan import Pass
from schemas.tables import TABLES
from tests.workers.tables.made_results import AT, CARRIED, PLAN, record
from workers.ledger.directory import RunDirectory
from workers.storage.store import Store


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.first(Store(str(tmp_path)), record(), CARRIED)


def attempt(number: int) -> Attempt:
    return Attempt(number=number, started_at=AT, host="there", pid=7, machine="there", process_started=0)


def shard(number: int, retry: int = 0) -> Shard:
    files = {name: StagedFile(key=f"{name}/x.parquet", rows=0, size=0, sha256="") for name in TABLES}
    return Shard(shard=number, retry=retry, files=files, failed={}, errors={})


def test_a_record_is_found_by_its_kind_and_place_and_replaced_by_the_next(run: RunDirectory) -> None:
    assert run.get(Shard, 1) is None
    run.put(shard(1))
    run.put(shard(1, retry=1))
    assert run.get(Shard, 1) == shard(1, retry=1)
    assert run.get(Shard, 2) is None


def test_a_record_is_created_once(run: RunDirectory) -> None:
    assert run.create(attempt(1))
    other = attempt(1).model_copy(update={"pid": 8})
    assert not run.create(other)
    assert run.get(Attempt, 1) == attempt(1)


def test_records_are_listed_in_order_and_those_that_are_gone_are_left_out(run: RunDirectory) -> None:
    assert (run.list(Attempt), run.last(Attempt)) == ([], None)
    for number in (2, 10, 1):
        run.create(attempt(number))
    keys = run.list(Attempt)
    assert [found.number for found in run.read(Attempt)] == [1, 2, 10]
    assert run.last(Attempt) == attempt(10)
    run.ledger.delete([keys[1]])
    assert [found.number for found in run.read(Attempt, keys)] == [1, 10]


def test_the_newest_pass_is_the_last_retry(run: RunDirectory) -> None:
    assert (run.retry, run.newest().retry, list(run.passes())) == (0, 0, [0])
    for number, rows in ((1, [(3, 5)]), (2, [(7, 8)])):
        run.create(Retry(number=number, codes=["TIMEOUT"], rows=rows))
    assert (run.newest().retry, list(run.newest().current.rows_of_shard(0))) == (2, [7])
    expected = {0: Pass(PLAN), 1: Pass(PLAN, np.array([3, 4]), 1), 2: Pass(PLAN, np.array([7]), 2)}
    assert {number: (p.retry, p.size) for number, p in run.passes().items()} == {
        number: (p.retry, p.size) for number, p in expected.items()
    }


def test_what_workers_get_pickles_small_and_finds_the_same_records(run: RunDirectory) -> None:
    files = [SourceFile(uri=f"s3://bucket/{n}.parquet", size=n, version="1") for n in range(1000)]
    large = RunDirectory.first(run.store, record(manifest=files), CARRIED)
    large.put(shard(0))
    sent = pickle.dumps(large.for_workers())
    assert len(sent) < 5_000 < len(pickle.dumps(large))
    arrived: RunDirectory = pickle.loads(sent)
    assert (arrived.get(Shard, 0), arrived.plan, arrived.carried) == (shard(0), PLAN, CARRIED)
