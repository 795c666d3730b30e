"""Commands that read a run or list models: models, show, status, reconcile."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import DashboardOption, JsonOption, Output, output_of
from schemas.exit_codes import NOT_COMPLETE


def models(
    text: Annotated[str, typer.Argument(help="Only models whose name contains this text.")] = "",
    timm: Annotated[
        bool, typer.Option("--timm", help="Also list timm's models (more than a thousand).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models that a job can use."""
    from jobs.prepare.models import list_models

    list_models(text, timm=timm, as_json=as_json)


def show(
    output: Output,
    limit: Annotated[int, typer.Option(min=1, help="Number of images to show.")] = 20,
    draw: Annotated[
        Path | None,
        typer.Option(help="Also draw the photos with boxes and labels into this folder.", show_default=False),
    ] = None,
) -> None:
    """Show a run's labels, objects and errors."""
    from jobs.results.show import show_run

    show_run(output_of(output), limit, draw)


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
