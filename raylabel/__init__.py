"""raylabel in Python: labels images, and reads what was found, from a notebook or a program.

    import raylabel

    run = raylabel.label({"manifest": "photos.csv", "output": "runs/today"})
    run.labels().to_table()

docs/python.md tells more. Nothing is imported before it is asked for: the command `raylabel` starts through
this package too, from folders whose modules may hide Python's own.
"""

TYPE_CHECKING = False  # typing's own, without importing it
if TYPE_CHECKING:
    from raylabel.api import Run, label, open_run
    from raylabel.errors import (
        ClusterError,
        DamagedFileError,
        FailureBudgetError,
        ManifestError,
        ModelError,
        OutputConflictError,
        RaylabelError,
        ReconcileError,
        SpecError,
        StoppedError,
        StorageError,
    )

__all__ = [
    "ClusterError",
    "DamagedFileError",
    "FailureBudgetError",
    "ManifestError",
    "ModelError",
    "OutputConflictError",
    "RaylabelError",
    "ReconcileError",
    "Run",
    "SpecError",
    "StoppedError",
    "StorageError",
    "label",
    "open_run",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Imports what a program asks for: see PEP 562."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module = import_module("raylabel.errors" if name.endswith("Error") else "raylabel.api")
        return getattr(module, name)

    def __dir__() -> list[str]:
        return __all__
