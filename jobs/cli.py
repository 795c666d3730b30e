"""The command line. Thin: it reads options, calls one function a command, and turns errors into exit codes.

What is slow to import (torch, ray, also rich and yaml) is imported by the command that needs it.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.exceptions import (
    ClusterError,
    FailureBudgetError,
    ImageError,
    ManifestError,
    ModelError,
    OutputConflictError,
    ProcessDiedError,
    RaylabelError,
    ReconcileError,
    SpecError,
    StorageError,
)

if TYPE_CHECKING:
    from jobs.run import RunOptions

EXIT_CODES: dict[type[RaylabelError], int] = {
    SpecError: 2,
    ManifestError: 3,
    ModelError: 4,
    StorageError: 5,
    OutputConflictError: 6,
    FailureBudgetError: 7,
    ReconcileError: 8,
    ClusterError: 11,
    ImageError: 1,
    ProcessDiedError: 1,
    RaylabelError: 1,
}
"""What a script can tell an outcome by; 0 is done, 1 anything unforeseen."""

SETTINGS_OF_A_RETRY = ("fetch", "compute", "max_failed")
"""What of a spec a submitted retry may have otherwise than the run; all see it, and no secrets are in it."""

NOT_COMPLETE = 10
"""Exit code of `reconcile` where all that there is of a run is proven, but the run is not complete."""

app = typer.Typer(
    help="Labels images in bulk: a manifest in, Parquet tables of labels, boxes and errors out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # frames around the help took half of the time that it took to show
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
        "-s",
        metavar="KEY=VALUE",
        help="Any key of the spec, e.g. --set detector.score_threshold=0.5 (repeat for several).",
        show_default=False,
    ),
]
Output = Annotated[str, typer.Argument(help="Run directory, or the job spec that it is of.")]
AddressOption = Annotated[
    str | None,
    typer.Option(help="Ray cluster to join; RAY_ADDRESS, or a Ray of its own.", show_default=False),
]
RestartOption = Annotated[
    bool, typer.Option("--restart", help="Delete the run in the output, and begin anew.")
]
DashboardOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Of the cluster's dashboard, http://HEAD:8265; RAY_API_SERVER_ADDRESS.",
        show_default=False,
    ),
]
Submission = Annotated[str, typer.Argument(help="The id that `raylabel submit` printed.")]
StopAfterOption = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION", help="End after this long (30m, 1h30m), to be gone on with.", show_default=False
    ),
]
CodeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        help="Of failed images, an error code (repeat for several); all retryable ones.",
        show_default=False,
    ),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show Ray's own messages.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def run(
    job: JobFile = None,
    manifest: ManifestOption = None,
    output: OutputOption = None,
    classifier: ClassifierOption = None,
    detector: DetectorOption = None,
    settings: SetOption = None,
    restart: RestartOption = False,
    stop_after: StopAfterOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Label a manifest's images. Run again after a stop, it goes on where it was."""
    from schemas.spec import read_spec

    spec = read_spec(_path(job), _overrides(manifest, output, classifier, detector, settings))
    _import_torch_meanwhile()
    from jobs.run import run_job

    with _stops():
        run_job(spec, _options(address, stop_after, as_json, verbose), restart=restart)


