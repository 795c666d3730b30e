"""Stores that are full, that refuse a write, or that do not know conditional writes."""

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from schemas.exceptions import StorageError
from tests.integration.jobs_here import raylabel, rows, run_here, tables
from tests.s3 import running_rclone
from workers.storage.store import UNCONDITIONAL


@pytest.fixture
def job(photos: Path, tmp_path: Path) -> dict[str, Any]:
    """Fifty-six rows in units of four."""
    manifest = tmp_path / "manifest.txt"
    manifest.write_text("\n".join([str(path) for path in sorted(photos.glob("*.[pj]*g"))] * 8))
    return {"manifest": str(manifest), "detector": None, "units": {"rows": 4}}


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A disk with room for half a run."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(
    job: dict[str, Any], small_disk: Path
) -> None:
    try:
        with pytest.raises(StorageError, match=r"cannot (write|create) .*No space left on device"):
            run_here(**job, output=str(small_disk / "out"))
        committed = sorted(small_disk.glob("out/_work/*/commits/*/*/*.json"))
        assert committed
        assert not list(small_disk.glob("out/labels/*"))
        subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
        assert run_here(**job, output=str(small_disk / "out")) == {"labels": 56, "boxes": 0, "errors": 0}
        found = rows(tables(small_disk / "out")["labels"])
    finally:
        subprocess.run(["umount", "-l", str(small_disk)], check=True)
    assert [row["manifest_index"] for row in found] == list(range(56))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_refused_write_is_said_and_the_run_goes_on_when_it_is_allowed(
    job: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "out"

    def refuse() -> None:
        """Puts a file where the fifth shard's folder of commits will have to be."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if folders := list(output.glob("_work/2*/commits/000")):
                folders[0].joinpath("shard-00004").write_text("in the way")
                return
            time.sleep(0.01)

    thread = threading.Thread(target=refuse)
    thread.start()
    with pytest.raises(StorageError, match=r"cannot create .*/commits/000/shard-00004/"):
        run_here(**job | {"units": {"rows": 4, "shard_rows": 8}}, output=str(output))
    thread.join()
    (stone,) = output.glob("_work/2*/commits/000/shard-00004")
    stone.unlink()
    done = run_here(**job | {"units": {"rows": 4, "shard_rows": 8}}, output=str(output))
    assert done == {"labels": 56, "boxes": 0, "errors": 0}
    assert [row["manifest_index"] for row in rows(tables(output)["labels"])] == list(range(56))


@pytest.mark.slow
def test_a_store_without_conditional_writes_is_told_of_at_the_start(photos: Path) -> None:
    with running_rclone() as server:
        output = f"s3://{server.new_bucket()}/out"
        job = ["run", "--manifest", f"{photos}/c*.png", "--output", output, "--detector", "none"]
        done = raylabel(*job, **server.environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert UNCONDITIONAL in done.stdout
        assert "3 images labelled" in done.stdout
        assert server.files().find(f"{output}/labels")
