"""Commands that write results for other tools: export."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import JsonOption, WhereOption, output_of, whole_or_nothing
from schemas.exceptions import SpecError


def export(
    output: Annotated[
        str | None, typer.Argument(help="Run directory, or its job spec.", show_default=False)
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="A format that --list has.", show_default=False),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            help="Folder to write, new or empty; for sqlite a new file; lance folders end in .lance.",
            show_default=False,
        ),
    ] = None,
    where: WhereOption = None,
    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Only boxes with at least this score.", show_default=False),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--classes",
            metavar="A,B",
            help="Only boxes of these classes of the detector (repeatable).",
            show_default=False,
        ),
    ] = None,
    class_map: Annotated[
        Path | None,
        typer.Option(
            help="New names of classes: YAML, or CSV that begins with class,name; an empty one leaves out.",
            show_default=False,
        ),
    ] = None,
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Copy the photos as well, upright.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many images.", show_default=False)
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the formats.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a run's results for other tools: as a dataset, for annotators, for search engines.

    For example a dataset to train YOLO on, of people and dogs, with its photos:

    raylabel export OUT --format yolo --into dataset --classes person,dog --min-score 0.5 --copy-images
    """
    from jobs.exports.command import ExportOptions, export_command, list_formats

    if list_:
        list_formats(as_json=as_json)
        return
    if not output or not format_ or into is None:
        raise SpecError(
            "raylabel export takes a run, --format and --into, such as raylabel export OUT --format coco "
            "--into dataset; --list lists the formats"
        )
    options = ExportOptions(where, limit, min_score, tuple(classes or ()), class_map, copy_images)
    with whole_or_nothing():
        export_command(output_of(output), format_, into, options, as_json=as_json)
