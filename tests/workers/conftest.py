"""What the tests of reading from S3 share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3 import S3Server
from tests.workers.storage.way import OBJECT, Way, way_to


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    """A bucket with OBJECT as a.jpg."""
    bucket = s3.new_bucket()
    s3.files().pipe_file(f"{bucket}/a.jpg", OBJECT)
    return bucket


@pytest.fixture
def way(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """The way to the bucket, which the usual AWS variables lead to."""
    with way_to(s3, bucket) as found:
        for name, value in found.server.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def no_configuration(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Nothing that says where S3 is and who may read."""
    for name in way.server.environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return way
