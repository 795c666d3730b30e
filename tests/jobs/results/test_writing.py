import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.results.writing import whole_file, whole_folder
from schemas.exceptions import StorageError
from schemas.exit_codes import BROKEN_PIPE
from tests.conftest import ROOT
from tests.jobs.results.test_datasets import begun, publish


def write_half(path: Path) -> None:
    with whole_file(path) as file:
        file.write_text("half")
        raise ZeroDivisionError


def test_a_file_gets_its_name_once_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before")
    (tmp_path / "link.txt").symlink_to("a.txt")
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "before"
    for name in ("link.txt", "a.txt", "new.txt"):
        with whole_file(tmp_path / name) as file:
            file.write_text(f"of {name}")
        assert (tmp_path / name).read_text() == f"of {name}"
    assert (tmp_path / "link.txt").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "link.txt", "new.txt"]


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(StorageError, match="it exists, and is no file"), whole_file(tmp_path / name):
            pass
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("pipe", "dangling"):
        with pytest.raises(StorageError, match="exists; name a folder"), whole_folder(tmp_path / name):
            pass
    assert (tmp_path / "pipe").is_fifo()


def test_a_command_that_ends_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    publish(begun(str(tmp_path / "run")), 0)
    (tmp_path / "tmp").mkdir()
    query = "SELECT range, repeat('x', 100) AS text FROM range(300000) ORDER BY hash(range)"
    command = [sys.executable, "-m", "raylabel", "sql", str(tmp_path / "run"), query, "--csv"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"range,text\n"
        assert [path.name[:13] for path in (tmp_path / "tmp").iterdir()] == ["raylabel-sql-"]
        process.stdout.close()  # as `head -1` does
        assert process.wait() == BROKEN_PIPE
    assert list((tmp_path / "tmp").iterdir()) == []
