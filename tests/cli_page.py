"""docs/cli.md, made from the command line: `python -m tests.cli_page > docs/cli.md`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from jobs.cli.app import app
from schemas.exit_codes import (
    BROKEN_PIPE,
    CTRL_C,
    DEADLINE,
    EXIT_CODES,
    HUNG_UP,
    NOT_COMPLETE,
    RAY_DIED,
    TERMINATED,
)

HEAD = """\
# The command line

This page is generated from the code: change the help text there, then run `make docs`.

`raylabel --help` lists the commands, `raylabel COMMAND --help` the options of one. An option that sets a key
of the [job spec](spec.md) overrides the file, or what a run directory keeps. Errors go to stderr; `--json`
prints [JSON](json.md) on stdout. `raylabel --version` prints the version.
"""

MEANINGS = {
    0: "done",
    1: "an unforeseen error",
    2: "the job spec or the command line is wrong",
    3: "the manifest cannot be read",
    4: "a model cannot be built, its weights are not the ones named, or it fails on every image",
    5: "a file or an object outside the manifest cannot be listed, read or written",
    6: "the output holds another run, or another attempt is running",
    7: "more images failed than `max_failed` allows",
    8: "the tables do not add up to the manifest, or a file of the run is damaged, missing or foreign",
    DEADLINE: "stopped by `--stop-after`; the same command resumes",
    NOT_COMPLETE: "`raylabel reconcile` found no issue, but the run is not complete yet",
    RAY_DIED: "stopped, as Ray died under the run; the same command resumes",
    BROKEN_PIPE: "the reader of the output went away",
    11: "no Ray can be started or joined, or it lacks what the job asks for; no dashboard answers, or it "
    "refuses the token, or knows no such job",
    CTRL_C: "stopped by Ctrl-C; the same command resumes",
    TERMINATED: "stopped by SIGTERM; the same command resumes",
    HUNG_UP: "stopped by SIGHUP (its terminal was closed); the same command resumes",
}
"""Every exit code in words."""

VALUES = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
"""What the values of options are called, by type, where an option does not say it."""


def exit_codes() -> set[int]:
    """Every exit code that a command can end with."""
    return {
        0,
        CTRL_C,
        TERMINATED,
        HUNG_UP,
        DEADLINE,
        NOT_COMPLETE,
        RAY_DIED,
        BROKEN_PIPE,
        *EXIT_CODES.values(),
    }


def commands() -> dict[str, Any]:
    """Each command by name, in the order of the help."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def page() -> str:
    """The whole page."""
    sections = [HEAD, *("\n".join(_section(name, command)) for name, command in commands().items())]
    codes = [f"| {code} | {MEANINGS[code]} |" for code in sorted(exit_codes())]
    return "\n".join([*sections, "## Exit codes\n", "| exit code | meaning |", "|---|---|", *codes, ""])


def _section(name: str, command: Any) -> Iterator[str]:
    """One command: what it does, how it is called, its options."""
    types = get_type_hints(_function(name))
    arguments = [it for it in command.params if it.param_type_name == "argument"]
    options = [it for it in command.params if it.param_type_name == "option"]
    called = "".join(f" {_argument(parameter)}" for parameter in arguments)
    yield f"## raylabel {name}\n"
    yield f"{command.help}\n"
    yield f"    raylabel {name}{called} [OPTIONS]\n"
    for parameter in arguments:
        yield f"`{_argument(parameter)}`: {parameter.help}\n"
    yield "| option | default | environment | meaning |"
    yield "|---|---|---|---|"
    for parameter in options:
        yield _row(parameter, types[parameter.name])
    yield ""


def _function(name: str) -> Any:
    """What a command calls, where the types of its options are written."""
    return next(it.callback for it in app.registered_commands if name in {it.name, it.callback.__name__})


def _argument(parameter: Any) -> str:
    name = parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any, kind: Any) -> str:
    """One option as a row of the table; its default and its variable are in brackets in its help."""
    help_, default = _cut(parameter.help, "default")
    help_, variable = _cut(help_, "env")
    if not default and parameter.default not in {None, False}:
        default = str(parameter.default)
    types = [it for it in (kind, *get_args(kind)) if it in VALUES]
    value = "" if parameter.is_flag else f" {parameter.metavar or VALUES[types[0] if types else str]}"
    long, *short = sorted(parameter.opts, key=len, reverse=True)
    names = ", ".join([f"`{long}{value}`", *(f"`{name}`" for name in short)])
    meaning = f"{help_.rstrip('.')}{_limits(parameter)}."
    return f"| {names} | {default} | {f'`{variable}`' if variable else ''} | {meaning} |".replace("  ", " ")


def _limits(parameter: Any) -> str:
    least, most = parameter.min, parameter.max
    if most is not None:
        return f"; {least:,g} to {most:,g}"
    return "" if least is None else f"; at least {least:g}"


def _cut(help_: str, word: str) -> tuple[str, str]:
    """A help text without what it says in brackets of a default or a variable, and that."""
    found = re.search(rf" \[{word}: ([^\]]*)\]", help_)
    return (help_.replace(found[0], ""), found[1]) if found else (help_, "")


if __name__ == "__main__":
    print(page(), end="")
