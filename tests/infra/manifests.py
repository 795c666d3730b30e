"""The files of infra/ as plain values, and what several tests ask of them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

INFRA = ROOT / "infra"
DOCKERFILE, COMPOSE, AWS, README = (
    INFRA / name for name in ("Dockerfile", "compose.yaml", "aws/cluster.yaml", "README.md")
)
KUBERNETES = sorted((INFRA / "kuberay").glob("*.yaml"))
MONITORING = sorted((INFRA / "monitoring").iterdir())
FILES = [DOCKERFILE, COMPOSE, AWS, README, INFRA / ".env.example", *KUBERNETES, *MONITORING]


def documents(path: Path) -> list[dict[str, Any]]:
    """The YAML documents of a file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def kubernetes(kind: str) -> dict[str, Any]:
    """The one object of a kind in infra/kuberay."""
    (found,) = (each for path in KUBERNETES for each in documents(path) if each["kind"] == kind)
    return found


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The head group and the worker groups of a RayCluster's spec."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pod(group: dict[str, Any]) -> dict[str, Any]:
    """The spec of a group's pods."""
    spec: dict[str, Any] = group["template"]["spec"]
    return spec


def container(group: dict[str, Any]) -> dict[str, Any]:
    """The container of a group's pods that runs Ray."""
    first: dict[str, Any] = pod(group)["containers"][0]
    return first


def compose() -> dict[str, Any]:
    """compose.yaml, as it is written: nothing is put in the place of its variables."""
    (found,) = documents(COMPOSE)
    return found


def strings(value: object) -> Iterator[str]:
    """Every text in plain values, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for each in value.values() for text in strings(each))
    elif isinstance(value, list):
        yield from (text for each in value for text in strings(each))


def commands(text: str, program: str) -> Iterator[list[str]]:
    """The arguments of each call of a program in the code of a text, up to where the shell would end it."""
    for line in re.sub(r"\\\n[#\s]*", " ", text).splitlines():
        indented = re.match(r"(?:#? {4,}|RUN |CMD )(.*?)(?: #.*)?$", line)
        for code in [indented[1]] if indented else re.findall(r"`([^`]+)`", line):
            for call in re.findall(rf"(?:^|[\s'\"]){program} (?=[a-z])([^'\"]*)", code):
                yield shlex.split(re.split(r" && |; | {2,}", call)[0])
