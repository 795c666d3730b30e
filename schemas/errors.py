"""The stages that an image passes through, and the stable codes that it can fail with."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MESSAGE_LIMIT = 500
"""Longest message in the errors table, in characters."""


class Stage(StrEnum):
    """Where in the job an image failed."""

    LIST = "list"
    FETCH = "fetch"
    DECODE = "decode"
    CLASSIFY = "classify"
    DETECT = "detect"
    EMBED = "embed"
    TAG = "tag"
    WRITE = "write"


class ErrorCode(StrEnum):
    """Why an image failed. Codes are never renamed: people query by them."""

    NOT_FOUND = "NOT_FOUND"
    DENIED = "DENIED"
    EXPIRED = "EXPIRED"
    THROTTLED = "THROTTLED"
    TIMEOUT = "TIMEOUT"
    NETWORK = "NETWORK"
    CORRUPT = "CORRUPT"
    EMPTY = "EMPTY"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    TRUNCATED = "TRUNCATED"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED = "UNSUPPORTED"
    MODEL_ERROR = "MODEL_ERROR"
    NON_FINITE = "NON_FINITE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    WORKER_CRASHED = "WORKER_CRASHED"
    INTERNAL = "INTERNAL"

    @property
    def retryable(self) -> bool:
        """Whether a retry of the same image can succeed without any change."""
        return self in RETRYABLE


RETRYABLE = frozenset(
    {
        ErrorCode.EXPIRED,
        ErrorCode.THROTTLED,
        ErrorCode.TIMEOUT,
        ErrorCode.NETWORK,
        ErrorCode.CORRUPT,
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.WORKER_CRASHED,
    }
)
"""The codes of failures that may pass."""


@dataclass(frozen=True, slots=True)
class RowError:
    """Why one manifest row failed: the value of a row of the errors table.

    Attributes:
        stage: where it failed.
        code: why, as a stable code.
        message: what happened; at most `MESSAGE_LIMIT` characters, without credentials.
        attempts: how often the step that failed was tried.
        failed_at: when it failed, in UTC.
    """

    stage: Stage
    code: ErrorCode
    message: str
    attempts: int
    failed_at: datetime
