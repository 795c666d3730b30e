"""Jobs whose manifest, images, weights and tables are all in buckets, as a user runs them."""

import json
import re
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.integration.jobs_here import events, raylabel, tables
from tests.s3 import ACCESS_KEY, READER, SECRET_KEY, S3Server
from tests.workers.models import golden
from workers.models.sources.nanodet import WEIGHTS

NAMES = ("a b+c.jpg", "100%.jpg", "ü/日本.jpg", "x%2Fy.jpg")
"""What keys may hold: spaces, plus, percent, unicode, and what looks percent-encoded."""

PEOPLE = {
    "PHOTOS_ACCESS_KEY_ID": READER[0],
    "PHOTOS_SECRET_ACCESS_KEY": READER[1],
    "TABLES_ACCESS_KEY_ID": ACCESS_KEY,
    "TABLES_SECRET_ACCESS_KEY": SECRET_KEY,
}
"""Whoever reads the photos may write nothing; whoever writes the tables may do all."""


@pytest.fixture(autouse=True)
def _nothing_of_aws(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of AWS's own variables says where S3 is and who asks."""
    for name in s3.environment:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def bucket(s3: S3Server, photos: Path) -> str:
    """Photos under odd names, a manifest of them, and the detector's weights."""
    name, files = s3.new_bucket(), s3.files()
    originals = sorted(photos.glob("*.[pj]*g"))[: len(NAMES)]
    for key, photo in zip(NAMES, originals, strict=True):
        files.put_file(str(photo), f"{name}/photos/{key}")
    manifest = pa.table({"uri": [f"s3://{name}/photos/{key}" for key in NAMES], "n": range(len(NAMES))})
    with files.open(f"{name}/manifests/all.parquet", "wb") as file:
        pq.write_table(manifest, file)
    files.put_file(str(WEIGHTS), f"{name}/models/{WEIGHTS.name}")
    return name


def job(s3: S3Server, bucket: str, folder: Path, **changes: object) -> str:
    """The job spec of the bucket's photos, written to a file."""
    spec = {
        "manifest": f"s3://{bucket}/manifests/all.parquet",
        "output": f"s3://{bucket}/tables/run",
        "detector": {"model": "nanodet_g", "weights": f"s3://{bucket}/models/{WEIGHTS.name}"},
        "compute": {"actors": 1},
        "storage": {
            "s3://": {"endpoint": s3.endpoint, "credentials_env_prefix": "PHOTOS"},
            f"s3://{bucket}/tables": {"endpoint": s3.endpoint, "credentials_env_prefix": "TABLES"},
        },
        **changes,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return str(path)


class Ran(NamedTuple):
    """A run over the bucket's photos, by their keys and by signed URLs of which one leads to nothing."""

    job: str
    said: CompletedProcess[str]
    folder: Path
    secrets: set[str]


@pytest.fixture(scope="module")
def ran(s3: S3Server, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """That run, by command, and a copy of what it left in the bucket."""
    folder, files = tmp_path_factory.mktemp("ran"), s3.files()
    signed = [files.sign(f"{bucket}/photos/{key}", expiration=600) for key in (*NAMES, "gone.jpg")]
    with files.open(f"{bucket}/manifests/signed.parquet", "wb") as file:
        pq.write_table(pa.table({"uri": signed, "n": range(len(signed))}), file)
    manifest = files.sign(f"{bucket}/manifests/signed.parquet", expiration=600)
    path = job(s3, bucket, folder, manifest=[f"s3://{bucket}/manifests/all.parquet", manifest])
    with pytest.MonkeyPatch.context() as patch:
        for name in s3.environment:
            patch.delenv(name)
        said = raylabel("run", path, "--json", **PEOPLE)
    assert said.returncode == 0, said.stderr
    files.get(f"{bucket}/tables/run", str(folder / "run"), recursive=True)
    signatures = {url.rpartition("Signature=")[2].partition("&")[0] for url in (*signed, manifest)}
    return Ran(path, said, folder / "run", {READER[1], SECRET_KEY, *signatures})


@pytest.mark.slow
def test_photos_are_read_and_tables_written_each_with_their_own_credentials(
    s3: S3Server, bucket: str, ran: Ran, photos: Path, tmp_path: Path
) -> None:
    status = raylabel("status", ran.job, "--json", **PEOPLE)
    assert events(status)[0]["state"] == "complete"
    proven = raylabel("reconcile", ran.job, **PEOPLE)
    assert (proven.returncode, proven.stderr) == (0, "")
    drawn = raylabel("show", ran.job, "--draw", str(tmp_path / "pictures"), **PEOPLE)
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert f"{len(NAMES)} pictures drawn" in drawn.stdout  # a table's URL is not signed

    labels = tables(ran.folder)["labels"]
    assert labels["uri"].to_pylist() == [
        *(f"s3://{bucket}/photos/{key}" for key in NAMES),
        *(f"{s3.endpoint}/{bucket}/photos/{quote(key)}" for key in NAMES),
    ]
    assert labels["n"].to_pylist() == [0, 1, 2, 3] * 2
    originals = [photo.name for photo in sorted(photos.glob("*.[pj]*g"))[: len(NAMES)]]
    golden.assert_recorded(tables(ran.folder), originals * 2)


def test_check_tries_one_read_and_one_write(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    path = job(s3, bucket, tmp_path, output=f"s3://{bucket}/tables/other", detector=None)
    done = raylabel("check", path, "--json", **PEOPLE)
    assert (done.returncode, done.stderr) == (0, "")
    assert events(done)[0]["first image"].startswith(f"s3://{bucket}/photos/{NAMES[0]}, ")
    left = s3.files().find(f"{bucket}/tables/other")  # this server goes on naming folders that were emptied
    assert [path for path in left if "/try-" in path] == []


BOTH = pytest.mark.parametrize("command", ["check", pytest.param("run", marks=pytest.mark.slow)])


@BOTH
def test_whoever_may_not_write_the_tables_is_refused_at_the_start(
    s3: S3Server, bucket: str, tmp_path: Path, command: str
) -> None:
    path = job(s3, bucket, tmp_path, output=f"s3://{bucket}/forbidden", detector=None)
    done = raylabel(command, path, **PEOPLE)
    assert done.returncode == 5
    assert f"raylabel: cannot write s3://{bucket}/forbidden/" in done.stderr
    assert "Traceback" not in done.stderr


@BOTH
def test_whoever_may_not_read_the_photos_is_refused_at_the_start(
    s3: S3Server, bucket: str, tmp_path: Path, command: str
) -> None:
    storage = {
        "s3://": {"endpoint": s3.endpoint, "credentials_env_prefix": "TABLES"},
        f"s3://{bucket}/photos": {"endpoint": s3.endpoint, "anonymous": True},
    }
    path = job(s3, bucket, tmp_path, output=f"s3://{bucket}/unread", detector=None, storage=storage)
    said = {
        "check": "raylabel: the first image cannot be read here: ",
        "run": f"stopped: the store refused each of the first {len(NAMES)} images (4 DENIED)",
    }
    done = raylabel(command, path, **PEOPLE)
    assert done.returncode == 5
    assert said[command] in done.stderr
    assert "DENIED" in done.stderr


@pytest.mark.slow
def test_no_secret_is_in_anything_that_a_run_says_or_leaves_behind(
    s3: S3Server, bucket: str, ran: Ran
) -> None:
    started, complete = (e for e in events(ran.said) if e["event"] in ("started", "complete"))
    assert (complete["labels"], complete["errors"]) == (2 * len(NAMES), 1)
    found = tables(ran.folder)
    assert found["errors"]["uri"].to_pylist() == [f"{s3.endpoint}/{bucket}/photos/gone.jpg"]

    left = [*ran.folder.rglob("*"), *Path(started["ray_logs"]).parent.rglob("*")]
    told = {str(file): file.read_bytes() for file in left if file.is_file()}
    run = json.loads((ran.folder / "run.json").read_text())["id"]
    logs = {Path(name).name: data for name, data in told.items() if f"[run {run}".encode() in data}
    assert "raylabel-driver.log" in logs
    assert any(re.fullmatch(r"worker-.*\.err", name) for name in logs)  # an actor's and its child's
    told |= {"stdout": ran.said.stdout.encode(), "stderr": ran.said.stderr.encode()}
    for table in found.values():  # what is compressed in the files
        told[f"table {len(told)}"] = str(table.to_pylist()).encode()
    holding = [name for name, data in told.items() if any(secret.encode() in data for secret in ran.secrets)]
    assert holding == []
