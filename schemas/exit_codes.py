"""Exit codes of the command line, by exception."""

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

EXIT_CODES: dict[type[RaylabelError], int] = {
    SpecError: 2,
    QueryError: 2,
    ManifestError: 3,
    ModelError: 4,
    StorageError: 5,
    OutputConflictError: 6,
    FailureBudgetError: 7,
    ReconcileError: 8,
    DamagedFileError: 8,
    ClusterError: 11,
    ImageError: 1,
    ProcessDiedError: 1,
    RaylabelError: 1,
}
"""Exit codes by exception; 0 is success, 1 an unexpected error."""

NOT_COMPLETE = 10
"""Exit code of `reconcile` for a run whose files are undamaged, but that is not complete."""

CTRL_C, TERMINATED, HUNG_UP, DEADLINE = 130, 143, 129, 9
"""Exit codes of runs that were stopped: by SIGINT, SIGTERM and SIGHUP as in shells, and by `--stop-after`."""

BROKEN_PIPE = 141
"""Exit code of a command that prints and whose reader went away (`| head`), as in shells: 128 + SIGPIPE."""

RAY_DIED = 12
"""Exit code of a run that was stopped by the end of Ray under it."""
