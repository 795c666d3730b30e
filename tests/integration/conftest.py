from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cluster import connect as cluster
from tests.s3 import S3Server


@pytest.fixture(scope="session")
def ray_here(s3: S3Server) -> Iterator[Path]:  # noqa: ARG001 - Ray's workers inherit the way to the server
    """One Ray for all the jobs that run in this process; the folder of its logs."""
    with cluster.connect(None) as logs:
        yield logs
