"""A run that lasts longer than its credentials."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.jobs_here import events, raylabel
from tests.s3 import S3Server, running_server
from tests.s3_proxy import Exchange, proxying

pytestmark = pytest.mark.slow

LIVE_S = 4
"""For how long each key is the newest one; it is good for twice that."""

KEYS = [(f"short-{n:02d}", f"short-lived-secret-{n:02d}") for n in range(100)]

PROCESS = f"""
import json, time
now = int(time.time()) // {LIVE_S}
ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((now + 2) * {LIVE_S}))
key, secret = f"short-{{now % 100:02d}}", f"short-lived-secret-{{now % 100:02d}}"
print(json.dumps({{"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret, "Expiration": ends}}))
"""


@dataclass
class Guard:
    """Lets through who has a key that is good now.

    Attributes:
        server: behind the guard.
        passed: the key and method of each request.
        refused: likewise.
    """

    server: S3Server
    passed: set[tuple[str, str]] = field(default_factory=set)
    refused: set[tuple[str, str]] = field(default_factory=set)

    def look(self, exchange: Exchange) -> None:
        signed = exchange.headers.get("Authorization") or exchange.headers.get("authorization", "")
        key = signed.partition("Credential=")[2].partition("/")[0]
        good = {KEYS[(newest() - age) % 100][0] for age in (0, 1)}
        if not key.startswith("short-") or key in good:
            self.passed.add((key, exchange.method))
        else:
            self.refused.add((key, exchange.method))
            exchange.refuse(400, "ExpiredToken")


def newest() -> int:
    """The number of the newest key."""
    return int(time.time()) // LIVE_S


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    """A server whose keys do not last."""
    with running_server(more=KEYS) as server:
        found = Guard(server)
        with proxying(server, before=found.look) as found.server:
            yield found


def renew_by_process(folder: Path) -> None:
    """Configures AWS's tools to ask a command for credentials."""
    (folder / "credentials.py").write_text(PROCESS)
    command = f"{sys.executable} -S {folder / 'credentials.py'}"
    (folder / "config").write_text(f"[default]\ncredential_process = {command}\n")


def write_newest(folder: Path) -> None:
    """Puts the newest key where AWS's tools look for it, as a whole."""
    key, secret = KEYS[newest() % 100]
    aside = folder / "aside"
    aside.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    aside.rename(folder / "credentials")


@pytest.fixture
def rewriting(tmp_path: Path) -> Iterator[None]:
    """Somebody who keeps the credentials file fresh."""
    write_newest(tmp_path)
    ended = threading.Event()

    def rewrite() -> None:
        while not ended.wait(0.2):
            write_newest(tmp_path)

    thread = threading.Thread(target=rewrite)
    thread.start()
    yield
    ended.set()
    thread.join()


def run(guard: Guard, photos: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Runs a job that reads images for a quarter of a minute; its last event."""
    for name in guard.server.environment:
        monkeypatch.delenv(name, raising=False)
    bucket, files = guard.server.new_bucket(), guard.server.files()
    names = sorted(photos.glob("*.[pj]*g"))
    for photo in names:
        files.put_file(str(photo), f"{bucket}/{photo.name}")
    files.pipe_file(f"{bucket}/all.txt", "\n".join(photo.name for photo in names * 7).encode())
    spec = {
        "manifest": f"s3://{bucket}/all.txt",
        "output": f"s3://{bucket}/run",
        "detector": None,
        "fetch": {"rate": 3},
        "units": {"rows": 4, "shard_rows": 20},
        "compute": {"actors": 1},
        "storage": {"s3://": {"endpoint": guard.server.endpoint, "region": "us-east-1"}},
    }
    (folder / "job.yaml").write_text(json.dumps(spec))
    files_of_aws = {
        "AWS_CONFIG_FILE": str(folder / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    guard.passed.clear()
    guard.refused.clear()
    done = raylabel("run", str(folder / "job.yaml"), "--json", **files_of_aws)
    assert done.returncode == 0, done.stderr
    return events(done)[-1]


def keys_of(requests: set[tuple[str, str]], method: str) -> set[str]:
    """The keys that a kind of request was signed with."""
    return {key for key, asked in requests if asked == method}


def test_credentials_of_a_command_are_asked_for_again_in_time(
    guard: Guard, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew_by_process(tmp_path)
    done = run(guard, photos, tmp_path, monkeypatch)
    assert (done["labels"], done["errors"]) == (49, 0)
    assert len(keys_of(guard.passed, "GET")) > 2
    assert len(keys_of(guard.passed, "PUT")) > 2
    assert keys_of(guard.refused, "PUT") == set()


@pytest.mark.usefixtures("rewriting")
def test_a_credentials_file_that_was_written_anew_is_read_again(
    guard: Guard, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(guard, photos, tmp_path, monkeypatch)
    assert (done["labels"], done["errors"]) == (49, 0)
    assert len(keys_of(guard.passed, "GET")) > 2
    assert len(keys_of(guard.passed, "PUT")) > 2
    assert keys_of(guard.refused, "PUT")
