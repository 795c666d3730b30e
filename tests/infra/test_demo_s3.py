"""`make demo-s3` as a newcomer runs it."""

import signal
import subprocess
import sys
import urllib.error
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import ROOT
from tests.integration.jobs_here import tables
from tests.s3 import DIRECTLY
from tests.workers.models import golden

pytestmark = pytest.mark.slow


def demo(folder: Path) -> subprocess.Popen[str]:
    """The demo, started as `make demo-s3` starts it."""
    command = [sys.executable, "-m", "infra.demo.s3", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_no_server(folder: Path) -> None:
    """Nothing answers where the demo's S3 server was."""
    spec = yaml.safe_load((folder / "job.yaml").read_text())
    with pytest.raises(urllib.error.URLError, match="refused"):
        DIRECTLY.open(spec["storage"]["s3://"]["endpoint"], timeout=5)


def test_the_demo_in_buckets_finds_what_the_demo_finds(tmp_path: Path) -> None:
    told, complained = (process := demo(tmp_path)).communicate()
    assert (process.returncode, complained) == (0, "")
    assert "7 images labelled, 4 objects, 0 images failed" in told
    assert "7 pictures drawn" in told
    assert told.splitlines()[-1].startswith("photos and manifest were in s3://demo-photos, weights in ")
    assert len(list((tmp_path / "pictures").iterdir())) == 8  # one is the contact sheet

    found = tables(tmp_path / "run")
    best, objects = golden.expected("classifier"), golden.expected("detector")
    uris = found["labels"]["uri"].to_pylist()
    assert uris[:2] == [f"s3://demo-photos/photos/{name}" for name in ("astronaut.png", "camera.png")]
    assert [Path(uri).name for uri in uris] == sorted(best)
    assert found["labels"]["label_id"].to_pylist() == [best[name]["label_ids"][0] for name in sorted(best)]
    assert found["boxes"]["class_id"].to_pylist() == [
        class_id for name in sorted(objects) for class_id in objects[name]["class_ids"]
    ]
    assert_no_server(tmp_path)


def test_the_demo_that_is_stopped_ends_all_that_it_started(tmp_path: Path) -> None:
    process = demo(tmp_path)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("detector: nanodet_g"):  # the run has begun
            break
    started = psutil.Process(process.pid).children(recursive=True)
    assert {"weed", "raylabel"} <= {each.name() for each in started}
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    gone, left = psutil.wait_procs(started, timeout=60)
    assert (len(gone), left) == (len(started), [])
    assert_no_server(tmp_path)
