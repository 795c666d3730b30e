"""The exceptions that end a call of raylabel, by the names that a program catches them by."""

import signal

from raylabel.own import own_modules

with own_modules():
    from jobs.run.stop import SIGNALS
    from schemas.exceptions import (
        ClusterError,
        DamagedFileError,
        FailureBudgetError,
        ImageError,
        ManifestError,
        ModelError,
        OutputConflictError,
        ProcessDiedError,
        QueryError,
        RaylabelError,
        ReconcileError,
        SpecError,
        StorageError,
    )
    from schemas.exit_codes import DEADLINE, EXIT_CODES, RAY_DIED

__all__ = [
    "ClusterError",
    "DamagedFileError",
    "FailureBudgetError",
    "ManifestError",
    "ModelError",
    "OutputConflictError",
    "RaylabelError",
    "ReconcileError",
    "SpecError",
    "StoppedError",
    "StorageError",
]


class StoppedError(RaylabelError):
    """A job was stopped before its end. What is committed stays, and the same call resumes it.

    Args:
        message: what happened and what to do.
        reason: "the deadline", "Ctrl-C", "SIGTERM" or another signal, or "the end of Ray".
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


for _name in __all__:
    globals()[
        _name
    ].__module__ = "raylabel"  # where a traceback and pickle name them, and where they are found

_KINDS = {
    code: kind
    for kind, code in EXIT_CODES.items()
    if kind not in (DamagedFileError, ImageError, ProcessDiedError, QueryError)
}
"""Exceptions by the exit code of the command: of several with one code the base."""

_REASONS = {
    DEADLINE: "the deadline",
    RAY_DIED: "the end of Ray",
    **{code: name for name, code in SIGNALS.values()},
}
"""Why a command was stopped, by its exit code."""


def failure_of(exit_code: int, stderr: str) -> RaylabelError:
    """The exception that says how the command ended.

    Args:
        exit_code: of the command, other than 0; of one that a signal killed its number, negative.
        stderr: all that it printed there.
    """
    message = f"\n{stderr}".rpartition("\nraylabel: ")[2].strip()
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return StoppedError(f"the process of the job was killed by {name}; the same call resumes", name)
    message = message or f"the process of the job ended with exit code {exit_code} and did not say why"
    if reason := _REASONS.get(exit_code):
        return StoppedError(message, reason)
    return _KINDS.get(exit_code, RaylabelError)(message)
