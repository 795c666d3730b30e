"""The command from any folder, with any PYTHONPATH: all its processes import raylabel's and Python's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.jobs_here import COMMAND

HIDING = "open({mark!r}, 'a').write(__name__ + '\\n')\nraise ImportError('neither raylabel nor Python')\n"
"""What a module of the user's does when it is taken for another."""

REPORT = """
import json, sys
sys.path.insert(0, {root!r})
from raylabel import command
command.put_last(command.hiding_folders())
import jobs, schemas, workers, secrets
from workers.process.child import Child
from workers.process.forkserver import ForkServer
from tests.raylabel.test_command import reporting
server = ForkServer("json")
child = Child(server.address, reporting, None, 1)
print(json.dumps(child(None)))
child.end()
server.end()
"""


def reporting(_: object) -> object:
    """Builds a function that reports where a child's modules are, one of the user's among them."""
    import secrets

    import my_model  # type: ignore[import-not-found]

    import schemas
    import workers

    return lambda *_: [str(module.__file__) for module in (secrets, schemas, workers, my_model)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of the user's with a model, and with modules that are named as raylabel's and Python's."""
    for package in ("jobs", "schemas", "workers", "email"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(HIDING.format(mark=str(tmp_path / "hidden")))
    for module in ("secrets", "logging", "queue", "random", "signal"):
        (tmp_path / f"{module}.py").write_text(HIDING.format(mark=str(tmp_path / "hidden")))
    (tmp_path / "my_model.py").touch()
    return tmp_path


def run_in(folder: Path, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("path", [".", "{project}:/nowhere"])
def test_modules_of_a_folder_hide_neither_raylabels_nor_pythons(project: Path, path: str) -> None:
    done = run_in(project, COMMAND, "status", "nowhere", PYTHONPATH=path.format(project=project))
    hidden = project / "hidden"
    assert not hidden.exists(), hidden.read_text()
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == "raylabel: found no run at nowhere; `raylabel run` makes one\n"


def test_a_child_process_finds_a_model_of_the_users_in_a_folder_that_hides_modules(project: Path) -> None:
    done = run_in(project, sys.executable, "-P", "-c", REPORT.format(root=str(ROOT)), PYTHONPATH=str(project))
    assert done.stderr == ""
    secrets, schemas, workers, model = json.loads(done.stdout)
    assert secrets == f"{Path(os.__file__).parent}/secrets.py"
    assert (schemas, workers) == (f"{ROOT}/schemas/__init__.py", f"{ROOT}/workers/__init__.py")
    assert model == f"{project}/my_model.py"


def test_a_folder_on_pythonpath_that_hides_nothing_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()  # without __init__.py it hides nothing
    (tmp_path / "my_model.py").touch()
    code = (
        f"import os, sys; sys.path.append({str(ROOT)!r}); from raylabel import command; "
        "command.put_last(command.hiding_folders()); print(sys.path[0], os.environ['PYTHONPATH'])"
    )
    done = run_in(tmp_path, sys.executable, "-P", "-c", code, PYTHONPATH=str(tmp_path))
    assert (done.stdout, done.stderr) == (f"{tmp_path} {tmp_path}\n", "")


def test_a_signal_while_the_command_starts_ends_it_with_a_sentence(tmp_path: Path) -> None:
    """The modules that it imports first send it, which is as early as can be."""
    for number, name, code in ((2, "Ctrl-C", 130), (15, "SIGTERM", 143), (1, "SIGHUP", 129)):
        script = (
            f"import os, sys; sys.path.append({str(ROOT)!r}); "
            "from raylabel import command; command.leave_on_signals(); "
        )
        done = run_in(tmp_path, sys.executable, "-c", script + f"os.kill(os.getpid(), {number})")
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr == f"raylabel: stopped by {name} while starting; the same command begins again\n"
