"""The command line. Thin: it reads options, calls one function a command, and turns errors into exit codes.

What is slow to import (torch, ray) is imported by the command that needs it.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from schemas.exceptions import (
    FailureBudgetError,
    ImageError,
    ManifestError,
    ModelError,
    OutputConflictError,
    RaylabelError,
    ReconcileError,
    SpecError,
    StorageError,
)

EXIT_CODES: dict[type[RaylabelError], int] = {
    SpecError: 2,
    ManifestError: 3,
    ModelError: 4,
    StorageError: 5,
    OutputConflictError: 6,
    FailureBudgetError: 7,
    ReconcileError: 8,
    ImageError: 1,
    RaylabelError: 1,
}
"""What a script can tell an outcome by; 0 is done, 1 anything unforeseen."""

STOPPED = 130
"""The exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    help="Labels images in bulk: a manifest in, Parquet tables of labels, boxes and errors out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

JobFile = Annotated[Path | None, typer.Argument(help="The job spec, YAML.", show_default=False)]
ManifestOption = Annotated[
    list[str] | None,
    typer.Option(
        "--manifest", help="Manifest file, folder or glob (repeat for several).", show_default=False
    ),
]
OutputOption = Annotated[str | None, typer.Option("--output", help="Run directory.", show_default=False)]
ClassifierOption = Annotated[
    str | None,
    typer.Option("--classifier", help="Model name, or 'none' for no classifier.", show_default=False),
]
DetectorOption = Annotated[
    str | None, typer.Option("--detector", help="Model name, or 'none' for no detector.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of the spec, e.g. --set detector.score_threshold=0.5 (repeat for several).",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def run(
    job: JobFile = None,
    manifest: ManifestOption = None,
    output: OutputOption = None,
    classifier: ClassifierOption = None,
    detector: DetectorOption = None,
    settings: SetOption = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to join; RAY_ADDRESS, or a Ray of its own.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Ray's own messages.")] = False,
) -> None:
    """Label a manifest's images. Run again after a stop, it goes on where it was."""
    from jobs.run import run_job
    from schemas.spec import read_spec

    spec = read_spec(_path(job), _overrides(manifest, output, classifier, detector, settings))
    try:
        run_job(spec, address=address, as_json=as_json, verbose=verbose)
    except KeyboardInterrupt:
        _complain("stopped; what is committed stays, and the same command goes on from there")
        raise typer.Exit(STOPPED) from None


@app.command()
def check(
    job: JobFile = None,
    manifest: ManifestOption = None,
    output: OutputOption = None,
    classifier: ClassifierOption = None,
    detector: DetectorOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a job without running it: the spec, the manifest, both models, the output."""
    from jobs.check import check_job
    from schemas.spec import read_spec

    spec = read_spec(_path(job), _overrides(manifest, output, classifier, detector, settings))
    check_job(spec, as_json=as_json)


@app.command()
def models(
    text: Annotated[str, typer.Argument(help="Only models whose name holds this.")] = "",
    timm: Annotated[
        bool, typer.Option("--timm", help="Also name timm's models (more than a thousand).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models that a job can name."""
    from jobs.check import list_models

    list_models(text, timm=timm, as_json=as_json)


@app.command()
def show(
    output: Annotated[str, typer.Argument(help="Run directory.")],
    limit: Annotated[int, typer.Option(min=1, help="Images to show.")] = 20,
    draw: Annotated[
        Path | None,
        typer.Option(help="Also write the photos with boxes and labels here.", show_default=False),
    ] = None,
) -> None:
    """Show what a run found."""
    from jobs.look import show_run

    show_run(output, limit, draw)


def _path(job: Path | None) -> str | None:
    return str(job) if job else None


def _overrides(
    manifest: list[str] | None,
    output: str | None,
    classifier: str | None,
    detector: str | None,
    settings: list[str] | None,
) -> dict[str, Any]:
    """The spec's keys that the command line sets."""
    found: dict[str, Any] = {}
    if manifest:
        found["manifest.uri"] = manifest if len(manifest) > 1 else manifest[0]
    if output:
        found["output"] = output
    for name, model in (("classifier", classifier), ("detector", detector)):
        if model == "none":
            found[name] = None
        elif model:
            found[f"{name}.model"] = model
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise SpecError(f"--set takes KEY=VALUE, found {setting!r}")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise SpecError(f"--set {key}: the value {value!r} is not YAML") from None
    return found


def main() -> None:
    """The `raylabel` command: runs it, and turns raylabel's errors into a message and an exit code."""
    try:
        app()
    except RaylabelError as error:
        _complain(str(error))
        sys.exit(EXIT_CODES[type(error)])


def _complain(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"raylabel: {message}", markup=False)


if __name__ == "__main__":
    main()
