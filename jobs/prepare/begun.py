"""The job of a run that was begun: its directory keeps it, without what may be secret."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from schemas.exceptions import SpecError, StorageError
from schemas.spec import JobSpec
from schemas.spec_file import override_spec, read_spec, without_replaced
from workers.storage.uris import clean_uri

_SETTING = re.compile(r"(-{0,2}[\w.-]+=)(.*)", re.DOTALL)
"""An argument KEY=VALUE or --option=VALUE."""


def spec_of(job: str | None, overrides: dict[str, Any]) -> JobSpec:
    """The spec of a job.

    Args:
        job: its spec file, or the directory of a run of it; None: the overrides have all settings.
        overrides: dotted keys to values.

    Raises:
        SpecError: the spec is wrong, or lacks what a run does not keep.
        StorageError: the directory cannot be read.
    """
    if job is None or not ("://" in job or os.path.isdir(job)):
        return read_spec(job, overrides)
    try:
        return begun_spec(job, overrides)
    except StorageError as error:
        raise StorageError(f"{error}; to label the images in a folder, give it with --manifest") from None


def begun_spec(output: str, overrides: dict[str, Any]) -> JobSpec:
    """The spec of the run in a directory.

    Args:
        output: the run directory.
        overrides: dotted keys to other values, such as {"fetch.concurrency": 4}.

    Raises:
        SpecError: there is no run, a value is wrong, or one is needed that the run does not keep.
        StorageError: the directory cannot be read.
    """
    from workers.ledger.runs import find_run

    shown = clean_uri(output)
    record = find_run(output).record
    values = without_replaced(record.spec, overrides)
    unneeded = {*_paths(record.spec)} - {*_paths(values)}
    missing = [key for key in record.not_kept if not _is_given(key, [*overrides, *unneeded])]
    if missing:
        raise SpecError(
            f"{shown} keeps no secrets: {', '.join(missing)} had a password or a query. Give it again "
            f"(--set {missing[0]}=…), or use the command that began the run: {record.command}"
        )
    return override_spec(record.spec, {"output": output, **overrides}, f"the spec of the run at {shown}")


def _paths(value: Any, path: str = "") -> Iterator[str]:
    """The dotted keys of nested dictionaries."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        below = f"{path}.{key}".lstrip(".")
        yield below
        yield from _paths(inner, below)


def _is_given(key: str, overrides: Iterable[str]) -> bool:
    return any(key == given or key.startswith(f"{given}.") for given in overrides)


def changed_keys(value: Any, kept: Any, path: str = "") -> Iterator[str]:
    """The dotted keys of a spec whose text has lost something in the one that is kept.

    Args:
        value: a part of the spec as it was given.
        kept: the same part without credentials.
        path: where the part is.
    """
    if isinstance(value, dict):
        for key in value:
            yield from changed_keys(value[key], kept[key], f"{path}.{key}".lstrip("."))
    elif value != kept:
        yield path


def kept_command(arguments: Iterable[str]) -> str:
    """A command line as a run keeps it: quoted for a shell, URLs without credentials and query.

    Without --restart as well: given again it resumes the run, and deletes nothing.
    """
    kept = [_kept_argument(argument) for argument in arguments if argument != "--restart"]
    if "/dev/stdin" in kept:
        return "raylabel.label in Python, or a job spec on stdin"
    return shlex.join(["raylabel", *kept])


def _kept_argument(argument: str) -> str:
    """An argument without what may be secret; "…" for one in which several URLs cannot be told apart."""
    setting = _SETTING.fullmatch(argument)
    key, value = setting.groups() if setting else ("", argument)
    cleaned = clean_uri(value)
    is_one_uri = cleaned == value or not value.lstrip().startswith(("{", "[", '"', "'"))
    is_clear = "://" not in cleaned or not any(mark in cleaned for mark in "?@")
    return key + (cleaned if is_one_uri and is_clear else "…")
