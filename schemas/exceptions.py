"""Every exception of raylabel.

    RaylabelError
    ├── SpecError                the job spec is wrong; fix it and run again
    │   └── QueryError           a query of `raylabel search` is none; with the place of what is wrong
    ├── ManifestError            the manifest cannot be read as specified
    ├── ModelError               a model cannot be built (unknown name, wrong weights) or fails on every image
    ├── StorageError             a file or object cannot be listed, read or written
    ├── OutputConflictError      the output holds another run, or an attempt at it is running
    ├── FailureBudgetError       more images failed than `max_failed` allows; resumable
    ├── ReconcileError           the tables do not add up to the manifest, or are not as the ledger says
    │   └── DamagedFileError     a file of a run is cut, empty, gone, or something else
    ├── ClusterError             a cluster cannot be started or reached, lacks what is asked, or refuses
    ├── ImageError               one image failed: becomes a row of the errors table, never ends a job
    └── ProcessDiedError         a labelling process crashed: its images are retried, never ends a job

All of them can be pickled, because they pass through Ray.
"""

from schemas.errors import ErrorCode, Stage


class RaylabelError(Exception):
    """Base class. The message says what was found, where, what is allowed and what to do."""


class SpecError(RaylabelError):
    """The job spec is wrong: an unknown key, a wrong type, an impossible value."""


class QueryError(SpecError):
    """A query of `raylabel search` cannot be answered.

    Args:
        message: what is wrong, and below it the query with a mark.
        start: where in the query what is wrong begins.
        end: and where it ends.

    Attributes:
        start: the same.
        end: the same.
    """

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message, start, end)
        self.start = start
        self.end = end

    def __str__(self) -> str:
        return str(self.args[0])


class ManifestError(RaylabelError):
    """The manifest cannot be read as specified: missing, empty, without its URI column, malformed."""


class ModelError(RaylabelError):
    """A model cannot be built (unknown name, wrong weights) or fails on every image."""


class StorageError(RaylabelError):
    """A file or an object cannot be listed, read or written; of an image's own file see `ImageError`."""


class OutputConflictError(RaylabelError):
    """The output holds a run whose rows would differ, or foreign files, or an attempt that is running.

    Also a run that is not complete, where a complete one is needed.
    """


class FailureBudgetError(RaylabelError):
    """More images failed than the job's `max_failed` allows. What is committed stays; a rerun resumes."""


class ReconcileError(RaylabelError):
    """The tables, the ledger and the manifest do not add up, so the run is not marked complete."""


class DamagedFileError(ReconcileError):
    """A file of a run is not what it must be: cut, empty, gone, of another version, or something else.

    Args:
        kind: what it should be, such as "commit".
        file: where it is, without credentials, fit to print.
        reason: what is wrong with it.
        advice: what that means, and what to do.
        key: of the file, as it is: in the ledger for what that holds, otherwise in the run directory.
    """

    def __init__(self, kind: str, file: str, reason: str, advice: str, key: str) -> None:
        super().__init__(kind, file, reason, advice, key)
        self.kind = kind
        self.file = file
        self.reason = reason
        self.advice = advice
        self.key = key

    @property
    def finding(self) -> str:
        """What is damaged, and how: for where the advice does not hold."""
        return f"{self.file} is damaged: {self.reason}"

    def __str__(self) -> str:
        return f"{self.finding}. {self.advice}"


class ClusterError(RaylabelError):
    """A Ray cannot be started or joined, lacks what a job asks for, denies access, or refuses a request."""


class ImageError(RaylabelError):
    """One image failed. Stages raise it; the labeller turns it into a row of the errors table.

    Args:
        stage: where it failed.
        code: the stable code.
        message: what happened.
        attempts: how often the step was tried.
    """

    def __init__(self, stage: Stage, code: ErrorCode, message: str, attempts: int = 1) -> None:
        super().__init__(stage, code, message, attempts)
        self.stage = stage
        self.code = code
        self.message = message
        self.attempts = attempts

    def __str__(self) -> str:
        return f"{self.stage}: {self.code}: {self.message}"


class ProcessDiedError(RaylabelError):
    """A labelling process crashed, or was killed for its memory or its time, before it answered.

    Args:
        stage: the last stage that it began.
        code: WORKER_CRASHED, OUT_OF_MEMORY or TIMEOUT.
        message: what ended it.
        row: the manifest row of the image that is the cause, where that is known.
    """

    def __init__(self, stage: Stage, code: ErrorCode, message: str, row: int | None = None) -> None:
        super().__init__(stage, code, message, row)
        self.stage = stage
        self.code = code
        self.message = message
        self.row = row

    def __str__(self) -> str:
        return f"{self.stage}: {self.code}: {self.message}"