@app.command()
def submit(
    job: JobFile = None,
    manifest: ManifestOption = None,
    output: OutputOption = None,
    classifier: ClassifierOption = None,
    detector: DetectorOption = None,
    settings: SetOption = None,
    restart: RestartOption = False,
    stop_after: StopAfterOption = None,
    address: DashboardOption = None,
    wheel: Annotated[
        Path | None,
        typer.Option(help="Ship this wheel of raylabel; the raylabel that runs here.", show_default=False),
    ] = None,
    no_ship: Annotated[bool, typer.Option("--no-ship", help="Ship no raylabel: the cluster has it.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Once the run is complete: label its failed images again.")
    ] = False,
    code: CodeOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job, and end with its exit code.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a job to a cluster, to run there. Submitted again after a stop, it goes on where it was."""
    from schemas.spec import read_spec

    spec = read_spec(_path(job), _overrides(manifest, output, classifier, detector, settings))
    for one, other in (
        (wheel and "--wheel", no_ship and "--no-ship"),
        (restart and "--restart", retry and "--retry"),
    ):
        if one and other:
            raise SpecError(f"found {one} and {other}; allowed: one of them, or none")
    arguments = _arguments(restart, stop_after, as_json)
    if retry:
        arguments += _of_the_retry(code, settings)
    elif code:
        raise SpecError("found --code without --retry")
    from jobs.submit import Command, SubmitOptions, submit_job

    name = job.stem if job else "raylabel"
    command: Command = "retry" if retry else "run"
    options = SubmitOptions(address, name, wheel, not no_ship, arguments, wait, as_json, command)
    raise typer.Exit(submit_job(spec, options))


@app.command("jobs")
def list_jobs(address: DashboardOption = None, as_json: JsonOption = False) -> None:
    """List the jobs that were submitted to a cluster. That is: id, state, output, the last thing it said."""
    from jobs.submitted import show_jobs

    show_jobs(address, as_json=as_json)


@app.command()
def logs(
    submission: Submission,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job is over; end with its exit code.")
    ] = False,
    address: DashboardOption = None,
) -> None:
    """Show what a submitted job has printed."""
    from jobs.submitted import show_log

    raise typer.Exit(show_log(submission, address, on=follow))


@app.command()
def stop(submission: Submission, address: DashboardOption = None) -> None:
    """Stop a submitted job. What is committed stays; submitted again, it goes on from there."""
    from jobs.submitted import stop_job

    stop_job(submission, address)


@app.command()
def retry(
    output: Output,
    code: CodeOption = None,
    settings: SetOption = None,
    stop_after: StopAfterOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Label the failed images of a complete run again. What becomes of them replaces their errors."""
    _import_torch_meanwhile()
    from jobs.retry import codes_of
    from jobs.run import retry_run

    chosen = _overrides(None, None, None, None, settings)
    with _stops():
        retry_run(_output(output), codes_of(code), chosen, _options(address, stop_after, as_json, verbose))


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
    """Check a job without running it. That is: the spec, the manifest, both models, the output."""
    from schemas.spec import read_spec

    spec = read_spec(_path(job), _overrides(manifest, output, classifier, detector, settings))
    _import_torch_meanwhile()
    from jobs.check import check_job

    check_job(spec, as_json=as_json)


@app.command()
def plan(
    job: JobFile = None,
    manifest: ManifestOption = None,
    output: OutputOption = None,
    classifier: ClassifierOption = None,
    detector: DetectorOption = None,
    settings: SetOption = None,
    sample: Annotated[int, typer.Option(min=1, help="Images to probe.")] = 64,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Nodes of the cluster; 1.", show_default=False)
    ] = None,
    node_cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores of a node; this machine's.", show_default=False)
    ] = None,
    node_gpus: Annotated[
        int | None,
        typer.Option(
            min=0, help="GPUs of a node; this machine's, or 0 with --node-cpus.", show_default=False
        ),
    ] = None,
    network_gbps: Annotated[
        float | None,
        typer.Option(min=0.001, help="Gigabits a second that a node can read.", show_default=False),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Of a node for an hour.", show_default=False)
    ] = None,
    gpu_images_per_s: Annotated[
        float | None,
        typer.Option(min=0.001, help="What a GPU does of both models, if you know.", show_default=False),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Also say how many nodes are done in time (8h, 1h30m).",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict how long a job takes, what holds it up and what it costs, from a sample of its images."""
    from jobs.stop import seconds_of
    from schemas.spec import read_spec

    spec = read_spec(_path(job), _overrides(manifest, output, classifier, detector, settings))
    seconds = seconds_of(within, "--within") if within else None
    _import_torch_meanwhile()
    from jobs.plan import PlanOptions, plan_job

    plan_job(
        spec,
        PlanOptions(
            sample, nodes, node_cpus, node_gpus, network_gbps, price, gpu_images_per_s, seconds, as_json
        ),
    )


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
    output: Output,
    limit: Annotated[int, typer.Option(min=1, help="Images to show.")] = 20,
    draw: Annotated[
        Path | None,
        typer.Option(help="Also write the photos with boxes and labels here.", show_default=False),
    ] = None,
) -> None:
    """Show what a run found."""
    from jobs.look import show_run

    show_run(_output(output), limit, draw)


