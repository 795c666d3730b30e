"""What `make demo-s3` runs: the demo with photos, manifest, weights and tables all in buckets.

The S3 server is SeaweedFS, started on this machine with credentials that are made up, and ended with the
demo. A MinIO of yours takes the same: a job spec like the one of `job_of`, and two variables that hold your
key and secret.
"""

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import s3fs
import yaml

from tests.s3 import S3Server, running_server
from workers.models.sources.nanodet import SHA256, WEIGHTS

PHOTOS = Path(__file__).parent / "photos"
COMMAND = Path(sys.executable).parent / "raylabel"


def job_of(endpoint: str) -> dict[str, Any]:
    """The job spec: where the server is and which variables hold the credentials, and otherwise URLs."""
    return {
        "manifest": "s3://demo-photos/manifest.csv",
        "output": "s3://demo-tables/run",
        "classifier": {"model": "efficientnet_lite0", "top_k": 5},
        "detector": {
            "model": "nanodet_g",
            "weights": f"s3://demo-models/{WEIGHTS.name}",
            "sha256": SHA256,
            "score_threshold": 0.4,
        },
        "storage": {"s3://": {"endpoint": endpoint, "credentials_env_prefix": "DEMO"}},
    }


def environment_of(server: S3Server) -> dict[str, str]:
    """The variables that `credentials_env_prefix: DEMO` names, beside all others that there are."""
    return {**os.environ, "DEMO_ACCESS_KEY_ID": server.key, "DEMO_SECRET_ACCESS_KEY": server.secret}


def fill(files: s3fs.S3FileSystem) -> None:
    """Makes the buckets, and puts photos, manifest and weights into them.

    The manifest names photos both ways: by URL, and by a path from its own folder on.
    """
    for bucket in ("demo-photos", "demo-models", "demo-tables"):
        files.mkdir(bucket)
    photos = sorted(PHOTOS.glob("*.[jp]*g"))
    for photo in photos:
        files.put_file(str(photo), f"demo-photos/photos/{photo.name}")
    starts = ("s3://demo-photos/photos/", "photos/")
    uris = [f"{starts[n % 2]}{photo.name}" for n, photo in enumerate(photos)]
    files.pipe_file("demo-photos/manifest.csv", "\n".join(["uri", *uris]).encode())
    files.put_file(str(WEIGHTS), f"demo-models/{WEIGHTS.name}")


def raylabel(*arguments: str, environment: dict[str, str]) -> None:
    """Runs a command to its end, and ends with its exit code where that is not 0.

    A stop ends the command first, in order, while there still is a server.
    """
    print(f"\n$ raylabel {' '.join(arguments)}", flush=True)
    process = subprocess.Popen([COMMAND, *arguments], env=environment, start_new_session=True)
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if code:
        sys.exit(code)


def demo(folder: Path) -> None:
    """Labels the demo photos from bucket to bucket.

    Args:
        folder: gets the job spec, the pictures and a copy of the tables.
    """
    job, pictures, copy = folder / "job.yaml", folder / "pictures", folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    with running_server(f"demo-{secrets.token_hex(4)}", secrets.token_hex(16)) as server:
        fill(server.files())
        job.write_text(yaml.safe_dump(job_of(server.endpoint), sort_keys=False))
        print(
            f"{job}, for which DEMO_ACCESS_KEY_ID and DEMO_SECRET_ACCESS_KEY are set:\n\n{job.read_text()}",
            end="",
        )
        environment = environment_of(server)
        raylabel("run", str(job), environment=environment)
        raylabel("show", str(job), "--draw", str(pictures), environment=environment)
        server.files().get("demo-tables/run", str(copy), recursive=True)
    print(
        "\nphotos and manifest were in s3://demo-photos, weights in s3://demo-models, tables in "
        f"s3://demo-tables/run: copied to {copy} before the server ended"
    )


def stop(number: int, _: FrameType | None) -> None:
    """Ends the demo and all that it started, once, whatever comes meanwhile."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    demo(Path(sys.argv[1]))
