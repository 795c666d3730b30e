import dataclasses
import functools
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import Stage
from schemas.exceptions import ModelError
from schemas.plan import Pass, Plan
from schemas.spec import ComputeSpec, DecodeSpec, FetchSpec
from schemas.tables import RunTables
from schemas.tasks import ClassifierSpec
from tests.poison import CRASH_MARK, ENDLESS_MARK, killed_by, paint
from tests.workers.label.models import settings_of_models
from workers import logs
from workers.label.settings import LabelSettings
from workers.label.supervise import MAX_ATTEMPTS, LabelUnits, longest_s, split_point
from workers.manifest.convert import write_parquet
from workers.manifest.manifest import Manifest
from workers.process import memory
from workers.process.child import HANG_TIMEOUT_S
from workers.process.forkserver import shared_fork_server


@pytest.fixture
def folder(tmp_path: Path, photos: Path) -> Path:
    """Coloured images, a photo that is fine and one that crashes the decoder."""
    paint(tmp_path)
    photo = (photos / "china.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(photo)
    (tmp_path / "crash.jpg").write_bytes(photo[:2] + CRASH_MARK + photo[2:])
    (tmp_path / "endless.jpg").write_bytes(photo[:2] + ENDLESS_MARK + photo[2:])
    return tmp_path


def settings_of(folder: Path, names: list[str], **changes: Any) -> LabelSettings:
    """A job over some images, in units of eight and batches of two."""
    rows = [{"uri": f"{folder}/{name}"} for name in names]
    job = LabelSettings(
        manifest=Manifest(write_parquet(rows, str(folder / "m"), ""), "uri", None, pa.schema([])),
        current=Pass(Plan(rows=len(rows), unit_rows=8, shard_units=10)),
        **settings_of_models(ClassifierSpec(model="tests.poison:poisoned")),
        fetch=FetchSpec(),
        storage={},
        decode=DecodeSpec(),
        compute=ComputeSpec(batch_size=2),
        device="cpu",
        runtime="auto",
        threads=1,
        memory_share=1,
        fork_server=shared_fork_server().address,
    )
    return dataclasses.replace(job, **changes)


@pytest.fixture
def units(folder: Path, request: pytest.FixtureRequest) -> Iterator[LabelUnits]:
    """An actor for the images that a test is parametrized with."""
    with closing(LabelUnits(settings_of(folder, request.param))) as units:
        yield units


def outcomes(results: pa.Table) -> list[str]:
    """The label of each row, or its stage and code."""
    pairs = zip(results["label"].to_pylist(), results["error"].to_pylist(), strict=True)
    return [label or f"{error['stage']} {error['code']}" for label, error in pairs]


@pytest.mark.parametrize("units", [["grey.png"] * 9 + ["blue.png"]], indirect=True)
def test_units_become_results_without_a_cluster(units: LabelUnits) -> None:
    results = pa.concat_tables([units(1), units(0)])
    assert results.schema == RunTables().results
    assert results["manifest_index"].to_pylist() == [8, 9, *range(8)]
    assert results["unit"].to_pylist() == [1, 1] + [0] * 8
    assert outcomes(results) == ["other", "blue"] + ["other"] * 8


@pytest.mark.parametrize("units", [["red.png", "blue.png", "photo.jpg", "crash.jpg"]], indirect=True)
def test_images_that_crash_the_model_or_the_decoder_are_found_and_the_rest_is_labelled(
    units: LabelUnits,
) -> None:
    results = units(0)
    expected = ["classify WORKER_CRASHED", "blue", "other", "decode WORKER_CRASHED"]
    assert outcomes(results) == expected
    assert results.schema == RunTables().results
    errors = [error for error in results["error"].to_pylist() if error]
    assert "signal SIGSEGV" in errors[0]["message"]
    assert "signal SIGABRT" in errors[1]["message"]
    assert [(error["retryable"], error["attempts"]) for error in errors] == [(True, MAX_ATTEMPTS)] * 2


SOON: dict[str, Any] = {
    "decode": DecodeSpec(timeout_s=0.5),
    "compute": ComputeSpec(batch_size=1, timeout_s=0.5),
}


def test_an_image_that_takes_too_long_fails_at_once_and_the_rest_is_labelled(folder: Path) -> None:
    names = ["endless.jpg", "endless.jpg", "endless.jpg", "blue.png", "photo.jpg", "black.png", "blue.png"]
    with closing(LabelUnits(settings_of(folder, names, **SOON))) as units:
        results = units(0)
    slow = "decode TIMEOUT"
    assert outcomes(results) == [slow, slow, slow, "blue", "other", "classify TIMEOUT", "blue"]
    assert results.schema == RunTables().results
    errors = [error for error in results["error"].to_pylist() if error]
    assert [(error["message"], error["retryable"], error["attempts"]) for error in errors] == [
        ("took more than 0.5 s of processor time; its process was killed", True, 1)
    ] * 4


def test_a_model_that_takes_too_long_for_every_image_is_at_fault(folder: Path) -> None:
    with (
        closing(LabelUnits(settings_of(folder, ["black.png"] * 3, **SOON))) as units,
        pytest.raises(
            ModelError, match=r"first 3 images.*classify \(took more than 0.5 s of processor time\)"
        ),
    ):
        units(0)


def test_a_batch_that_takes_too_long_is_halved_until_the_image_is_found(folder: Path) -> None:
    names = ["blue.png", "photo.jpg", "black.png", "blue.png"]
    changes = {**SOON, "compute": ComputeSpec(batch_size=2, timeout_s=0.5)}
    with closing(LabelUnits(settings_of(folder, names, **changes))) as units:
        assert outcomes(units(0)) == ["blue", "other", "classify TIMEOUT", "blue"]


def test_an_image_that_takes_too_much_memory_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "NEARLY_FULL", 0.0)
    share = 2**30 / memory.memory().limit
    with closing(LabelUnits(settings_of(folder, ["white.png"], memory_share=share))) as units:
        units._succeeded = True  # of many images before
        results = units(0)
    assert outcomes(results) == ["classify OUT_OF_MEMORY"]
    assert "more than its share of 1,02" in results["error"].to_pylist()[0]["message"]


