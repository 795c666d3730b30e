"""The command line: reads options, calls one function per command, and turns errors into exit codes.

Each command imports what is slow to import (torch, ray, also rich and yaml) itself.
"""

import os
import sys
from typing import Annotated

import typer

from jobs.cli import clusters, exports, running, runs, searching
from jobs.cli.options import print_version
from jobs.run.stop import ignore_signals, leave_on_signals
from schemas.exceptions import RaylabelError, StorageError
from schemas.exit_codes import EXIT_CODES
from workers.process.streams import prepare_streams, print_error

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # frames took half of the time to show the help
)


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=print_version, help="Print the version."),
    ] = False,
) -> None:
    """Label images in bulk: a manifest in; Parquet tables of labels, boxes and errors out."""


app.command()(running.run)
app.command()(clusters.submit)
app.command("jobs")(clusters.list_jobs)
app.command()(clusters.logs)
app.command()(clusters.stop)
app.command()(running.retry)
app.command()(running.check)
app.command()(running.plan)
app.command()(runs.models)
app.command()(runs.show)
app.command(cls=runs.SqlCommand)(runs.sql)
app.command()(runs.report)
app.command()(searching.index)
app.command(cls=searching.SearchCommand)(searching.search)
app.command()(searching.serve)
app.command()(exports.export)
app.command()(runs.status)
app.command()(runs.reconcile)


def main() -> None:
    """Runs the `raylabel` command; turns raylabel's errors into a message and an exit code."""
    prepare_streams()
    leave_on_signals()
    try:
        _assert_folder()
        app()
    except RaylabelError as error:
        print_error(str(error))
        sys.exit(EXIT_CODES[type(error)])
    finally:
        ignore_signals()


def _assert_folder() -> None:
    """Raises StorageError where the current folder was deleted: no path can be told from there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise StorageError(
            "the current folder does not exist any more; `cd` to one that does, and run the command again"
        ) from None
