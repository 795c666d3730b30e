"""Options of several commands, and functions that parse their values."""

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from jobs.run.stop import Stopped, say_end, stoppable
from schemas.exceptions import SpecError

JobArgument = Annotated[
    str | None,
    typer.Argument(help="Job spec file (YAML), or the run directory of a job begun.", show_default=False),
]
ManifestOption = Annotated[
    list[str] | None,
    typer.Option("--manifest", help="Manifest file, folder or glob (repeatable).", show_default=False),
]
OutputOption = Annotated[str | None, typer.Option("--output", help="Run directory.", show_default=False)]
ClassifierOption = Annotated[
    str | None,
    typer.Option("--classifier", help="Model name, or 'none' for no classifier.", show_default=False),
]
DetectorOption = Annotated[
    str | None, typer.Option("--detector", help="Model name, or 'none' for no detector.", show_default=False)
]
EmbedderOption = Annotated[
    str | None,
    typer.Option("--embedder", help="Model name; any classifier may be one.", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Set a key of the spec, e.g. --set detector.score_threshold=0.5 (repeatable).",
        show_default=False,
    ),
]
Output = Annotated[str, typer.Argument(help="Run directory, or its job spec.")]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="SQL",
        help="Only images for which a condition on the labels table is true, e.g. --where \"label = 'cat'\".",
        show_default=False,
    ),
]
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
Submission = Annotated[str, typer.Argument(help="Submission id, printed by `raylabel submit`.")]
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
        help="Error code to retry, or 'all' (repeatable) [default: all retryable].",
        show_default=False,
    ),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show log and Ray messages.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def output_of(output_or_job: str) -> str:
    """The run directory, given as such or by its job spec, whose storage options are then set."""
    if not output_or_job.endswith((".yaml", ".yml")):
        return output_or_job
    from schemas.spec_file import read_spec
    from workers.storage.options import configure_storage, configured_storage

    spec = read_spec(output_or_job, {})
    configure_storage({**configured_storage(), **spec.reached})  # a command may be given several
    return spec.output


def runs_of(named: list[str], *unnamed: str) -> dict[str, str]:
    """The run directories of --run, by name; one that has no name is called ""; see `output_of`.

    Raises:
        SpecError: one is not NAME=OUTPUT, or a name is given twice.
    """
    runs = dict(zip([""] * len(unnamed), map(output_of, unnamed), strict=True))
    for one in named:
        name, equals, output = one.partition("=")
        if not equals or not name or not output:
            raise SpecError(f"--run takes NAME=OUTPUT, found {one!r}")
        if name.casefold() in map(str.casefold, runs):
            raise SpecError(f"--run: two runs are called {name!r}; choose another name for one of them")
        runs[name] = output_of(output)
    return runs


def overrides_of(
    manifest: list[str] | None,
    output: str | None,
    models: dict[str, Any],
    settings: list[str] | None,
) -> dict[str, Any]:
    """Keys of the spec that the command line sets, and their values; see `models_of`."""
    overrides: dict[str, Any] = {}
    if manifest:
        overrides["manifest.uri"] = manifest if len(manifest) > 1 else manifest[0]
    if output:
        overrides["output"] = output
    return overrides | models | settings_of(settings)


def models_of(**models: str | None) -> dict[str, Any]:
    """Keys of the spec that the options of models set, and their values."""
    given = {name: model for name, model in models.items() if model}
    return {
        name if model == "none" else f"{name}.model": None if model == "none" else model
        for name, model in given.items()
    }


def settings_of(settings: list[str] | None) -> dict[str, Any]:
    """Keys of the spec that --set sets, and their values.

    Raises:
        SpecError: a setting is not KEY=VALUE, or its value is not YAML.
    """
    from schemas.spec_file import parse_yaml

    values: dict[str, Any] = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise SpecError(f"--set takes KEY=VALUE, found {setting!r}")
        try:
            values[key] = parse_yaml(value)
        except ValueError:
            raise SpecError(f"--set {key}: the value {value!r} is not YAML") from None
    return values


class QueryCommand(TyperCommand):
    """A command of which an argument is a query, which may begin as an option does.

    Attributes:
        begins: matches an argument that is a query all the same.
    """

    begins: ClassVar[re.Pattern[str]]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the command line."""
        return super().parse_args(ctx, [f" {arg}" if self.begins.match(arg) else arg for arg in args])


@contextmanager
def whole_or_nothing() -> Iterator[None]:
    """Ends the command when it is stopped within a block, which then has written nothing."""
    try:
        with stoppable(None):
            yield
    except Stopped as stop:
        say_end(f"stopped by {stop}; nothing is written", stop.exit_code)
        raise typer.Exit(stop.exit_code) from None


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_SECONDS = 10_000 * _SECONDS["d"]
"""Of a duration; clocks end where it is some centuries long."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def seconds_of(duration: str, option: str = "--stop-after") -> float:
    """The seconds of an option's duration, such as 90s, 30m or 1h30m.

    Raises:
        SpecError: it is not a duration.
    """
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise SpecError(f"{option}: found {duration!r}, allowed: a duration such as 90s, 30m or 1h30m")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > MAX_SECONDS:
        raise SpecError(f"{option}: found {duration!r}, allowed: up to {MAX_SECONDS // _SECONDS['d']:,}d")
    return seconds


def print_version(is_asked: bool) -> None:
    """Prints the versions that must be the same on all nodes of a cluster, and ends the command."""
    if is_asked:
        here = f"Python {platform.python_version()}, Ray {version('ray')}"
        typer.echo(f"raylabel {version('raylabel')} ({here})")
        raise typer.Exit
