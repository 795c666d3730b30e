from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.search.build import make_index
from tests.jobs.exports.made_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    output = write_run(tmp_path_factory.mktemp("run"))
    make_index(output)
    return output


def last_line(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["search", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("query", ["-person", "-person -indoors", '-"never seen"', "-outdoors"])
def test_a_query_may_begin_with_a_minus(run: str, query: str) -> None:
    expected = last_line(run, f"({query})")
    assert expected != "8 images of 8" or "never" in query
    assert last_line(run, query) == expected
    assert last_line(run, "--limit", "3", query, "--sort", "-width").startswith(expected)
    assert last_line(run, "--", query) == expected


def test_o_is_an_option_all_the_same(run: str, tmp_path: Path) -> None:
    CliRunner().invoke(app, ["search", run, "-person", "-o", str(tmp_path / "hits.csv")])
    assert len((tmp_path / "hits.csv").read_text().splitlines()) == 1 + 5
