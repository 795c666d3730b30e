import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from workers.process.leftovers import delete_abandoned, temporary_folder

HOLDS = """
import sys, time
from pathlib import Path
from workers.process.leftovers import temporary_folder

with temporary_folder(sys.argv[1], Path(sys.argv[2])) as folder:
    (folder / "file").write_text("half")
    print(folder.name, flush=True)
    time.sleep(60)
"""


def holding(prefix: str, parent: Path) -> tuple["subprocess.Popen[str]", str]:
    """Another process that has such a folder, and the folder's name."""
    command = [sys.executable, "-c", HOLDS, prefix, str(parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    return process, process.stdout.readline().strip()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_folder_of_a_process_that_was_killed_is_deleted_by_the_next_one(tmp_path: Path) -> None:
    mine = {".a.duckdb.", ".a.duckdb.old", ".a.duckdb.12345678-1-1"}
    for name in mine:
        (tmp_path / name).mkdir()
    process, name = holding(".a.duckdb.", tmp_path)
    with process:
        with temporary_folder(".a.duckdb.", tmp_path) as folder:
            assert names_in(tmp_path) == {*mine, name, folder.name}  # it runs
        process.send_signal(signal.SIGKILL)
        process.wait()
    with temporary_folder(".b.duckdb.", tmp_path):
        assert (tmp_path / name / "file").exists()
    with temporary_folder(".a.duckdb.", tmp_path) as folder:
        assert names_in(tmp_path) == {*mine, folder.name}
    assert names_in(tmp_path) == mine


def test_the_folder_of_another_machine_stays(tmp_path: Path) -> None:
    other = tmp_path / ".x.00000000-999999999-1.abcdefgh"
    other.mkdir()
    delete_abandoned(".x.", tmp_path)
    assert other.is_dir()
    delete_abandoned(".x.", tmp_path / "none")
