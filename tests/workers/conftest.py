"""What the tests of reading from S3 share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3 import S3Server
from tests.workers.storage.proxied import OBJECT, ProxiedBucket, proxied_bucket


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    """A bucket with OBJECT as a.jpg."""
    bucket = s3.new_bucket()
    s3.files().pipe_file(f"{bucket}/a.jpg", OBJECT)
    return bucket


@pytest.fixture
def proxied(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProxiedBucket]:
    """The bucket behind a proxy, to which the usual AWS variables lead."""
    with proxied_bucket(s3, bucket) as behind_proxy:
        for name, value in behind_proxy.server.environment.items():
            monkeypatch.setenv(name, value)
        yield behind_proxy


@pytest.fixture
def no_configuration(
    proxied: ProxiedBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ProxiedBucket:
    """Nothing that says where S3 is and who may read."""
    for name in proxied.server.environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return proxied
