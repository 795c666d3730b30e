import os
import tempfile
from pathlib import Path

import pytest

from tests.workers.process.test_child import SHARE, serving
from workers.process.child import Child
from workers.process.forkserver import ForkServer
from workers.process.sockets import MAX_PATH, SHORT, short_folder


def test_the_folder_for_temporary_files_is_taken_where_a_socket_fits_in(tmp_path: Path) -> None:
    room = MAX_PATH - len(str(tmp_path))
    assert short_folder(room, str(tmp_path)) == str(tmp_path)
    assert short_folder(room + 1, str(tmp_path)) in SHORT
    assert short_folder(1, str(tmp_path / "gone")) in SHORT
    with pytest.raises(
        OSError, match="no folder for sockets: none of /tmp, /tmp, /var/tmp, /dev/shm is short"
    ):
        short_folder(MAX_PATH, "/tmp")


def test_bytes_count_and_not_characters() -> None:
    folder = tempfile.mkdtemp(prefix="é", dir="/tmp")
    try:
        assert short_folder(MAX_PATH - len(folder), folder) != folder
    finally:
        os.rmdir(folder)


def test_children_start_where_temporary_files_have_a_long_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    fork_server = ForkServer("json")
    child = Child(fork_server.address, serving, None, SHARE)
    assert child(("echo", 1)) == 1
    child.end()
    fork_server.end()
    assert not Path(fork_server.address).parent.exists()
