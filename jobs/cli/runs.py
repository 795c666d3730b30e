"""Commands that read a run or list models: models, show, sql, report, status, reconcile."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import (
    DashboardOption,
    JsonOption,
    Output,
    QueryCommand,
    WhereOption,
    output_of,
    runs_of,
)
from schemas.exceptions import ModelError, SpecError
from schemas.exit_codes import EXIT_CODES, NOT_COMPLETE


def models(
    text: Annotated[str, typer.Argument(help="Only models whose name contains this text.")] = "",
    timm: Annotated[
        bool, typer.Option("--timm", help="Also list timm's models (more than a thousand).")
    ] = False,
    describe: Annotated[
        str | None,
        typer.Option(
            "--describe",
            metavar="MODEL",
            help="Say what a name, an ONNX file or a folder is taken for, why, and what to write.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that a job can use, or describe one."""
    from jobs.prepare.models import describe_model, list_models

    if describe is None:
        list_models(text, timm=timm, as_json=as_json)
    elif not describe_model(describe, as_json=as_json):
        raise typer.Exit(EXIT_CODES[ModelError])


def show(
    output: Output,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of images to show [default: 20; all that --sample draws].",
            show_default=False,
        ),
    ] = None,
    where: WhereOption = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="SQL",
            help="Order of the images, e.g. --sort 'score' or --sort 'object_count DESC'.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Draw so many images at random, the same each time.", show_default=False),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(
            help="Also draw the photos with boxes and labels into this folder: new, empty, or drawn earlier.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a run's labels, objects and errors.

    For example the least certain images of dogs, drawn:

    raylabel show OUT --where "class_counts['dog'] > 0" --sort score --draw pictures
    """
    from jobs.results.images import Selection
    from jobs.results.show import show_run

    selection = Selection(where, sort, sample, limit or sample or 20)
    show_run(output_of(output), selection, draw, as_json=as_json)


class SqlCommand(QueryCommand):
    """A command with a query that may begin with a comment, which no option does."""

    begins = re.compile(r"--[^=\s]*\s")


def sql(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[OUTPUT] QUERY",
            help="Run directory, or its job spec; one SELECT, or - to read it from stdin.",
        ),
    ],
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="NAME=OUTPUT",
            help="A run of several: its labels are in NAME.labels (repeatable).",
            show_default=False,
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all rows as CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all rows as a JSON array.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--into",
            help="Write the result into a file that ends in .parquet or .csv; replaced where it exists.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Ask a run's tables in SQL, or those of several runs.

    The views are labels, boxes, errors, tags, embeddings, object_embeddings, and objects: boxes with
    normalised corners, area and centre. For example:

    raylabel sql OUT "SELECT label, count(*) FROM labels GROUP BY label ORDER BY 2 DESC LIMIT 10"

    raylabel sql --run a=OUT1 --run b=OUT2 "SELECT count(*) FROM a.labels JOIN b.labels USING (key)"
    """
    from jobs.results.query import run_sql

    *outputs, query = arguments
    if len(outputs) > 1 or (as_csv and as_json):
        raise SpecError("raylabel sql takes one output, one query, and --csv or --json; quote the query")
    if not outputs and not run:
        raise SpecError('name the run and the query: raylabel sql OUT "SELECT count(*) FROM labels"')
    if query == "-":
        query = sys.stdin.read()
    runs = runs_of(run or [], *outputs)
    run_sql(runs, query, "csv" if as_csv else "json" if as_json else "table", file)


def report(
    output: Output,
    into: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--into",
            help="Write it into this file instead of into the run: .html; replaced where it exists.",
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(
            min=0, max=86_400, metavar="SECONDS", help="Time in which photos are read; 0: without pictures."
        ),
    ] = 30,
    as_json: JsonOption = False,
) -> None:
    """Make a run's report again: one HTML page of numbers and pictures.

    For example of a run that one may only read:

    raylabel report s3://bucket/runs/today -o today.html
    """
    from jobs.report.page import make_report

    make_report(output_of(output), into, patience, as_json=as_json)


def status(
    output: Annotated[str, typer.Argument(help="Run directory, its job spec, or a submission id.")],
    address: DashboardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a run's status, progress and next step."""
    from schemas.submission import is_submission_id

    if address or is_submission_id(output):
        from jobs.cluster.submitted import show_submission

        show_submission(output, address, as_json=as_json)
    else:
        from jobs.results.status import show_status

        show_status(output_of(output), as_json=as_json)


def reconcile(output: Output, as_json: JsonOption = False) -> None:
    """Verify that a run is complete and its files undamaged."""
    from jobs.verify.reconcile import reconcile_run

    if not reconcile_run(output_of(output), as_json=as_json):
        raise typer.Exit(NOT_COMPLETE)
