from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.run.budget import FailureLimits, check_budget, check_models, is_no_host_left, is_refused
from schemas.errors import ErrorCode, RowError, Stage
from schemas.exceptions import FailureBudgetError, ModelError, StorageError
from schemas.metrics import Usage
from schemas.plan import Pass, Plan
from tests.workers.tables.made_results import record
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.state import PassState
from workers.manifest.files import ManifestFile
from workers.manifest.manifest import Manifest
from workers.storage.store import Store
from workers.tables.results import LabelledImage, results_table


@pytest.mark.parametrize(
    ("limit", "failed", "done", "rows", "stops"),
    [
        (None, 100, 100, 100, False),
        (0, 0, 10, 100, False),
        (0, 1, 10, 100, True),
        (5, 5, 10, 100, False),
        (5, 6, 10, 100, True),
        (0.1, 10, 10, 100, False),
        (0.1, 11, 11, 100, True),
        (0.1, 101, 999, 1_000_000, False),
        (0.1, 101, 1_000, 1_000_000, True),
        (0.0, 1, 1, 10, True),
    ],
)
def test_a_run_stops_when_more_failed_than_the_budget(
    limit: float | None, failed: int, done: int, rows: int, stops: bool
) -> None:
    try:
        check_budget(limit, {"TIMEOUT": failed}, done, rows)
    except FailureBudgetError:
        assert stops
    else:
        assert not stops


def test_the_message_counts_the_codes_and_says_what_to_do() -> None:
    with pytest.raises(FailureBudgetError) as raised:
        check_budget(2, {"TIMEOUT": 1, "NOT_FOUND": 2000}, 5000, 10_000)
    assert str(raised.value) == (
        "stopped: 2,001 of the 5,000 images done have failed (2,000 NOT_FOUND, 1 TIMEOUT), and max_failed is "
        "2. What is committed stays. Fix the cause of the errors and run in a new output; or raise "
        "max_failed and run the same command to resume"
    )


@pytest.mark.parametrize(
    ("failed", "done", "rows", "stops"),
    [
        ({"NON_FINITE": 31}, 31, 100, False),
        ({"NON_FINITE": 32}, 32, 100, True),
        ({"NON_FINITE": 32}, 33, 100, False),  # one was labelled
        ({"MODEL_ERROR": 20, "WORKER_CRASHED": 12, "NOT_FOUND": 500}, 532, 1_000, True),
        ({"NOT_FOUND": 500}, 500, 1_000, False),
        ({"MODEL_ERROR": 7}, 7, 7, True),
        ({"MODEL_ERROR": 6, "TRUNCATED": 1}, 7, 7, False),
        ({}, 0, 100, False),
    ],
)
def test_a_run_stops_when_the_models_fail_on_every_image_that_they_are_given(
    failed: dict[str, int], done: int, rows: int, stops: bool
) -> None:
    try:
        check_models(failed, done, rows, str)
    except ModelError:
        assert stops
    else:
        assert not stops


def test_a_model_at_fault_is_blamed_with_an_example() -> None:
    with pytest.raises(ModelError) as raised:
        check_models(
            {"NOT_FOUND": 3, "NON_FINITE": 60, "MODEL_ERROR": 4}, 67, 1_000, lambda code: f"a {code} image"
        )
    assert str(raised.value) == (
        "stopped: the models failed on each of the 64 images that they were given (60 NON_FINITE, "
        "4 MODEL_ERROR), so the cause is the models, not the images. One of the failures: a NON_FINITE "
        "image. Fix the model, its weights or its settings, and run in a new output or with --restart"
    )


@pytest.mark.parametrize(
    ("failed", "done", "rows", "stops"),
    [
        ({"DENIED": 31}, 31, 100, False),
        ({"DENIED": 32}, 32, 100, True),
        ({"DENIED": 20, "EXPIRED": 12}, 32, 100, True),
        ({"DENIED": 32}, 33, 100, False),  # one was read
        ({"DENIED": 32, "NOT_FOUND": 1}, 33, 100, False),  # whoever is told so may look
        ({"DENIED": 4}, 4, 4, True),
        ({}, 0, 100, False),
    ],
)
def test_a_run_stops_when_the_store_refuses_every_image(
    failed: dict[str, int], done: int, rows: int, stops: bool
) -> None:
    assert is_refused(failed, done, rows) is stops


@pytest.mark.parametrize(
    ("refused", "pending", "stops"),
    [
        ({"https://a"}, {"https://a"}, True),
        ({"https://a"}, {"https://a", "https://b"}, False),  # sorted by server: the next one may let it in
        ({"https://a"}, {"https://b"}, False),
        ({"https://a", "https://b"}, {"https://b"}, True),
        ({f"https://{n}" for n in range(8)}, {"https://other"}, True),  # no proxy, no network
        ({f"https://{n}" for n in range(7)}, {"https://other"}, False),
    ],
)
def test_servers_that_refuse_stand_for_those_still_to_ask(
    refused: set[str], pending: set[str], stops: bool
) -> None:
    assert is_no_host_left(refused, pending) is stops


ROWS, AT = 400, datetime(2026, 1, 2, tzinfo=UTC)
PLAN = Plan(rows=ROWS, unit_rows=40, shard_units=100)


def refuse_unit(run: RunDirectory, state: PassState, manifest: Manifest, unit: int) -> None:
    """Commits a unit of which every image was refused."""
    rows = list(run.current.rows_of_unit(unit))
    errors: list[LabelledImage | RowError] = [
        RowError(Stage.FETCH, ErrorCode.DENIED, "status 403", 1, AT) for _ in rows
    ]
    table = results_table(unit, manifest.read(rows).for_results(), errors, run.tables)
    for commit in commit_results(run, 1, table):
        state.add(commit)


NO_COLUMNS = pa.schema([])


def started(folder: Path, uris: list[str]) -> tuple[RunDirectory, PassState, Manifest, FailureLimits]:
    """A run over URIs, without a row done."""
    pq.write_table(pa.table({"uri": uris}), folder / "m.parquet")
    manifest = Manifest(
        [ManifestFile(str(folder / "m.parquet"), (len(uris),), ("uri",), str(folder))],
        "uri",
        None,
        NO_COLUMNS,
    )
    spec = record(plan=PLAN, detector=None)
    run = RunDirectory(Store(str(folder / "out")), spec, Pass(PLAN), NO_COLUMNS)
    return run, PassState(run), manifest, FailureLimits(None, run, manifest)


def test_a_list_sorted_by_server_does_not_end_for_its_first_one(tmp_path: Path) -> None:
    uris = [f"https://{'a' if n < 130 else 'b'}.example/{n}.jpg?key=1" for n in range(ROWS)]
    run, state, manifest, limits = started(tmp_path, uris)
    for unit in (0, 1, 2):
        refuse_unit(run, state, manifest, unit)
        limits.on_progress(state, Usage())
    for unit in (3, 4, 5):
        refuse_unit(run, state, manifest, unit)
    with pytest.raises(StorageError, match=r"refused each of the first 240 images .* status 403"):
        limits.on_progress(state, Usage())


def test_a_list_of_one_bucket_ends_as_soon_as_it_refuses(tmp_path: Path) -> None:
    run, state, manifest, limits = started(tmp_path, [f"s3://bucket/{n}.jpg" for n in range(ROWS)])
    refuse_unit(run, state, manifest, 0)
    with pytest.raises(StorageError, match="refused each of the first 40 images"):
        limits.on_progress(state, Usage())
