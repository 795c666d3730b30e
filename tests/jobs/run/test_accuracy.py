import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.plan.predict import Load, predict
from jobs.prepare.resolve import ResolvedJob
from jobs.run.accuracy import PredictionAccuracy, accuracy_of
from jobs.run.console import Meter, Reporter
from schemas.ledger import PREDICTION
from schemas.metrics import NO_USAGE
from schemas.plan import Plan
from schemas.prediction import Cluster, Costs, SavedPrediction
from schemas.spec import ComputeSpec
from schemas.spec_file import build_spec
from tests.jobs.run.test_console import state
from workers.storage.store import Store

CLUSTER = Cluster(nodes=1, cpus=2)
MACHINES = [{"CPU": 2.0, "memory": 1e9}, {"CPU": 0.0}]
ACCURACY = PredictionAccuracy(37.1, 27.0, CLUSTER, 36.2, 26.0, {(2, 0): 1})


def job(output: Path, **spec: object) -> ResolvedJob:
    return ResolvedJob(build_spec({"manifest": "m.csv", "output": str(output), **spec}, "a test"), [], {})


def meter(labelled: int) -> Meter:
    found = Meter()
    found.done, found.images_per_s = labelled, 8.0
    return found


@pytest.fixture
def kept(tmp_path: Path) -> SavedPrediction:
    """A prediction for a job in a folder: 100 images, 10 a second, 22 s."""
    costs = Costs(0.0, 1000, 0.0, 0.0, 0.0015, {"detector": 0.1985})
    load = Load(Plan(rows=100, unit_rows=10, shard_units=10), ComputeSpec(), 16, 12.0)
    found = SavedPrediction(
        job=job(tmp_path).digest(), at=datetime.now(UTC), prediction=predict(costs, load, CLUSTER)
    )
    Store(str(tmp_path)).write(PREDICTION, found.model_dump_json().encode())
    return found


def test_a_prediction_is_held_against_what_came_of_it(tmp_path: Path, kept: SavedPrediction) -> None:
    accuracy = accuracy_of(job(tmp_path), meter(100), 20.0, MACHINES)
    about: Any = pytest.approx
    assert accuracy == PredictionAccuracy(
        about(10), about(22), kept.prediction.cluster, 8.0, 20.0, {(2, 0): 1}
    )
    assert accuracy
    assert accuracy.relative_error == pytest.approx(0.1)


@pytest.mark.usefixtures("kept")
def test_an_attempt_at_the_rest_is_held_against_what_that_would_take(tmp_path: Path) -> None:
    accuracy = accuracy_of(job(tmp_path), meter(40), 20.0, MACHINES)
    assert accuracy
    assert accuracy.seconds == pytest.approx(12 + 4)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("spec", [{"fetch": {"concurrency": 4}}, {"compute": {"actors": 1}}])
def test_a_prediction_for_another_job_is_passed_over(tmp_path: Path, spec: dict[str, object]) -> None:
    assert accuracy_of(job(tmp_path, **spec), meter(100), 20.0, MACHINES) is None
    assert accuracy_of(job(tmp_path, max_failed=3), meter(100), 20.0, MACHINES)


@pytest.mark.usefixtures("kept")
def test_an_attempt_that_labelled_nothing_says_nothing(tmp_path: Path) -> None:
    assert accuracy_of(job(tmp_path), meter(0), 20.0, MACHINES) is None


def test_where_nothing_was_predicted_there_is_no_accuracy(tmp_path: Path) -> None:
    assert accuracy_of(job(tmp_path), meter(100), 20.0, MACHINES) is None


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda _: b"", "it is empty"),
        (lambda data: data[:40], "it is no JSON (EOF while parsing "),
        (lambda _: b"{}", "it is no prediction of this version (job: Field required)"),
        (
            lambda data: re.sub(rb'"images_per_s": ?[\d.]+', b'"images_per_s": 0', data),
            "it is no prediction of this version (prediction: Value error, images_per_s must be above 0)",
        ),
    ],
)
def test_a_damaged_prediction_is_named_and_costs_nothing(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    store, notes = Store(str(tmp_path)), list[str]()
    store.write(PREDICTION, damage(store.read(PREDICTION)))
    assert accuracy_of(job(tmp_path), meter(100), 20.0, MACHINES, notes.append) is None
    (note,) = notes
    assert note.startswith(f"note: {tmp_path}/{PREDICTION} is damaged: {reason}")
    assert note.endswith("The run is not compared with it; `raylabel plan` makes another")


def test_accuracy_is_one_line() -> None:
    assert str(ACCURACY) == (
        "37.1 images/s and 27 s by `raylabel plan`; it took 26 s (36.2 images/s): 4% off"
    )
    assert ACCURACY.to_dict() == {
        "images_per_s": 37.1,
        "seconds": 27.0,
        "cluster": {"nodes": 1, "cpus": 2, "gpus": 0, "network_gbps": None, "price": None},
        "actual_images_per_s": 36.2,
        "relative_error": 0.0385,
    }
    assert "it took 26 s: 4% off" in str(replace(ACCURACY, actual_images_per_s=None))


def test_a_prediction_for_another_cluster_is_said_to_be_one() -> None:
    elsewhere = replace(ACCURACY, actual_nodes={(8, 0): 1, (32, 1): 2})
    assert elsewhere.relative_error is None
    assert elsewhere.to_dict()["relative_error"] is None
    assert str(elsewhere) == (
        "37.1 images/s by `raylabel plan`, but for 1 node of 2 CPUs; it ran on 2 nodes of 32 CPUs and 1 GPU "
        "and 1 node of 8 CPUs and took 26 s (36.2 images/s)"
    )


def test_a_reporter_keeps_what_its_attempt_labelled() -> None:
    reporter = Reporter(Console(quiet=True))
    reporter.on_progress(state(0, 1), NO_USAGE)
    assert (reporter.meter.done, reporter.meter.images_per_s) == (0, None)
    reporter.on_progress(state(0, 1, 2), NO_USAGE)
    reporter.on_progress(state(*range(10)), NO_USAGE)
    assert reporter.meter.done == 80
    assert reporter.meter.images_per_s