@app.command()
def status(
    output: Annotated[str, typer.Argument(help="Run directory, its job spec, or the id of a submission.")],
    address: DashboardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how a run stands, while it runs and after. That is: state, progress, what to do next."""
    from schemas.submission import is_submission_id

    if address or is_submission_id(output):
        from jobs.submitted import show_submission

        show_submission(output, address, as_json=as_json)
    else:
        from jobs.status import show_status

        show_status(_output(output), as_json=as_json)


@app.command()
def reconcile(output: Output, as_json: JsonOption = False) -> None:
    """Prove a run from its files. That is: every image there once, every file as it was written."""
    from jobs.reconcile import reconcile_run

    if not reconcile_run(_output(output), as_json=as_json):
        raise typer.Exit(NOT_COMPLETE)


def _import_torch_meanwhile() -> None:
    """Starts the process that imports torch, while this one imports Ray."""
    from workers.nursery import labelling_nursery

    labelling_nursery()


@contextlib.contextmanager
def _stops() -> Iterator[None]:
    """Ends the command with a sentence and an exit code where it was asked to stop."""
    from jobs.stop import CTRL_C, Stopped

    try:
        yield
    except (Stopped, KeyboardInterrupt) as stop:
        reason = str(stop) or "Ctrl-C"
        _complain(f"stopped by {reason}; what is committed stays, and the same command goes on from there")
        raise typer.Exit(getattr(stop, "exit_code", CTRL_C)) from None


def _options(address: str | None, stop_after: str | None, as_json: bool, verbose: bool) -> "RunOptions":
    from jobs.run import RunOptions
    from jobs.stop import seconds_of

    return RunOptions(address, seconds_of(stop_after) if stop_after else None, as_json, verbose)


def _output(named: str) -> str:
    """The run directory that is named: by itself, or by its job spec, which says how it is reached."""
    if not named.endswith((".yaml", ".yml")):
        return named
    from schemas.spec import read_spec
    from workers.places import reach

    spec = read_spec(named, {})
    reach(spec.storage)
    return spec.output


def _arguments(restart: bool, stop_after: str | None, as_json: bool) -> list[str]:
    """The options of `submit` that are for the `run` on the cluster."""
    from jobs.stop import seconds_of

    if stop_after:
        seconds_of(stop_after)
    given = {"--restart": restart, f"--stop-after={stop_after}": stop_after, "--json": as_json}
    return [argument for argument, wanted in given.items() if wanted]


def _of_the_retry(codes: list[str] | None, settings: list[str] | None) -> list[str]:
    """The options of `submit` that are for the `retry` on the cluster, where all may see them."""
    from jobs.retry import codes_of

    codes_of(codes)
    wrong = [key for key in _settings(settings) if key.partition(".")[0] not in SETTINGS_OF_A_RETRY]
    if wrong:
        raise SpecError(
            f"--set: found {', '.join(wrong)}; allowed with --retry: keys of "
            f"{', '.join(SETTINGS_OF_A_RETRY)}. What decides rows is as in the run"
        )
    given = {"--code": codes, "--set": settings}
    return [f"{option}={value}" for option, values in given.items() for value in values or ()]


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
    return found | _settings(settings)


def _settings(settings: list[str] | None) -> dict[str, Any]:
    """The spec's keys that --set sets."""
    import yaml

    found: dict[str, Any] = {}
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
    typer.echo(f"raylabel: {message}", err=True)


if __name__ == "__main__":
    main()
