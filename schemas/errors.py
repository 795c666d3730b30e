"""The stages that an image passes through, and the stable codes that it can fail with."""

import re
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


SENTENCES = {
    ErrorCode.NOT_FOUND: "there is no such file",
    ErrorCode.DENIED: "its storage refuses access",
    ErrorCode.EXPIRED: "the credentials for its storage had expired",
    ErrorCode.THROTTLED: "its storage asked to slow down, again and again",
    ErrorCode.TIMEOUT: "it took too long",
    ErrorCode.NETWORK: "the connection to its storage failed",
    ErrorCode.CORRUPT: "its bytes were not those that its storage has",
    ErrorCode.EMPTY: "the file has no bytes",
    ErrorCode.NOT_AN_IMAGE: "it is no image",
    ErrorCode.TRUNCATED: "the file ends before the picture does",
    ErrorCode.TOO_LARGE: "it is larger than what is allowed",
    ErrorCode.UNSUPPORTED: "an image of this kind is not read",
    ErrorCode.MODEL_ERROR: "the model failed on it",
    ErrorCode.NON_FINITE: "the model answered with what is no number",
    ErrorCode.OUT_OF_MEMORY: "there was not enough memory for it",
    ErrorCode.WORKER_CRASHED: "the process that worked on it died",
    ErrorCode.INTERNAL: "it failed in a way that has no code of its own",
}
"""What a code says of an image."""

_LIBRARYS = re.compile(r"(?:^|: )[A-Z]\w*[a-z]\w*: |\b[A-Z]\w*(?:Error|Exception|Warning)\b|\[Errno")
"""The marks of what a library of Python says: a class of exceptions, a number of the system."""


def reason_of(code: str, message: str) -> str:
    """Why an image failed, for a person: the message, or what the code says where that is a library's."""
    is_known = code in SENTENCES
    return SENTENCES[ErrorCode(code)] if is_known and _LIBRARYS.search(message) else message


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
