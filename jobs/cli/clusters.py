"""Commands that use a cluster's dashboard: submit, jobs, logs, stop."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import (
    ClassifierOption,
    CodeOption,
    DashboardOption,
    DetectorOption,
    EmbedderOption,
    JobArgument,
    JsonOption,
    ManifestOption,
    OutputOption,
    RestartOption,
    SetOption,
    StopAfterOption,
    Submission,
    models_of,
    overrides_of,
    seconds_of,
    settings_of,
)
from schemas.exceptions import SpecError

RETRY_SETTINGS = ("fetch", "compute", "max_failed")
"""Keys of the spec that a submitted retry may change; the dashboard shows them, and they hold no secrets."""


def submit(
    job: JobArgument = None,
    manifest: ManifestOption = None,
    output: OutputOption = None,
    classifier: ClassifierOption = None,
    detector: DetectorOption = None,
    embedder: EmbedderOption = None,
    settings: SetOption = None,
    restart: RestartOption = False,
    stop_after: StopAfterOption = None,
    address: DashboardOption = None,
    wheel: Annotated[
        Path | None,
        typer.Option(help="Wheel to ship [default: the running version].", show_default=False),
    ] = None,
    no_ship: Annotated[
        bool, typer.Option("--no-ship", help="Ship nothing: the cluster has raylabel installed.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Retry the failed images of a complete run.")
    ] = False,
    code: CodeOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job and exit with its exit code.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a job to a cluster. Submitted again after a stop, it resumes."""
    from jobs.prepare.begun import spec_of

    models = models_of(classifier=classifier, detector=detector, embedder=embedder)
    spec = spec_of(job, overrides_of(manifest, output, models, settings))
    _assert_one({"--wheel": wheel, "--no-ship": no_ship})
    _assert_one({"--restart": restart, "--retry": retry})
    arguments = _arguments(restart, stop_after, as_json)
    if retry:
        arguments += _retry_arguments(code, settings)
    elif code:
        raise SpecError("found --code without --retry")
    from jobs.cluster.submit import Command, SubmitOptions, submit_job

    name = Path(job).stem if job else "raylabel"
    command: Command = "retry" if retry else "run"
    options = SubmitOptions(address, name, wheel, not no_ship, arguments, wait, as_json, command)
    raise typer.Exit(submit_job(spec, options))


def list_jobs(address: DashboardOption = None, as_json: JsonOption = False) -> None:
    """List the jobs submitted to a cluster."""
    from jobs.cluster.submitted import show_jobs

    show_jobs(address, as_json=as_json)


def logs(
    submission: Submission,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow until the job ends; exit with its exit code.")
    ] = False,
    address: DashboardOption = None,
) -> None:
    """Show the output of a submitted job."""
    from jobs.cluster.submitted import show_log

    raise typer.Exit(show_log(submission, address, follow_log=follow))


def stop(submission: Submission, address: DashboardOption = None) -> None:
    """Stop a submitted job. Committed work stays; submitted again, it resumes."""
    from jobs.cluster.submitted import stop_job

    stop_job(submission, address)


def _assert_one(options: dict[str, object]) -> None:
    """Refuses two options that exclude each other."""
    if all(options.values()):
        raise SpecError(f"found {' and '.join(options)}; allowed: one of them, or none")


def _arguments(restart: bool, stop_after: str | None, as_json: bool) -> list[str]:
    """Options of `submit` that are passed to the command on the cluster."""
    if stop_after:
        seconds_of(stop_after)
    arguments = {"--restart": restart, f"--stop-after={stop_after}": stop_after, "--json": as_json}
    return [argument for argument, is_set in arguments.items() if is_set]


def _retry_arguments(codes: list[str] | None, settings: list[str] | None) -> list[str]:
    """Options of `submit` that are passed to `retry` on the cluster, where the dashboard shows them.

    Raises:
        SpecError: an unknown error code, or a setting that a retry may not change.
    """
    from jobs.run.retry import codes_of

    codes_of(codes)
    refused = [key for key in settings_of(settings) if key.partition(".")[0] not in RETRY_SETTINGS]
    if refused:
        raise SpecError(
            f"--set: found {', '.join(refused)}; allowed with --retry: keys of "
            f"{', '.join(RETRY_SETTINGS)}. All others are the run's"
        )
    options = {"--code": codes, "--set": settings}
    return [f"{option}={value}" for option, values in options.items() for value in values or ()]