@settings(max_examples=4)
@given(st.sets(st.integers(0, 15), max_size=4), st.integers(1, 5))
def test_whichever_rows_crash_they_are_found_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, deadly: set[int], batch: int
) -> None:
    folder = tmp_path_factory.mktemp("units")
    job = settings_of(folder, ["x.png"] * 16, compute=ComputeSpec(batch_size=batch))
    poison = " ".join(map(str, deadly))
    with closing(LabelUnits(job, functools.partial(killed_by, poison))) as units:
        units._succeeded = True  # of many images before
        results = pa.concat_tables([units(0), units(1)])
        usage = units.take_usage()
    assert results["manifest_index"].to_pylist() == list(range(16))
    crashed = {row for row, error in enumerate(results["error"].to_pylist()) if error}
    assert crashed == deadly
    assert usage.fetched_bytes == 16 - len(deadly)


def test_a_model_that_crashes_at_every_image_is_at_fault(folder: Path) -> None:
    job = settings_of(folder, ["red.png"] * 8)
    with (
        closing(LabelUnits(job, functools.partial(killed_by, "0 1 2 3 4 5 6 7"))) as units,
        pytest.raises(ModelError, match=r"crashed on each of the first 3 images.*decode \(signal SIGABRT\)"),
    ):
        units(0)


@pytest.mark.parametrize("units", [["blue.png"] * 8], indirect=True)
def test_a_process_that_is_killed_by_others_costs_no_image(units: LabelUnits) -> None:
    assert units._child
    assert units._child.pid
    os.kill(units._child.pid, signal.SIGKILL)
    assert outcomes(units(0)) == ["blue"] * 8


def test_models_that_cannot_be_loaded_are_said_at_every_call(folder: Path) -> None:
    with closing(LabelUnits(settings_of(folder, ["blue.png"], fingerprints=("other",)))) as units:
        for _ in range(2):
            with pytest.raises(ModelError, match=r"a worker built .* where the driver resolved"):
                units(0)


@given(st.integers(2, 600), st.integers(1, 70))
def test_rows_are_halved_at_the_borders_of_chunks(count: int, chunk: int) -> None:
    cut = split_point(count, chunk)
    assert 0 < cut < count
    assert cut % chunk == 0 or count <= chunk
    assert abs(2 * cut - count) <= 2 * chunk


def test_the_longest_time_covers_every_image_and_the_search_for_one_that_hangs() -> None:
    timeouts = {Stage.DECODE: 60.0, Stage.CLASSIFY: 120.0}
    for rows in (1, 512, 65_536):
        halvings = rows.bit_length() - 1
        hangs = (MAX_ATTEMPTS + halvings + MAX_ATTEMPTS) * (HANG_TIMEOUT_S + 120)
        assert longest_s(rows, timeouts) >= rows * 180 + hangs
        assert longest_s(rows, {**timeouts, Stage.DETECT: 10}, 31) >= rows * (180 + 310) + hangs


def test_the_search_for_rows_that_crash_is_logged_with_run_and_unit(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = settings_of(folder, ["x.png"] * 16, run_id="7f3a")
    logs.configure(job.run_id)
    with closing(LabelUnits(job, functools.partial(killed_by, "13"))) as units:
        units(0)
        units(1)
    lines = [line.partition(" workers.label.supervise ")[2] for line in capfd.readouterr().err.splitlines()]
    died = "[run 7f3a, unit 1] the process died in stage decode (WORKER_CRASHED): "
    assert [line for line in lines if line] == [
        f"{died}8 rows, 8 to 15",
        f"{died}8 rows, 8 to 15",
        "[run 7f3a, unit 1] bisecting 8 rows, 8 to 15 at row 12",
        f"{died}4 rows, 12 to 15",
        "[run 7f3a, unit 1] bisecting 4 rows, 12 to 15 at row 14",
        f"{died}2 rows, 12 to 13",
        "[run 7f3a, unit 1] bisecting 2 rows, 12 to 13 at row 13",
        f"{died}row 13",
        f"{died}row 13",
        "[run 7f3a, unit 1] these of its 8 rows crash the process: [13]",
    ]


def test_a_fork_server_of_its_own_that_was_killed_leaves_nothing(folder: Path) -> None:
    changes = settings_of(folder, ["grey.png"], fork_server="/no/such/socket")
    with closing(LabelUnits(changes)) as units:
        first = units._own_fork_server
        assert first
        first._process.kill()
        first._process.wait()
        Path(first.address).unlink()
        assert units._child
        units._child.end()
        units._child = units._new_child()
        assert units._own_fork_server is not first
        assert not Path(first.address).parent.exists()
