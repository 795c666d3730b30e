"""Commands that talk to a cluster's dashboard: submit, jobs, logs, stop."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import (
    ClassifierOption,
    CodeOption,
    DashboardOption,
    DetectorOption,
    JobFile,
    JsonOption,
    ManifestOption,
    OutputOption,
    RestartOption,
    SetOption,
    StopAfterOption,
    Submission,
    job_path,
    overrides_of,
    settings_of,
)
from schemas.exceptions import (
    SpecError,
)

SETTINGS_OF_A_RETRY = ("fetch", "compute", "max_failed")
"""What of a spec a submitted retry may have otherwise than the run; all see it, and no secrets are in it."""


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
    from schemas.spec_file import read_spec

    spec = read_spec(job_path(job), overrides_of(manifest, output, classifier, detector, settings))
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
    from jobs.cluster.submit import Command, SubmitOptions, submit_job

    name = job.stem if job else "raylabel"
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


def _arguments(restart: bool, stop_after: str | None, as_json: bool) -> list[str]:
    """The options of `submit` that are for the `run` on the cluster."""
    from jobs.cli.options import seconds_of

    if stop_after:
        seconds_of(stop_after)
    given = {"--restart": restart, f"--stop-after={stop_after}": stop_after, "--json": as_json}
    return [argument for argument, wanted in given.items() if wanted]


def _of_the_retry(codes: list[str] | None, settings: list[str] | None) -> list[str]:
    """The options of `submit` that are for the `retry` on the cluster, where all may see them."""
    from jobs.run.retry import codes_of

    codes_of(codes)
    wrong = [key for key in settings_of(settings) if key.partition(".")[0] not in SETTINGS_OF_A_RETRY]
    if wrong:
        raise SpecError(
            f"--set: found {', '.join(wrong)}; allowed with --retry: keys of "
            f"{', '.join(SETTINGS_OF_A_RETRY)}. What decides rows is as in the run"
        )
    given = {"--code": codes, "--set": settings}
    return [f"{option}={value}" for option, values in given.items() for value in values or ()]
