"""docs/exports.md against the code: its table is that of the formats, and its commands and examples run."""

import contextlib
import io
import re
import shlex
import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.exports.base import ALL, PARTS
from jobs.exports.registry import FORMATS
from tests.cli_page import commands
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    raylabel (export .*)$", PAGE, re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_table_has_what_each_format_keeps() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if "|" in line
    ]
    found = {row[0].strip("`"): row[2:] for row in rows if row[0].startswith("`")}
    assert found == {
        name: ["yes" if part in form.keeps else "" for part in PARTS if part in ALL]
        for name, form in FORMATS.items()
    }
    assert [form.name for form in FORMATS.values() if form.needs_detector] == re.findall(
        r"`([\w-]+)`", PAGE.partition("refuse a run without a detector: ")[2].partition(".")[0]
    )


@pytest.fixture
def here(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the run `runs/today`, in which the page's commands are given."""
    shutil.copytree(run, tmp_path / "runs" / "today")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def give(command: str) -> None:
    done = CliRunner().invoke(app, shlex.split(command))
    assert (done.exception, done.exit_code) == (None, 0), done.output


@pytest.mark.parametrize("command", [it for it in COMMANDS if "lance" not in it])
def test_the_commands_of_the_page_export(here: Path, command: str) -> None:
    give(command)
    if "--into" in command:
        (into,) = re.findall(r"--into (\S+)", command)
        assert (here / into).exists()


def test_the_command_for_lance_exports(here: Path) -> None:
    pytest.importorskip("lance")
    (command,) = (it for it in COMMANDS if "lance" in it)
    give(command)
    assert list((here / "exports" / "today.lance").iterdir())


def command_of(form: str) -> str:
    """The last command of the page that exports in a format: the one of its section."""
    *_, last = (it for it in COMMANDS if f"--format {form} " in it)
    return str(last)


@pytest.mark.parametrize(
    ("form", "imported", "line"),
    [
        ("coco", "pycocotools", "00000003-same.jpg person [2.0, 3.0, 30.0, 40.0]"),
        ("hf", "datasets", "(100, 50) ['person']"),
    ],
)
@pytest.mark.usefixtures("here", "datasets_cache")
def test_the_examples_in_python_read_what_was_exported(form: str, imported: str, line: str) -> None:
    (example,) = (text for text in blocks("python") if imported in text)
    give(command_of(form))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(example, {})
    assert line in printed.getvalue().splitlines()


@pytest.mark.usefixtures("here")
def test_the_query_in_sql_finds_images() -> None:
    give(command_of("sqlite"))
    (query,) = blocks("sql")
    with contextlib.closing(sqlite3.connect("exports/today.sqlite")) as database:
        found = database.execute(query).fetchall()
    assert [(Path(uri).name, label, number) for uri, label, number in found] == [("same.jpg", "palace", 1)]


def test_every_option_of_the_command_is_on_the_page() -> None:
    options = {option for it in commands()["export"].params for option in it.opts if option.startswith("-")}
    assert options - {"--json"} <= set(re.findall(r"--[a-z-]+", PAGE))
