"""The tests' own S3 server."""

import re
from pathlib import Path

import psutil
import pytest

from tests.s3 import running_server


@pytest.mark.server
@pytest.mark.parametrize("killed", [False, True])
def test_a_server_leaves_nothing_in_the_temporary_folder_however_it_ends(killed: bool) -> None:
    before = set(psutil.Process().children())
    with running_server() as server:
        (process,) = set(psutil.Process().children()) - before
        ports = set(re.findall(r"port(?:\.grpc)?=(\d+)", " ".join(process.cmdline())))
        assert server.endpoint.rpartition(":")[2] in ports
        folder = process.cwd()
        if killed:
            process.kill()
    left = [path.name for path in Path("/tmp").iterdir() if ports & set(re.findall(r"\d+", path.name))]
    assert left == []
    assert not Path(folder).exists()
