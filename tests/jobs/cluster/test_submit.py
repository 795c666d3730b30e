"""What a submission is made of; tests/integration/test_submit.py has its result."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import yaml
from ray.job_submission import JobDetails, JobStatus, JobType
from rich.console import Console

from jobs.cluster.jobs_api import ADDRESS, Submission, dashboard_url, telling_line
from jobs.cluster.submit import SubmitOptions, absolute_paths, assert_fits, end_message, notes, pack
from jobs.cluster.submitted import print_jobs
from schemas.exceptions import ClusterError, SpecError
from schemas.spec import JobSpec
from schemas.spec_file import build_spec, read_spec
from schemas.submission import is_submission_id, new_submission_id
from tests.conftest import ROOT

SECRET = "https://me:pass@example.com/photos.csv?X-Amz-Signature=abc"


def spec_of(**values: object) -> JobSpec:
    return build_spec({"manifest": "s3://b/m.csv", "output": "s3://b/out", **values}, "a test")


def options(wheel: Path | None = None, *, ship: bool = True) -> SubmitOptions:
    return SubmitOptions(None, "a", wheel, ship, [], wait=False, as_json=False)


def submission(state: JobStatus, **values: object) -> Submission:
    return Submission.of(
        JobDetails(
            type=JobType.SUBMISSION, submission_id="x", status=state, entrypoint="", start_time=0, **values
        )
    )


def test_a_job_means_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pth").touch()
    spec, paths = absolute_paths(
        spec_of(
            manifest={"uri": ["a.csv", "s3://b/c.csv"], "base": "photos"},
            output="out",
            classifier={"model": "resnet50", "weights": "w.pth", "categories": ["a", "b"]},
            detector={"model": "fasterrcnn_resnet50_fpn", "weights": "COCO_V1"},
        )
    )
    assert spec.manifest.uris == [f"{tmp_path}/a.csv", "s3://b/c.csv"]
    assert (spec.output, spec.manifest.base) == (f"{tmp_path}/out", f"{tmp_path}/photos")
    assert spec.classifier
    assert spec.detector
    assert (spec.classifier.weights, spec.detector.weights) == (f"{tmp_path}/w.pth", "COCO_V1")
    assert paths == {
        "manifest.uri": f"{tmp_path}/a.csv",
        "output": f"{tmp_path}/out",
        "manifest.base": f"{tmp_path}/photos",
        "classifier.weights": f"{tmp_path}/w.pth",
    }


def test_a_file_or_a_folder_that_is_a_model_means_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = spec_of(
        classifier={"model": "a/nsfw.onnx", "categories": ["sfw", "nsfw"], "class_map": "wordnet"},
        detector="s3://b/rtdetr/",
        taggers={"scene": {"model": "./vit/", "score_threshold": 0.5}},
    )
    spec, paths = absolute_paths(asked)
    models = {"classifier.model": f"{tmp_path}/a/nsfw.onnx", "taggers.scene.model": f"{tmp_path}/vit"}
    assert {key: value.rstrip("/") for key, value in paths.items()} == models
    assert spec.classifier == asked.classifier.model_copy(update={"model": models["classifier.model"]})
    assert spec.taggers["scene"].score_threshold == 0.5
    assert spec.detector == asked.detector
    (local,) = notes(spec, paths)
    assert f"classifier.model {tmp_path}/a/nsfw.onnx" in local


def test_what_is_not_shipped_is_named() -> None:
    assert notes(*absolute_paths(spec_of())) == []
    local, own = notes(*absolute_paths(spec_of(output="/data/out", classifier="my_models:sky")))
    assert "output /data/out" in local
    assert "disk that all of them share" in local
    assert own.startswith("my_models:sky must be importable on the cluster")


def test_the_job_file_holds_what_was_asked_with_its_credentials(tmp_path: Path) -> None:
    asked = spec_of(manifest=SECRET, classifier=None, detector={"score_threshold": 0.5})
    pack(tmp_path, asked, options(ship=False))
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]
    assert read_spec(str(tmp_path / "job.yaml"), {}) == asked
    assert yaml.safe_load((tmp_path / "job.yaml").read_text()) == {
        "manifest": {"uri": SECRET},
        "output": "s3://b/out",
        "classifier": None,
        "detector": {"score_threshold": 0.5},
    }


def test_the_raylabel_that_runs_here_is_shipped_whole(tmp_path: Path) -> None:
    code = """if True:
    import hashlib, importlib.metadata, pathlib, jobs.cli.app, schemas, workers
    folders = [pathlib.Path(package.__file__).parent for package in (jobs, schemas, workers)]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    print(jobs.cli.app.__file__, importlib.metadata.version("raylabel"), len(files), digest)
    """
    version = pack(tmp_path, spec_of(), options())
    shipped, here = (
        subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.split()
        for folder in (tmp_path, ROOT)
    )
    assert shipped == [str(tmp_path / "jobs" / "cli" / "app.py"), *here[1:]]
    assert shipped[1] == version
    assert list(tmp_path.rglob("*.safetensors"))


def test_a_wheel_of_raylabel_is_shipped_and_nothing_else_taken_for_one(tmp_path: Path) -> None:
    made, unpacked = tmp_path / "made", tmp_path / "unpacked"
    for folder in (made, unpacked):
        folder.mkdir()
    pack(made, spec_of(), options())
    about = next(made.glob("*.dist-info"))
    about.rename(made / "raylabel-9.9.dist-info")
    wheel = Path(shutil.make_archive(str(tmp_path / "raylabel-9.9-py3-none-any"), "zip", made))
    assert pack(unpacked, spec_of(), options(wheel)) == "9.9"
    assert (unpacked / "jobs" / "cli" / "app.py").exists()

    other = Path(shutil.make_archive(str(tmp_path / "other"), "zip", made / "jobs"))
    for wrong, why in (
        (other, "is not a wheel of raylabel"),
        (tmp_path / "gone.whl", "cannot read"),
        (made, "cannot read"),
    ):
        with pytest.raises(SpecError, match=why):
            pack(unpacked, spec_of(), options(wrong))


def test_a_cluster_with_another_ray_than_what_is_shipped_is_for_is_refused(tmp_path: Path) -> None:
    pack(tmp_path, spec_of(), options())
    assert_fits(tmp_path, "http://head:8265", ray.__version__)
    with pytest.raises(ClusterError, match=r"has Ray 2\.9\.3; raylabel .* needs Ray .*2\.60.*--wheel FILE"):
        assert_fits(tmp_path, "http://head:8265", "2.9.3")
    shutil.rmtree(next(tmp_path.glob("*.dist-info")))
    assert_fits(tmp_path, "http://head:8265", "2.9.3")


def test_what_a_job_says_last_is_its_error_or_its_last_line() -> None:
    assert telling_line("") == ""
    assert telling_line("5 of 9 images\n\n 6 of 9 images \n\n") == "6 of 9 images"
    error = "raylabel: out holds a run whose rows would differ:"
    assert telling_line(f"starting\n{error}\n  code: a there, b now\nChoose another output\n") == error


def test_jobs_fit_a_terminal_with_what_they_say_last_on_one_line() -> None:
    text, jobs = io.StringIO(), [submission(JobStatus.RUNNING, metadata={"output": "s3://bucket/out"})]
    said = "1,234,567 of 12,345,678 images, 12 failed, 3,210.5 images/s, \x1b[2J0:57:41 left, and more"
    print_jobs([(job, said) for job in jobs], Console(file=text, width=80, soft_wrap=True))
    assert text.getvalue().splitlines() == [
        "x  running since 1970-01-01 00:00:00 UTC",
        "  output: s3://bucket/out",
        "  1,234,567 of 12,345,678 images, 12 fail…5 images/s,  [2J0:57:41 left, and more",
    ]


def test_an_id_differs_from_any_run_directory() -> None:
    first, second = new_submission_id(), new_submission_id()
    assert first != second
    assert is_submission_id(first)
    assert not any(is_submission_id(output) for output in ("runs/today", "raylabel-runs", f"{first}/out"))


def test_a_dashboards_address_needs_no_scheme_and_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    assert dashboard_url("head:8265") == dashboard_url("http://head:8265/") == "http://head:8265"
    with pytest.raises(SpecError, match="found ray://head:10001; allowed: a dashboard URL"):
        dashboard_url("ray://me:pass@head:10001")
    with pytest.raises(SpecError, match="Give --address"):
        dashboard_url(None)
    monkeypatch.setenv(ADDRESS, "https://head")
    assert dashboard_url(None) == "https://head"


def test_a_job_that_was_waited_for_gives_its_exit_code() -> None:
    assert submission(JobStatus.SUCCEEDED, driver_exit_code=0).outcome == 0
    assert submission(JobStatus.FAILED, driver_exit_code=4).outcome == 4
    assert submission(JobStatus.FAILED, driver_exit_code=-9).outcome == 137
    assert submission(JobStatus.STOPPED).outcome == 143
    never_ran = submission(JobStatus.FAILED, message="the runtime_env could not be set up")
    assert never_ran.outcome == 1
    assert "the runtime_env could not be set up" in end_message(never_ran)
    assert "again to resume" in end_message(submission(JobStatus.FAILED, driver_exit_code=4))
