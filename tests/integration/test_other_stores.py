"""Jobs with manifest, images, weights and tables all in Google's or Azure's store, as a user runs them."""

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.integration.jobs_here import raylabel, rows, run_here, tables
from tests.integration.killing import Attempt
from tests.integration.test_object_storage import NAMES
from tests.stores import KEY, Server, new_bucket, reaching
from workers.models.sources.nanodet import WEIGHTS
from workers.storage.store import UNCONDITIONAL, Store

ROUNDS = 12

pytestmark = [
    pytest.mark.slow,
    # what the weights' upload is told by aiohttp, which both clients send bytes with
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]


@pytest.fixture(params=["google", "azure"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the store, which this process reaches too."""
    found: Server = request.getfixturevalue(request.param)
    with reaching(found):
        yield found


@pytest.fixture
def bucket(server: Server, photos: Path) -> Store:
    """Photos under odd names, a manifest that has each of them many times, and the detector's weights."""
    bucket = Store(new_bucket(server))
    for key, photo in zip(NAMES, sorted(photos.glob("*.[pj]*g")), strict=False):
        bucket.write(f"photos/{key}", photo.read_bytes())
    starts = (f"{bucket.url}/photos/", "photos/")
    uris = [f"{starts[number % 2]}{key}" for number in range(ROUNDS) for key in NAMES]
    sink = io.BytesIO()
    pq.write_table(pa.table({"uri": uris}), sink)
    bucket.write("all.parquet", sink.getvalue())
    bucket.write(f"models/{WEIGHTS.name}", WEIGHTS.read_bytes())
    return bucket


def job(server: Server, bucket: Store, folder: Path, **changes: object) -> str:
    """The job spec of the bucket's photos, written to a file."""
    spec = {
        "manifest": f"{bucket.url}/all.parquet",
        "output": f"{bucket.url}/tables/run",
        "detector": {"model": "nanodet_g", "weights": f"{bucket.url}/models/{WEIGHTS.name}"},
        "compute": {"actors": 1},
        "units": {"rows": 4},
        "storage": server.storage,
        **changes,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return str(path)


def commits(output: Store) -> dict[str, bytes]:
    """The commit entries of a run."""
    keys = [key for key in output.list("_work") if "/commits/" in key]
    return {key: output.read(key) for key in keys}


def download(output: Store, folder: Path) -> Path:
    """A copy of a run directory."""
    for key in output.list(""):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(output.read(key))
    return folder


@pytest.mark.usefixtures("ray_here")
def test_a_run_that_was_stopped_and_had_company_ends_in_the_same_tables(
    server: Server, bucket: Store, photos: Path, tmp_path: Path
) -> None:
    path, output = job(server, bucket, tmp_path), bucket.below("tables/run")
    slowly = ("run", path, "--set", "fetch.rate=0.5")
    with Attempt(*slowly, **server.environment) as first:
        first.wait_until(lambda: commits(output))
        other = raylabel("run", path, **server.environment)
        assert other.returncode == 6
        assert f"attempt 1 (process {first.process.pid} on " in other.stderr
        first.process.send_signal(signal.SIGTERM)
        code, said, complaint = first.end()
    assert code == 143
    assert complaint == "raylabel: stopped by SIGTERM; committed work stays, and the same command resumes\n"
    assert UNCONDITIONAL not in said
    kept = commits(output)
    assert 0 < len(kept) < ROUNDS

    again = raylabel("run", path, **server.environment)
    assert (again.returncode, again.stderr) == (0, "")
    proven = raylabel("reconcile", path, **server.environment)
    assert (proven.returncode, proven.stderr) == (0, "")

    here = [str(photo) for photo in sorted(photos.glob("*.[pj]*g"))[: len(NAMES)]] * ROUNDS
    (tmp_path / "here.txt").write_text("\n".join(here))
    run_here(manifest=str(tmp_path / "here.txt"), output=str(tmp_path / "local"), units={"rows": 4})
    found, expected = tables(download(output, tmp_path / "run")), tables(tmp_path / "local")
    labels = found["labels"]
    assert [labels["uri"][n].as_py() for n in (0, len(NAMES))] == [f"{bucket.url}/photos/{NAMES[0]}"] * 2
    assert [labels["manifest_uri"][n].as_py() for n in (0, len(NAMES))] == [None, f"photos/{NAMES[0]}"]
    for name in ("labels", "boxes"):
        but = ("uri", "key", "manifest_uri", "detector")  # other places, and weights that were named
        assert rows(found[name], *but) == rows(expected[name], *but)
    assert found["errors"].num_rows == 0


def test_a_folder_of_images_is_listed_labelled_and_drawn(
    server: Server, bucket: Store, tmp_path: Path
) -> None:
    path = job(server, bucket, tmp_path, manifest=f"{bucket.url}/photos", detector=None)
    checked = raylabel("check", path, "--json", **server.environment)
    assert (checked.returncode, checked.stderr) == (0, "")
    done = raylabel("run", path, **server.environment)
    assert (done.returncode, done.stderr) == (0, "")
    drawn = raylabel("show", path, "--draw", str(tmp_path / "pictures"), **server.environment)
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert f"{len(NAMES)} pictures drawn" in drawn.stdout
    run = download(bucket.below("tables/run"), tmp_path / "run")
    found = tables(run)
    assert sorted(found["labels"]["uri"].to_pylist()) == sorted(f"{bucket.url}/photos/{key}" for key in NAMES)
    left = [file.read_bytes() for file in run.rglob("*") if file.is_file()]
    left += [(done.stdout + str([table.to_pylist() for table in found.values()])).encode()]
    assert [data for data in left if KEY.encode() in data] == []
