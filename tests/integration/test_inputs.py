"""Images in tar shards and in Parquet columns: the same labels as of the same photos as files."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs.cluster.connect import MIN_TASKS, map_tasks
from tests.integration.jobs_here import raylabel, rows, run_here, tables
from tests.integration.killing import Attempt, commits
from tests.s3 import S3Server
from tests.workers.archives import shard_of, write_hf
from workers.storage.uris import parent_url

NAMES = ("image_id", "uri", "key", "manifest_uri", "manifest_label")
"""Columns that say where a row comes from."""


@pytest.fixture(scope="module")
def files(photos: Path) -> list[Path]:
    return sorted(photos.glob("*.[pj]*g"))


@pytest.fixture(scope="module")
def plain(ray_here: None, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:  # noqa: ARG001
    """What becomes of the seven photos as files, and of them once more."""
    output = tmp_path_factory.mktemp("plain") / "out"
    run_here(manifest=[str(photos), str(photos)], output=str(output))
    return found(output)


@pytest.fixture(scope="module")
def folder(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos in two shards, and once more in a Parquet file of small row groups."""
    folder = tmp_path_factory.mktemp("in")
    (folder / "tars").mkdir()
    (folder / "tars" / "00000.tar").write_bytes(shard_of(files[:4]))
    (folder / "tars" / "00001.tar").write_bytes(shard_of(files[4:]))
    (folder / "tars" / "00000_stats.json").write_text("{}")
    write_hf(folder / "a.parquet", [file.read_bytes() for file in files], row_group_size=2)
    return folder


@pytest.fixture(scope="module")
def labelled(ray_here: None, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """The run directory of a job over both."""
    output = tmp_path_factory.mktemp("out") / "run"
    run_here(manifest=manifest_of(folder), output=str(output), units={"rows": 3})
    return output


def manifest_of(folder: Path | str) -> list[str]:
    return [f"{folder}/tars", f"{folder}/a.parquet"]


def found(output: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: rows(table, *NAMES) for name, table in tables(output).items()}


def test_photos_in_shards_and_in_a_column_are_labelled_as_the_same_photos_in_files(
    files: list[Path], folder: Path, labelled: Path, plain: dict[str, Any]
) -> None:
    assert found(labelled) == plain
    labels = tables(labelled)["labels"].select(["uri", "image_id", "manifest_label"]).to_pylist()
    names = [f"000000001{files[5].suffix}", "000000001"]
    assert list(labels[5].values()) == [f"tar://{names[0]}::{folder}/tars/00001.tar", names[1], None]
    assert list(labels[9].values()) == [f"parquet://image/2::{folder}/a.parquet", "photo-2.jpg", 2]


def test_they_are_drawn_from_the_tables_alone(labelled: Path, tmp_path: Path) -> None:
    (labelled / "_work").rename(tmp_path / "_work")
    drawn = raylabel("show", str(labelled), "--draw", str(tmp_path / "pictures"))
    (tmp_path / "_work").rename(labelled / "_work")
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert "not drawn" not in drawn.stdout
    assert "14 pictures drawn" in drawn.stdout
    assert "tars/00001.tar/000000001" in drawn.stdout
    assert "a.parquet/image/2" in drawn.stdout
    assert {"00000-000000000.jpg", "00009-2.jpg"} < {file.name for file in (tmp_path / "pictures").iterdir()}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_in_a_bucket_they_are_labelled_as_the_same_photos_in_files(
    folder: Path, plain: dict[str, Any], tmp_path: Path, s3: S3Server
) -> None:
    bucket = s3.new_bucket()
    s3.files().put(f"{folder}/", f"{bucket}/in", recursive=True)
    manifest = manifest_of(f"s3://{bucket}/in")
    run_here(manifest=manifest, output=f"s3://{bucket}/out", units={"rows": 4})
    s3.files().get(f"{bucket}/out/", str(tmp_path / "out"), recursive=True)
    assert found(tmp_path / "out") == plain
    assert all(f"::s3://{bucket}/in/" in uri for uri in tables(tmp_path / "out")["labels"]["uri"].to_pylist())


@pytest.mark.usefixtures("ray_here")
def test_a_shard_that_is_cut_and_rows_without_images_cost_their_own_rows(
    files: list[Path], tmp_path: Path
) -> None:
    shard = shard_of(files[:4])
    third = shard.index(files[2].read_bytes()[:100])
    (tmp_path / "a.tar").write_bytes(shard[: third + 1000])
    write_hf(tmp_path / "a.parquet", [files[0].read_bytes(), None, b"", b"what?", files[1].read_bytes()])
    sums = run_here(
        manifest=[f"{tmp_path}/a.tar", f"{tmp_path}/a.parquet"], output=f"{tmp_path}/out", detector=None
    )
    assert sums == {"labels": 4, "boxes": 0, "errors": 4}
    errors = tables(tmp_path / "out")["errors"].to_pylist()
    assert [(row["manifest_index"], row["stage"], row["code"]) for row in errors] == [
        (2, "fetch", "TRUNCATED"),
        (4, "list", "NOT_FOUND"),
        (5, "fetch", "EMPTY"),
        (6, "decode", "NOT_AN_IMAGE"),
    ]
    assert "a.tar (" in errors[0]["message"]
    assert "the file ends after 1,000 of them" in errors[0]["message"]
    assert not errors[0]["retryable"]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_job_that_was_stopped_goes_on_with_the_same_rows(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "0.tar").write_bytes(shard_of(files * 8))
    write_hf(tmp_path / "a.parquet", [file.read_bytes() for file in files * 8], 20)
    job = ["run", "--detector", "none", "--set", "units.rows=4", "--output", str(tmp_path / "out")]
    job += [part for uri in manifest_of(tmp_path) for part in ("--manifest", uri)]
    with Attempt(*job) as attempt:
        attempt.wait_until(lambda: commits(tmp_path / "out"))
        attempt.process.send_signal(signal.SIGTERM)
        assert attempt.end()[0] == 143
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    again = raylabel(*job)
    assert (again.returncode, again.stderr) == (0, "")
    other = tmp_path / "undisturbed"
    run_here(manifest=manifest_of(tmp_path), output=str(other), detector=None, units={"rows": 4})
    assert {name: rows(table) for name, table in tables(tmp_path / "out").items()} == {
        name: rows(table) for name, table in tables(other).items()
    }


@pytest.mark.usefixtures("ray_here")
def test_more_shards_than_are_read_at_once_come_in_their_order() -> None:
    shards = [(f"/set/{number}/shard.tar",) for number in range(3 * MIN_TASKS)]
    assert map_tasks(parent_url, shards) == [f"/set/{number}" for number in range(3 * MIN_TASKS)]


def test_check_and_plan_know_such_manifests(folder: Path, tmp_path: Path) -> None:
    job = [part for uri in manifest_of(folder) for part in ("--manifest", uri)]
    job += ["--output", str(tmp_path / "out"), "--detector", "none", "--json"]
    checked = raylabel("check", *job)
    assert (checked.returncode, checked.stderr) == (0, "")
    planned = raylabel("plan", *job)
    assert (planned.returncode, planned.stderr) == (0, "")
    probe = json.loads(planned.stdout)["probe"]
    assert (probe["images"], probe["failed"]) == (14, {})
