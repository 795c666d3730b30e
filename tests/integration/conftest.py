from collections.abc import Iterator

import pytest

from jobs.cluster import connect as cluster
from tests.s3 import S3Server


@pytest.fixture(scope="session")
def ray_here(s3: S3Server) -> Iterator[None]:  # noqa: ARG001 - Ray's workers inherit the way to the server
    """One Ray for all the jobs that run in this process."""
    with cluster.connect(None):
        yield
