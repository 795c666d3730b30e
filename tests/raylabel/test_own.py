"""raylabel's packages beside packages of the user's that have the same names."""

import os
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec
import pytest

from raylabel.own import own_modules
from tests.conftest import ROOT

USE = """
import sys
import jobs.mine
before = dict(sys.modules), list(sys.path)
from raylabel import api
assert api.label.__module__ == "raylabel.api"
with api.own_modules():
    from jobs.results.summary import Summary
    from schemas.exceptions import RaylabelError
    made = RaylabelError("lives on")
assert sys.modules["jobs"] is before[0]["jobs"]
assert sys.modules["jobs.mine"] is before[0]["jobs.mine"]
assert "jobs.results" not in sys.modules
assert sys.path == before[1]
import schemas
import workers.deep
print(jobs.mine.WHOSE, schemas.WHOSE, workers.deep.WHOSE, made)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with packages of the user's."""
    for name in ("jobs/__init__", "jobs/mine", "schemas/__init__", "workers/__init__", "workers/deep"):
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"WHOSE = {file.parent.name!r}\n")
    return tmp_path


def test_packages_of_the_users_are_the_users_before_and_after(project: Path) -> None:
    (project / "use.py").write_text(USE)
    done = subprocess.run(
        [sys.executable, "use.py"], capture_output=True, text=True, check=False, cwd=project
    )
    assert (done.stdout, done.stderr) == ("jobs schemas workers lives on\n", "")


def names() -> set[str]:
    """The modules that are there of packages with raylabel's names."""
    return {name for name in sys.modules if name.partition(".")[0] in ("jobs", "schemas", "workers")}


def test_what_one_block_has_imported_is_there_in_the_next() -> None:
    def words() -> Any:
        from schemas import words

        return words

    here, before = words(), names()
    with own_modules():
        one = words()
        with own_modules():
            assert words() is one
    with own_modules():
        assert words() is one
    assert one is not here
    assert one.__file__ == here.__file__ == str(ROOT / "schemas" / "words.py")
    assert words() is here
    assert names() == before


def test_an_error_in_a_block_leaves_everything_as_it_was() -> None:
    before = {name: sys.modules[name] for name in names()}
    with pytest.raises(ImportError), own_modules():
        import_module("jobs.of_nobody")
    assert {name: sys.modules[name] for name in names()} == before


def test_two_threads_are_never_in_such_a_block_at_once() -> None:
    inside = threading.Event()

    def other() -> None:
        with own_modules():
            inside.set()

    thread = threading.Thread(target=other)
    with own_modules():
        thread.start()
        assert not inside.wait(0.2)
    thread.join()
    assert inside.is_set()


def test_fsspec_reads_web_addresses_as_before() -> None:
    before = fsspec.get_filesystem_class("https")
    with own_modules():
        from workers.storage.filesystem import file_system

        ours = type(file_system("https://host/photos")[0])
        assert fsspec.get_filesystem_class("https") is ours
    assert fsspec.get_filesystem_class("https") is before is not ours
    with own_modules():
        assert fsspec.get_filesystem_class("https") is ours


def test_importing_raylabel_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import raylabel; assert 'label' in dir(raylabel); "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ
    )
    assert done.stdout == "raylabel\n"
