"""Plans with real models on real photos; the command itself is tested beside the run that it is for."""

import json
from pathlib import Path

import pytest

from jobs.plan.command import PlanOptions, plan_job
from jobs.prepare.resolve import resolve
from schemas.exceptions import OutputConflictError, RaylabelError, StorageError
from schemas.prediction import Cluster, SavedPrediction
from schemas.spec import JobSpec
from schemas.spec_file import build_spec
from tests.integration.jobs_here import raylabel
from tests.poison import paint
from workers.ledger.runs import find_run

HERE = PlanOptions(64, None, None, None, None, None, None, None, as_json=True)


def spec_of(**spec: object) -> JobSpec:
    # one process probes: the tests have no use for more
    return build_spec({"compute": {"actors": 1}, **spec}, "a test")


@pytest.fixture
def manifest(photos: Path, tmp_path: Path) -> Path:
    """The seven demo photos and one that is gone, as CSV."""
    lines = [f"{path},x" for path in sorted(photos.glob("*.[pj]*g"))]
    file = tmp_path / "photos.csv"
    file.write_text("\n".join(["uri,note", *lines, "gone.jpg,x", ""]))
    return file


def test_a_plan_is_told_and_kept_and_leaves_nothing_else(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    spec = spec_of(manifest=str(manifest), output=str(output), detector=None)
    options = PlanOptions(64, 10, 32, 0, 10.0, 1.25, None, 3600.0, as_json=True)
    plan_job(spec, options)
    report = json.loads(capsys.readouterr().out)

    assert report["output"] == str(output)
    probe = report["probe"]
    assert (probe["images"], probe["rows"], probe["processes"]) == (8, 8, 1)
    assert (probe["device"], probe["failed"]) == ("cpu", {"NOT_FOUND": 1})
    assert probe["example"].startswith(f"fetch: NOT_FOUND: {tmp_path}/gone.jpg")
    assert list(probe["costs"]["models"]) == ["classifier"]
    assert report["cluster"] == {"nodes": 10, "cpus": 32, "gpus": 0, "network_gbps": 10.0, "price": 1.25}
    assert report["bottleneck"] in report["utilization"]
    assert report["cost"] == pytest.approx(12.5 * report["seconds"] / 3600)
    assert report["within"]["smallest_cluster"]["cluster"]["nodes"] == 1
    assert report["saved"] is True

    files = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert files == ["out/_work/prediction.json", "photos.csv"]
    kept = SavedPrediction.model_validate_json((output / "_work" / "prediction.json").read_text())
    assert kept.job == resolve(spec).digest()
    assert kept.prediction.cluster == Cluster(10, 32, 0, 10.0, 1.25)
    with pytest.raises(StorageError, match="found no run"):
        find_run(str(output))


def test_what_gpus_do_is_not_guessed_and_not_kept(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(manifest=str(manifest), output=str(tmp_path / "out"), detector=None)
    plan_job(spec, PlanOptions(2, 1, 4, 1, None, None, None, None, as_json=False))
    unknown = capsys.readouterr().out
    assert "unknown: the models' time on a GPU" in unknown
    assert "speed: at most" in unknown
    assert not (tmp_path / "out").exists()
    plan_job(spec, PlanOptions(2, 1, 4, 1, None, None, 40.0, None, as_json=True))
    known = json.loads(capsys.readouterr().out)
    assert known["model_parts"] == {"models, as given": 1 / 40}
    assert known["bottleneck"] == "models"


def test_a_job_of_which_no_image_can_be_labelled_has_no_prediction(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("gone.jpg\nlost.jpg\n")
    spec = spec_of(manifest=str(tmp_path / "m.txt"), output=str(tmp_path / "out"), classifier=None)
    with pytest.raises(RaylabelError, match=r"none of the 2 probed images can be labelled: fetch: NOT_FOUND"):
        plan_job(spec, HERE)
    assert not (tmp_path / "out").exists()


def test_a_probe_that_dies_says_in_which_stage(tmp_path: Path) -> None:
    assert_fails(tmp_path, "red*", r"died in stage classify: signal SIGSEGV\. A run finds the image")


def test_a_model_that_never_ends_ends_the_probe_after_its_timeout(tmp_path: Path) -> None:
    said = (
        r"an image of the sample took more than 0.5 s of processor time in stage classify "
        r"\(compute\.timeout_s\)\. A run makes it a failed row and continues; "
        r"for a plan use another --sample, or raise compute\.timeout_s$"
    )
    assert_fails(tmp_path, "black*", said, compute={"actors": 1, "timeout_s": 0.5})


def assert_fails(tmp_path: Path, images: str, message: str, **settings: object) -> None:
    """A plan with a model that some images are poison for ends with a message, and leaves nothing."""
    paint(tmp_path)
    job = {"manifest": str(tmp_path / images), "output": str(tmp_path / "out"), "detector": None, **settings}
    with pytest.raises(RaylabelError, match=message):
        plan_job(spec_of(**job, classifier={"model": "tests.poison:poisoned"}), HERE)
    assert not (tmp_path / "out").exists()


def test_another_run_in_the_output_is_refused_as_by_check(manifest: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "out" / "labels" / "shard-00000.parquet"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"no run's")
    spec = spec_of(manifest=str(manifest), output=str(tmp_path / "out"), detector=None)
    with pytest.raises(OutputConflictError, match="files that no run here wrote"):
        plan_job(spec, HERE)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--within", "soon"], 2, "--within: found 'soon', allowed: a duration such as"),
        (["--nodes", "0"], 2, "--nodes"),
        (["--set", "compute.device=cuda", "--node-cpus", "4"], 11, "has no GPU"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    photos: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = raylabel("plan", "--manifest", str(photos), "--output", str(tmp_path / "out"), *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
