from pathlib import Path

import pytest

from tests.s3 import S3Server


@pytest.fixture(params=["disk", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A run directory on a local disk, and one in a bucket."""
    if request.param == "disk":
        return str(tmp_path / "out")
    server: S3Server = request.getfixturevalue("s3")
    return f"s3://{server.new_bucket()}/out"
