from pathlib import Path
from typing import Any

import pytest

from jobs.prepare.begun import begun_spec, kept_command, spec_of
from jobs.prepare.resolve import ResolvedJob
from schemas.exceptions import SpecError, StorageError
from schemas.plan import Plan
from schemas.spec_file import build_spec
from tests.workers.tables.made_results import record
from workers.storage.store import Store

SIGNED = "https://me:pw@host/list.csv?sig=s3cr3t"


def begun(output: Path, command: str, **spec: Any) -> None:
    """A run directory with the `run.json` of a job."""
    job = ResolvedJob(build_spec({"output": str(output), **spec}, "a test"), [], {}, command=command)
    values = {"spec": job.public_spec(), "command": command, "not_kept": job.not_kept()}
    Store(str(output)).create("run.json", record(plan=Plan.of(5, job.spec.units), **values).to_json())


def test_a_run_directory_is_the_job_that_began_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    detector = {"model": "nanodet_g", "class_thresholds": {"person": 0.5}}
    begun(tmp_path / "out", "raylabel run job.yaml", manifest="m.csv", detector=detector, max_failed=3)
    monkeypatch.chdir("/")
    spec = spec_of(str(tmp_path / "out"), {})
    assert (spec.manifest.uri, spec.output) == ([str(tmp_path / "m.csv")], str(tmp_path / "out"))
    assert spec.detector
    assert (spec.detector.class_thresholds, spec.max_failed) == ({"person": 0.5}, 3)
    other = spec_of(str(tmp_path / "out"), {"max_failed": 9, "output": "elsewhere"})
    assert (other.max_failed, other.output, other.detector) == (9, "elsewhere", spec.detector)


def test_a_secret_of_the_job_is_not_kept_and_asked_for(tmp_path: Path) -> None:
    command = kept_command(["run", "--manifest", SIGNED, "--output", str(tmp_path)])
    begun(tmp_path, command, manifest={"uri": SIGNED, "base": "https://host/photos"})
    kept = (tmp_path / "run.json").read_text()
    assert "s3cr3t" not in kept
    assert "pw@" not in kept
    with pytest.raises(SpecError) as refused:
        begun_spec(str(tmp_path), {"manifest.base": "photos"})
    assert str(refused.value) == (
        f"{tmp_path} keeps no secrets: manifest.uri had a password or a query. Give it again (--set "
        "manifest.uri=…), or use the command that began the run: raylabel run --manifest "
        f"https://host/list.csv --output {tmp_path}"
    )
    assert begun_spec(str(tmp_path), {"manifest.uri": SIGNED}).manifest.uri == SIGNED


def test_a_secret_of_a_model_in_whose_place_another_is_named_is_not_asked_for(tmp_path: Path) -> None:
    signed = {"model": "nanodet_g", "weights": "https://host/w.pt?key=s3cr3t"}
    begun(tmp_path, "raylabel run job.yaml", manifest="m.csv", detector=signed)
    with pytest.raises(SpecError, match=r"keeps no secrets: detector\.weights had"):
        begun_spec(str(tmp_path), {})
    detector = begun_spec(str(tmp_path), {"detector.model": "ssd300_vgg16"}).detector
    assert detector is not None
    assert (detector.model, detector.weights) == ("ssd300_vgg16", None)


def test_so_is_that_of_a_tagger(tmp_path: Path) -> None:
    signed = {"scene": {"model": "resnet18", "weights": "https://host/w.pt?key=s3cr3t"}}
    begun(tmp_path, "raylabel run job.yaml", manifest="m.csv", taggers=signed)
    with pytest.raises(SpecError, match=r"keeps no secrets: taggers\.scene\.weights had"):
        begun_spec(str(tmp_path), {})
    taggers = begun_spec(str(tmp_path), {"taggers.scene.model": "vgg11"}).taggers
    assert (taggers["scene"].model, taggers["scene"].weights) == ("vgg11", None)


@pytest.mark.parametrize("folder", ["", "photos"])
def test_a_folder_without_a_run_is_no_job(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    with pytest.raises(StorageError, match=r"found no run at .*; to label .* give it with --manifest"):
        spec_of(str(tmp_path / folder), {})


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (
            ["run", "my job.yaml", "--restart", "-s", "max_failed=3"],
            "raylabel run 'my job.yaml' -s max_failed=3",
        ),
        (["--manifest", SIGNED], "raylabel --manifest https://host/list.csv"),
        ([f"--manifest={SIGNED}"], "raylabel --manifest=https://host/list.csv"),
        (["-s", f"manifest.uri={SIGNED}"], "raylabel -s manifest.uri=https://host/list.csv"),
        (["-s", f"manifest={{uri: [{SIGNED}, {SIGNED}]}}"], "raylabel -s 'manifest=…'"),
        (["--output", "s3://key:s3cr3t@bucket/run"], "raylabel --output s3://bucket/run"),
        ([f"tar://a b.jpg::{SIGNED}"], "raylabel 'tar://a b.jpg::https://host/list.csv'"),
        (["--output", "what?"], "raylabel --output 'what?'"),
    ],
)
def test_a_command_line_is_kept_without_credentials(arguments: list[str], kept: str) -> None:
    assert kept_command(arguments) == kept
