"""What a script can tell an outcome by."""

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

NOT_COMPLETE = 10
"""Exit code of `reconcile` where all that there is of a run is proven, but the run is not complete."""


CTRL_C, TERMINATED, DEADLINE = 130, 143, 9
"""Exit codes: the first two as shells have them."""
