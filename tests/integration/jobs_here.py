"""Running whole jobs in the tests: in this process on the session's Ray, or as a user does, by command."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from jobs.prepare.resolve import resolve
from jobs.run.console import Reporter
from jobs.run.pipeline import label
from schemas.ledger import SourceFile
from schemas.spec import JobSpec
from schemas.spec_file import build_spec
from schemas.tables import TABLES
from tests.warm import warm_commands

COMMAND = str(Path(sys.executable).parent / "raylabel")


def run_here(*, restart: bool = False, **spec: Any) -> dict[str, int]:
    """Runs a job on the Ray that this process is connected to, in one actor, which starts sooner than two.

    Returns:
        The rows of each table.
    """
    spec["compute"] = {"actors": 1, **spec.get("compute", {})}
    return label_here(build_spec(spec, "a test"), restart=restart)


def label_here(
    spec: JobSpec, began_with: list[SourceFile] | None = None, *, restart: bool = False
) -> dict[str, int]:
    """Runs a job as its spec says, or retries it, on the Ray that this process is connected to."""
    return label(resolve(spec, began_with), Reporter(Console(quiet=True)), restart=restart)


def raylabel(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user does."""
    env = {**os.environ, "COLUMNS": "200", **environment}
    if warm_commands().can_run(env):
        return warm_commands().run(arguments, env)
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, env=env)


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What a command with --json printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def tables(output: Path) -> dict[str, pa.Table]:
    """The published tables of a run, read by globbing."""
    return {
        name: pa.concat_tables(pq.read_table(path) for path in sorted((output / name).glob("*.parquet")))
        for name in TABLES
        if (output / name).exists()
    }


def rows(table: pa.Table, *but: str) -> list[dict[str, Any]]:
    """A table's rows without the columns that differ from run to run."""
    found: list[dict[str, Any]] = table.drop_columns(
        [name for name in ("processed_at", "failed_at", "run_id", *but) if name in table.column_names]
    ).to_pylist()
    return found
