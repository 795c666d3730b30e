import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.results.writing import whole_file, whole_folder
from schemas.exceptions import SpecError, StorageError
from schemas.exit_codes import BROKEN_PIPE
from schemas.ledger import SourceFile
from tests.conftest import ROOT
from tests.jobs.results.test_datasets import begun, publish
from tests.workers.tables.made_results import record


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


OF_A_RUN = ("run.json", "_SUCCESS", "_work/a.csv", "labels/shard-00000.parquet", "boxes/new/a.html", "tags")


@pytest.mark.parametrize("name", OF_A_RUN)
def test_nothing_is_written_among_the_files_of_any_run(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    publish(begun(str(run)), 0, 1, 2)
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "link").symlink_to(run / name)
    before = sorted(run.rglob("*"))
    for target in (run / name, run / "labels" / ".." / name, tmp_path / "link"):
        with pytest.raises(StorageError, match=f"is a part of the run at {run}; name a"), whole_file(target):
            pass
        with (
            pytest.raises(StorageError, match=f"is a part of the run at {run}; name a"),
            whole_folder(target),
        ):
            pass
    assert sorted(run.rglob("*")) == before


def test_a_run_may_have_a_report_an_index_and_results_beside_its_own_files(tmp_path: Path) -> None:
    publish(begun(str(tmp_path / "run")), 0)
    for name in ("report.html", "search.duckdb", "dogs.csv"):
        with whole_file(tmp_path / "run" / name) as file:
            file.touch()
    with whole_folder(tmp_path / "run" / "exports" / "labels"):
        pass
    with whole_folder(tmp_path / "labels"):  # what a run calls its tables others may have, too
        pass


def test_a_manifest_of_the_run_that_is_read_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_text("uri")
    (tmp_path / "link.csv").symlink_to("photos.csv")
    source = SourceFile(uri=str(tmp_path / "photos.csv"), size=3, version="1")
    for name in ("photos.csv", "link.csv"):
        with (
            pytest.raises(StorageError, match=f"{name}: it is a manifest of the run; name another file"),
            whole_file(tmp_path / name, [".csv"], [record(manifest=[source])]),
        ):
            pass
    assert (tmp_path / "photos.csv").read_text() == "uri"


def test_only_a_name_of_the_same_kind_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("manifest:")
    with (
        pytest.raises(SpecError, match=r"write .*job.yaml: allowed are files that end in .html or .htm"),
        whole_file(tmp_path / "job.yaml", [".html", ".htm"]),
    ):
        pass
    for name in ("a.HTML", "a.HTML"):
        with whole_file(tmp_path / name, [".html", ".htm"]) as file:
            file.write_text(name)


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
