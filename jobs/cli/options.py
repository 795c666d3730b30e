"""Options that several commands take, and what their values mean."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.exceptions import (
    SpecError,
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
Output = Annotated[str, typer.Argument(help="Run directory, or its job spec.")]
AddressOption = Annotated[
    str | None,
    typer.Option(help="Ray cluster to join [env: RAY_ADDRESS] [default: a local Ray].", show_default=False),
]
RestartOption = Annotated[bool, typer.Option("--restart", help="Delete the existing run and start over.")]
DashboardOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Dashboard URL, http://HEAD:8265 [env: RAY_API_SERVER_ADDRESS].",
        show_default=False,
    ),
]
Submission = Annotated[str, typer.Argument(help="The id that `raylabel submit` printed.")]
StopAfterOption = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Stop after this duration (30m, 1h30m); the same command resumes.",
        show_default=False,
    ),
]
CodeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        help="Error code to retry (repeatable) [default: all retryable].",
        show_default=False,
    ),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show log and Ray messages.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def output_of(named: str) -> str:
    """The run directory that is named: by itself, or by its job spec, which says how it is reached."""
    if not named.endswith((".yaml", ".yml")):
        return named
    from schemas.spec_file import read_spec
    from workers.storage.options import configure_storage

    spec = read_spec(named, {})
    configure_storage(spec.storage)
    return spec.output


def job_path(job: Path | None) -> str | None:
    """The job spec's path as text."""
    return str(job) if job else None


def overrides_of(
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
    return found | settings_of(settings)


def settings_of(settings: list[str] | None) -> dict[str, Any]:
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


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def seconds_of(duration: str, option: str = "--stop-after") -> float:
    """The seconds of a duration such as 90s, 30m or 1h30m, which an option was given.

    Raises:
        SpecError: it is not one.
    """
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise SpecError(f"{option}: found {duration!r}, allowed: a duration such as 90s, 30m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def complain(message: str) -> None:
    """Prints a message on stderr, as all errors are."""
    typer.echo(f"raylabel: {message}", err=True)
