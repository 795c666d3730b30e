"""Imports run one way: schemas ← workers ← jobs; nothing imports infra."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FORBIDDEN = {
    "schemas": {"torch", "torchvision", "ray", "workers", "jobs", "infra", "tests"},
    "workers": {"ray", "jobs", "infra", "tests"},
    "jobs": {"infra", "tests"},
}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", list(FORBIDDEN))
def test_a_package_imports_nothing_that_builds_on_it(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    wrong = {str(f.relative_to(ROOT)): bad for f in files if (bad := imported(f) & FORBIDDEN[package])}
    assert files
    assert wrong == {}


def test_the_command_line_starts_without_what_is_slow_to_import() -> None:
    heavy = "{'torch', 'ray', 'pyarrow', 'torchvision', 'timm', 'pydantic', 'rich', 'yaml'}"
    code = f"import sys, jobs.cli; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"
