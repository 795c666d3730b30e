"""infra/Dockerfile: linted, and given all that the wheel is made of."""

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.infra.manifests import DOCKERFILE

HADOLINT = Path(sys.executable).parent / "hadolint"

OPTIONAL = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

needs_hadolint = pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint is not installed")


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HADOLINT), "--no-color", str(path)], capture_output=True, text=True, check=False
    )


def lines() -> list[str]:
    """The instructions, each in one line."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    return [line for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines() if line]


@needs_hadolint
def test_hadolint_finds_nothing() -> None:
    done = lint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


@needs_hadolint
def test_hadolint_finds_what_is_wrong(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(DOCKERFILE.read_text().replace("USER 1000", "USER root"))
    assert "DL3002" in lint(broken).stdout


def copied() -> list[str]:
    """What the build takes from the repository."""
    return [source for line in lines() if line.startswith("COPY ") for source in line.split()[1:-1]]


def ignored(name: str) -> bool:
    """Whether .dockerignore keeps a path from the build; the last line that fits decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if pattern and not line.startswith("#") and fnmatch.fnmatch(Path(name).parts[0], pattern):
            verdict = not line.startswith("!")
    return verdict


def test_all_that_the_wheel_is_made_of_gets_into_the_build() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    code = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    project = settings["project"]
    assert {"pyproject.toml", project["readme"], *project["license-files"], *code} == set(copied())
    assert all((ROOT / name).exists() and not ignored(name) for name in copied())


@pytest.mark.parametrize("name", [".git", ".venv", "infra", "infra/.env", "build", "runs", "s3.env", "tests"])
def test_nothing_else_gets_into_the_build(name: str) -> None:
    assert ignored(name)


def test_it_runs_as_the_user_that_the_manifests_name_and_starts_no_program_of_its_own() -> None:
    assert [line for line in lines() if line.startswith("USER ")] == ["USER 1000"]
    assert any("useradd" in line and "--uid 1000" in line and line.endswith(" ray") for line in lines())
    assert not any(line.startswith("ENTRYPOINT") for line in lines())


def test_what_kuberay_and_ray_up_call_is_installed() -> None:
    (packages,) = (
        line.partition("--no-install-recommends ")[2] for line in lines() if "apt-get install" in line
    )
    assert {"bash", "wget", "procps", "rsync", "openssh-client"} <= set(packages.partition(" &&")[0].split())
    assert any(re.search(r"pip install .*\bboto3==", line) for line in lines())


@pytest.mark.parametrize(("extras", "end"), [("", ".whl"), ("heif,transformers", ".whl[heif,transformers]")])
def test_extras_are_installed_with_the_wheel_where_they_are_asked_for(
    extras: str, end: str, tmp_path: Path
) -> None:
    (line,) = (line for line in lines() if "/wheel/*.whl" in line)
    assert all(extra in OPTIONAL for extra in extras.split(",") if extra)
    (tmp_path / "raylabel-1-py3-none-any.whl").touch()
    argument = line[line.index('"$') :].replace("/wheel/", f"{tmp_path}/")
    said = subprocess.run(
        ["sh", "-c", f"printf %s {argument}"],
        env={"EXTRAS": extras},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{tmp_path}/raylabel-1-py3-none-any{end}"


def test_no_host_is_written_into_it() -> None:
    assert not re.search(r"https?://", DOCKERFILE.read_text())
