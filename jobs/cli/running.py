"""Commands that run a job or prepare one: run, retry, check, plan."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from jobs.run.command import RunOptions
from jobs.cli.options import (
    AddressOption,
    ClassifierOption,
    CodeOption,
    DetectorOption,
    EmbedderOption,
    JobArgument,
    JsonOption,
    ManifestOption,
    Output,
    OutputOption,
    RestartOption,
    SetOption,
    StopAfterOption,
    VerboseOption,
    models_of,
    output_of,
    overrides_of,
    seconds_of,
    settings_of,
)
from jobs.run.stop import Stopped, leave_on_signals, say_end
from workers.process.streams import go_on_without_output


def run(
    job: JobArgument = None,
    manifest: ManifestOption = None,
    output: OutputOption = None,
    classifier: ClassifierOption = None,
    detector: DetectorOption = None,
    embedder: EmbedderOption = None,
    settings: SetOption = None,
    restart: RestartOption = False,
    stop_after: StopAfterOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Label a manifest's images. Run again after a stop, it resumes."""
    leave_on_signals(resumes=True)
    from jobs.prepare.begun import spec_of

    models = models_of(classifier=classifier, detector=detector, embedder=embedder)
    spec = spec_of(job, overrides_of(manifest, output, models, settings))
    _preload_torch()
    from jobs.run.command import run_job

    with _exit_on_stop():
        run_job(spec, _options(address, stop_after, as_json, verbose), restart=restart)


def retry(
    output: Output,
    code: CodeOption = None,
    settings: SetOption = None,
    stop_after: StopAfterOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Retry the failed images of a complete run. The results replace their errors."""
    leave_on_signals(resumes=True)
    _preload_torch()
    from jobs.run.command import retry_run
    from jobs.run.retry import codes_of

    overrides = settings_of(settings)
    with _exit_on_stop():
        retry_run(
            output_of(output), codes_of(code), overrides, _options(address, stop_after, as_json, verbose)
        )


def check(
    job: JobArgument = None,
    manifest: ManifestOption = None,
    output: OutputOption = None,
    classifier: ClassifierOption = None,
    detector: DetectorOption = None,
    embedder: EmbedderOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a job's spec, manifest, models and output without running it."""
    from jobs.prepare.begun import spec_of

    models = models_of(classifier=classifier, detector=detector, embedder=embedder)
    spec = spec_of(job, overrides_of(manifest, output, models, settings))
    _preload_torch()
    from jobs.prepare.check import check_job

    check_job(spec, as_json=as_json)


def plan(
    job: JobArgument = None,
    manifest: ManifestOption = None,
    output: OutputOption = None,
    classifier: ClassifierOption = None,
    detector: DetectorOption = None,
    embedder: EmbedderOption = None,
    settings: SetOption = None,
    sample: Annotated[int, typer.Option(min=1, help="Number of images to probe.")] = 64,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Number of nodes [default: 1].", show_default=False)
    ] = None,
    node_cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores per node [default: this machine's].", show_default=False)
    ] = None,
    node_gpus: Annotated[
        int | None,
        typer.Option(
            min=0, help="GPUs per node [default: this machine's, or 0 with --node-cpus].", show_default=False
        ),
    ] = None,
    network_gbps: Annotated[
        float | None,
        typer.Option(min=0.001, help="Network bandwidth per node, gigabits per second.", show_default=False),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price per node-hour.", show_default=False)
    ] = None,
    gpu_images_per_s: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Images per second of one GPU with all models, if known.", show_default=False
        ),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Also find the smallest cluster that meets this deadline (8h, 1h30m).",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict a job's duration, bottleneck and cost from a sample of its images."""
    from jobs.prepare.begun import spec_of

    models = models_of(classifier=classifier, detector=detector, embedder=embedder)
    spec = spec_of(job, overrides_of(manifest, output, models, settings))
    seconds = seconds_of(within, "--within") if within else None
    _preload_torch()
    from jobs.plan.command import PlanOptions, plan_job

    plan_job(
        spec,
        PlanOptions(
            sample, nodes, node_cpus, node_gpus, network_gbps, price, gpu_images_per_s, seconds, as_json
        ),
    )


def _preload_torch() -> None:
    """Starts the process that imports torch, while this one imports Ray: each takes seconds."""
    from workers.process.forkserver import shared_fork_server

    shared_fork_server()


@contextlib.contextmanager
def _exit_on_stop() -> Iterator[None]:
    """Turns a stop (deadline, signal, Ctrl-C) into a message and an exit code; leaves no process running."""
    from workers.process.family import adopt_orphans, end_family

    go_on_without_output()
    adopt_orphans()
    try:
        yield
    except Stopped as stop:
        say_end(stop.message, stop.exit_code)
        raise typer.Exit(stop.exit_code) from None
    finally:
        end_family()


def _options(address: str | None, stop_after: str | None, as_json: bool, verbose: bool) -> "RunOptions":
    """How `run` and `retry` are run, from their common options."""
    from jobs.prepare.begun import kept_command
    from jobs.run.command import RunOptions

    seconds = seconds_of(stop_after) if stop_after else None
    return RunOptions(address, seconds, as_json, verbose, kept_command(sys.argv[1:]))
