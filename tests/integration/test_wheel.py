"""The wheel as a user installs it, in an environment that knows nothing of this checkout."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.jobs_here import tables

SHADOW = "open({mark!r}, 'a').write(__name__ + '\\n')\nraise ImportError('this is not raylabel')\n"
"""What a folder's own module does when it is taken for raylabel's."""

MINE = "open({mark!r}, 'a').write(__name__ + '\\n')\nWHOSE = 'mine'\n"
"""A package of the user's, which says when it is imported."""

PROGRAM = """
import jobs
import raylabel

job = {{
    "manifest": "{photos}/c*.png",
    "output": "{output}",
    "detector": None,
    "compute": {{"actors": 1}},
}}
run = raylabel.label(job, progress=None)
again = raylabel.open_run("{output}")
tables = [table().to_table() for table in (again.labels, again.boxes, again.errors)]
for table in (again.tags, again.embeddings):
    try:
        table()
    except raylabel.SpecError:
        pass
assert again.summary()["labelled"] == 3
assert again.status()["state"] == "complete"
pictures = again.draw("pictures")
mine = jobs
import jobs
import workers
assert jobs is mine
assert (jobs.WHOSE, workers.WHOSE) == ("mine", "mine")
print(raylabel.__file__)
print(*(table.num_rows for table in tables))
print(*(picture.stem for picture in pictures))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, to which the packages here lend what raylabel depends on.

    Paths in a .pth are searched, but .pth files in them are not read: so it does not see this checkout.
    """
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(".*", "build", "dist", "tests"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(folder / "source")], check=True)
    (wheel,) = folder.glob("raylabel-*.whl")

    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    lent = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "lent.pth").write_text("\n".join(lent))
    install = [*pip, "--python", str(environment), "install", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([*install, str(wheel)], check=True)
    return environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packages that are named as raylabel's, and a module that is named as Python's."""
    folder = tmp_path_factory.mktemp("folder")
    for name in ("jobs", "workers", "schemas"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(SHADOW.format(mark=str(folder / "shadowed")))
    (folder / "secrets.py").write_text(SHADOW.format(mark=str(folder / "shadowed")))
    return folder


def test_an_installed_raylabel_runs_beside_folders_named_as_its_packages(
    environment: Path, folder: Path, photos: Path
) -> None:
    job = ["--manifest", f"{photos}/c*.png", "--output", "out", "--detector", "none"]
    done = subprocess.run(
        [environment / "bin" / "raylabel", "run", *job, "--set", "compute.actors=1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "."},
    )
    shadowed = folder / "shadowed"
    assert not shadowed.exists(), shadowed.read_text()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert tables(folder / "out")["labels"].num_rows == 3
    assert "data:image/jpeg" in (folder / "out" / "report.html").read_text()  # its template is in the wheel


@pytest.mark.slow
def test_a_program_labels_and_reads_in_python_beside_packages_of_its_own(
    environment: Path, folder: Path, photos: Path, tmp_path: Path
) -> None:
    """The run is the one that the command made, if that test went before: images are labelled only once."""
    for name in ("jobs", "workers", "schemas"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(MINE.format(mark=str(tmp_path / "imported")))
    (tmp_path / "program.py").write_text(PROGRAM.format(photos=photos, output=folder / "out"))
    done = subprocess.run(
        [environment / "bin" / "python", "program.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert (done.returncode, done.stderr) == (0, "")
    *_, location, counts, pictures = done.stdout.splitlines()
    assert location.startswith(str(environment))
    assert (counts, pictures) == ("3 0 0", "00000-camera 00001-chelsea 00002-coffee")
    assert (tmp_path / "imported").read_text() == "jobs\nworkers\n"


def test_type_checkers_see_its_types(environment: Path) -> None:
    (marker,) = environment.glob("lib/python*/site-packages/raylabel/py.typed")
    assert marker.read_text() == ""


def test_its_modules_are_those_of_the_wheel(environment: Path, folder: Path) -> None:
    ask = "import jobs, workers, schemas; print(*(each.__file__ for each in (jobs, workers, schemas)))"
    done = subprocess.run(
        [environment / "bin" / "python", "-P", "-c", ask],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert all(path.startswith(str(environment)) for path in done.stdout.split())
