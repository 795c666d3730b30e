"""What the command prints without starting Ray: checks, refusals, lists."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from jobs.cli.options import seconds_of
from schemas.exceptions import SpecError
from tests.integration.jobs_here import events, raylabel
from tests.jobs.report.test_page import put_full_run
from tests.workers.models.onnx.test_scores import two_outputs


def test_check_says_what_would_run_and_writes_nothing(photos: Path, tmp_path: Path) -> None:
    done = raylabel("check", "--manifest", str(photos), "--output", str(tmp_path / "out"), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (report,) = events(done)
    assert report["state"] == "to do"
    assert report["manifest"] == f"{photos} (7 images)"
    assert report["detector"].startswith("nanodet_g-")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--output", "out", "--set", "max_failed=2.5"], 2, "max_failed: found 2.5"),
        (["--output", "out", "--set", "nonsense"], 2, "--set takes KEY=VALUE, found 'nonsense'"),
        (["--output", "out", "--set", "fetch=["], 2, "--set fetch: the value '[' is not YAML"),
        (["--manifest", "gone.csv", "--output", "out"], 3, "/gone.csv. A manifest is a file ending in"),
        (["--output", "out", "--detector", "nanodet_x"], 4, "nanodet_g"),
        (["--output", "out", "--classifier", "none", "--detector", "none"], 2, "at least one"),
        (
            [
                *("--output", "out", "--set", "compute.runtime=onnxruntime"),
                *("--set", "compute.precision=bfloat16"),
            ],
            4,
            "it is for float32 on a CPU, found bfloat16",
        ),
        (["--manifest", "header.csv", "--output", "out"], 3, "header.csv has no rows"),
        (["--manifest", "hostile.csv", "--output", "out"], 3, r"it has: u\x1b[31mri. Set"),
        (["--output", "nonsense://out"], 5, "Protocol not known: nonsense"),
    ],
)
def test_a_job_that_cannot_run_is_refused_before_anything_starts(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "header.csv").write_text("uri,label\n")
    (tmp_path / "hostile.csv").write_text("u\x1b[31mri\na.jpg\n")
    done = raylabel(
        "check", *(["--manifest", str(photos)] if "--manifest" not in arguments else []), *arguments
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["header.csv", "hostile.csv"]


def test_a_duration_of_centuries_is_refused() -> None:
    with pytest.raises(SpecError, match=r"--stop-after: found '10001d', allowed: up to 10,000d"):
        seconds_of("10001d")
    assert seconds_of("1h30m") == 5400


def test_the_version_is_printed_with_those_that_a_cluster_must_share() -> None:
    done = raylabel("--version")
    assert (done.returncode, done.stderr) == (0, "")
    here = f"Python {platform.python_version()}, Ray {version('ray')}"
    assert done.stdout == f"raylabel {version('raylabel')} ({here})\n"


def test_a_model_that_cannot_be_used_is_described_and_ends_as_its_job_would(tmp_path: Path) -> None:
    file = two_outputs(tmp_path / "two.onnx")
    result = raylabel("models", "--describe", str(file))
    assert result.returncode == 4
    assert "cannot be used: two.onnx does not say which output is a classifier's" in result.stdout
    assert "in the job spec" not in result.stdout


def test_models_lists_the_models_that_a_job_can_use() -> None:
    printed: list[Any] = events(raylabel("models", "--json"))
    models = {model["name"]: model for model in printed[0]}
    assert {"efficientnet_lite0", "nanodet_g", "resnet50", "fasterrcnn_resnet50_fpn"} <= models.keys()
    assert models["nanodet_g"]["categories"] == 80
    assert "nanodet_g" in raylabel("models", "nanodet").stdout


def test_a_query_may_begin_with_a_comment_and_an_option_that_is_none_is_refused(tmp_path: Path) -> None:
    output = put_full_run(tmp_path)
    for comment in ("-- how many", "--how many=all", "--"):
        done = raylabel("sql", output, f"{comment}\nSELECT 1 AS one", "--csv")
        assert (done.returncode, done.stdout, done.stderr) == (0, "one\n1\n", "")
    refused = raylabel("sql", output, "SELECT 1", "--cvs")
    assert refused.returncode == 2
    assert "--cvs" in refused.stderr


def test_report_writes_a_page_and_says_where(tmp_path: Path) -> None:
    output = put_full_run(tmp_path)
    done = raylabel("report", output, "-o", str(tmp_path / "page.html"), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (report,) = events(done)
    assert (report["report"], report["not_shown"]) == (str(tmp_path / "page.html"), {})
    assert (tmp_path / "page.html").stat().st_size == report["bytes"]
    again = raylabel("report", output, "--patience", "0")
    assert again.stdout.startswith(f"report: {output}/report.html (")
    refused = raylabel("report", output, "-o", str(tmp_path))
    assert (refused.returncode, refused.stderr) == (
        5,
        f"raylabel: {tmp_path} is a folder; name a file in it\n",
    )
