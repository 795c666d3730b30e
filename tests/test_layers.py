"""Which part may import which: `schemas ← workers ← jobs`, and within them the wings of `WINGS`."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

WORKERS = {
    "workers.storage": set(),
    "workers.process": set(),
    "workers.decode": set(),
    "workers.fetch": {"workers.storage"},
    "workers.models": {"workers.storage", "workers.tables"},
    "workers.tables": {"workers.storage"},
    "workers.ledger": {"workers.tables", "workers.storage"},
    "workers.manifest": {"workers.fetch", "workers.storage"},
}
WINGS: dict[str, set[str]] = {
    "schemas": set(),
    **WORKERS,
    "workers.label": {*WORKERS},
    "jobs.prepare": {"workers"},
    "jobs.results": {"workers"},
    "jobs.verify": {"workers"},
    "jobs.cluster": {"workers", "jobs.results"},
    "jobs.report": {"workers", "jobs.results"},
    "jobs.exports": {"workers", "jobs.results"},
    "jobs.search": {"workers", "jobs.results"},
    "jobs.serve": {"workers", "jobs.results", "jobs.search"},
    "jobs.plan": {"workers", "jobs.prepare", "jobs.cluster"},
    "jobs.run": {"workers", "jobs.prepare", "jobs.cluster", "jobs.results", "jobs.report"},
    "jobs.cli": {"workers", "jobs"},
}
"""What each wing may import beside itself, `schemas`, and what is no wing (`workers.batched`).

A wing that is not here is a test's failure: say here what it may import.
"""

FORBIDDEN = {
    "schemas": {"torch", "torchvision", "ray", "jobs", "workers", "raylabel", "infra", "tests"},
    "workers": {"ray", "jobs", "raylabel", "infra", "tests"},
    "jobs": {"raylabel", "infra", "tests"},
    "raylabel": {"torch", "torchvision", "ray", "infra", "tests"},
}
"""What a package may not import at all, in any line of it."""

PARENTS = (
    *("workers.label.actors", "workers.label.supervise", "workers.label.settings", "workers.label.transfer"),
    *("workers.process.child", "workers.process.forkserver", "workers.process.serve"),
    *("workers.manifest.manifest", "workers.ledger.publish", "workers.tables.results"),
)
"""What an actor's process imports: models are in its child, which may crash."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages, by its dotted name."""
    files = [path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))]
    return {_name(path): path for path in files}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(module: str) -> Iterator[str]:
    """The full names that a module imports anywhere in it."""
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def needs(module: str) -> set[str]:
    """The modules of ours that a module imports."""
    names = set(imported(module))
    return {owner for name in names if (owner := _owner(name))} - {module}


def _owner(name: str) -> str | None:
    """The module that a full name is, or is in; None of what is not ours."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or None


def wing_of(module: str) -> str | None:
    """The wing that a module is in; None of a package itself and of what is in no wing."""
    package, *inner = module.split(".")
    if package == "schemas":
        return package
    return f"{package}.{inner[0]}" if inner and (ROOT / package / inner[0]).is_dir() else None


def may_import(wing: str, other: str) -> bool:
    return other in {wing, "schemas"} or any(other == it or other.startswith(f"{it}.") for it in WINGS[wing])


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_nothing_that_builds_on_it(package: str) -> None:
    own = [module for module in modules() if module.partition(".")[0] == package]
    wrong = {
        module: bad
        for module in own
        if (bad := {name.partition(".")[0] for name in imported(module)} & FORBIDDEN[package])
    }
    assert own
    assert wrong == {}


def test_every_folder_of_workers_and_jobs_is_a_wing_of_the_table() -> None:
    assert {wing for module in modules() if (wing := wing_of(module))} == WINGS.keys()


def test_a_wing_imports_the_wings_that_the_table_allows_and_no_other() -> None:
    wrong = {
        (module, other)
        for module in modules()
        for other in needs(module)
        if (wing := wing_of(module)) and (there := wing_of(other)) and not may_import(wing, there)
    }
    assert wrong == set()


def test_no_module_needs_itself() -> None:
    """CycleError names the circle."""
    graph = TopologicalSorter({module: needs(module) for module in modules()})
    assert len(list(graph.static_order())) == len(modules())


def loaded(code: str, names: set[str]) -> set[str]:
    """Which of some modules a fresh process has after some code."""
    code = f"import sys; {code}; print(*sorted({names} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(out.stdout.split())


def test_the_command_line_starts_without_what_is_slow_to_import() -> None:
    heavy = {"torch", "ray", "pyarrow", "torchvision", "timm", "pydantic", "rich", "yaml"}
    assert loaded("import jobs.cli.app", heavy) == set()


def test_an_actors_own_process_imports_no_torch() -> None:
    assert loaded(f"import {', '.join(PARENTS)}", {"torch", "torchvision", "timm", "onnxruntime"}) == set()


def test_a_run_is_verified_without_models_or_ray() -> None:
    assert loaded("import jobs.verify.reconcile", {"torch", "ray", "timm"}) == set()


def test_raylabel_in_python_takes_no_module_from_the_users_packages_and_needs_no_ray() -> None:
    modules = {"jobs", "workers", "schemas", "torch", "ray"}
    assert (
        loaded("import raylabel.api; raylabel.label; raylabel.Run; raylabel.StoppedError", modules) == set()
    )
