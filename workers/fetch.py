"""Reading image files: bytes for a location, or the reason there are none."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import MESSAGE_LIMIT, ErrorCode, Stage
from schemas.exceptions import ImageError, StorageError
from schemas.spec import FetchSpec
from workers import objects
from workers.storage import clean_uri, file_system

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0

_HTTP = {
    401: ErrorCode.DENIED,
    403: ErrorCode.DENIED,
    404: ErrorCode.NOT_FOUND,
    410: ErrorCode.NOT_FOUND,
    408: ErrorCode.TIMEOUT,
    429: ErrorCode.THROTTLED,
    503: ErrorCode.THROTTLED,
}
_S3 = {
    "SlowDown": ErrorCode.THROTTLED,
    "ServiceUnavailable": ErrorCode.THROTTLED,
    "AccessDenied": ErrorCode.DENIED,
    "ExpiredToken": ErrorCode.DENIED,
    "NoSuchKey": ErrorCode.NOT_FOUND,
    "NoSuchBucket": ErrorCode.NOT_FOUND,
}
_NETWORK_LIBRARIES = {"aiohttp", "botocore", "aiobotocore", "requests", "urllib3", "http", "ssl"}


def fetch(location: str, spec: FetchSpec) -> bytes:
    """The bytes of one image file, tried up to `spec.attempts` times while the fault may pass.

    Args:
        location: an absolute path or any fsspec URL.
        spec: attempts, the time one may take, and the largest file.

    Raises:
        ImageError: stage "fetch", with the code and the number of attempts.
    """
    for attempt in range(1, spec.attempts + 1):
        try:
            data = _read(location, spec)
        except Exception as error:
            code = code_of(error)
            if code.retryable and attempt < spec.attempts:
                # full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
                time.sleep(random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)))
                continue
            message = f"{clean_uri(location)}: {_said(error, location)}"
            raise ImageError(Stage.FETCH, code, message, attempt) from None
        if len(data) > spec.max_bytes:
            message = f"{clean_uri(location)} has more bytes than fetch.max_bytes = {spec.max_bytes:,}"
            raise ImageError(Stage.FETCH, ErrorCode.TOO_LARGE, message, attempt)
        if not data:
            raise ImageError(Stage.FETCH, ErrorCode.EMPTY, f"{clean_uri(location)} has no bytes", attempt)
        return data
    raise AssertionError("unreachable: the last attempt returns or raises")


def _read(location: str, spec: FetchSpec) -> bytes:
    """At most one byte more than allowed, in one request, within the time allowed."""
    if "://" not in location:  # fsspec takes as long to tell what it is as the disk takes to read it
        return _read_file(location, spec.max_bytes + 1)
    try:
        if place := objects.bucket_and_key(location):
            return objects.read(*place, spec.max_bytes + 1, spec.timeout_s)
        fs, path = file_system(location)
        if isinstance(fs, LocalFileSystem):
            return _read_file(path, spec.max_bytes + 1)
        # a range makes s3fs send one GET, where it otherwise sends a HEAD first
        if isinstance(fs, AsyncFileSystem) and fs.async_impl:
            return bytes(
                sync(fs.loop, fs._cat_file, path, start=0, end=spec.max_bytes + 1, timeout=spec.timeout_s)
            )
        return bytes(fs.cat_file(path, start=0, end=spec.max_bytes + 1))
    except Exception as error:
        if _http_status(error) == 416 or _s3_code(error) == "InvalidRange":  # a range of an empty file
            return b""
        raise


def _read_file(path: str, most: int) -> bytes:
    """The bytes of a local file, up to so many; memory is taken for as many as it has."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # 0 of what is no plain file
        return file.read(min(most, size + 1) if size else most)


def code_of(error: BaseException) -> ErrorCode:  # noqa: PLR0911 - one a code
    """The stable code of an exception that reading a file raised."""
    if (code := _S3.get(_s3_code(error))) or (code := _HTTP.get(_http_status(error))):
        return code
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return ErrorCode.NOT_FOUND
        case PermissionError():
            return ErrorCode.DENIED
        case IsADirectoryError():
            return ErrorCode.NOT_AN_IMAGE
        case TimeoutError():  # of fsspec, of a socket and of asyncio alike
            return ErrorCode.TIMEOUT
        case StorageError() | ValueError() | NotImplementedError():
            return ErrorCode.UNSUPPORTED  # no file system for such a URL, or a path that none can have
        case MemoryError():
            return ErrorCode.OUT_OF_MEMORY
        case _ if any(_of_the_network(cause) for cause in _causes(error)):
            return ErrorCode.NETWORK
        case _:
            return ErrorCode.INTERNAL


def _of_the_network(error: BaseException) -> bool:
    return isinstance(error, ConnectionError) or type(error).__module__.split(".")[0] in _NETWORK_LIBRARIES


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _s3_code(error: BaseException) -> str:
    """The code of an S3 answer, which s3fs keeps as the cause of its own exception."""
    for cause in _causes(error):
        if isinstance(cause, objects.ObjectError):
            return cause.s3_code
        if isinstance(answer := getattr(cause, "response", None), dict):
            return str(answer.get("Error", {}).get("Code", ""))
    return ""


def _http_status(error: BaseException) -> int:
    """The status of an HTTP answer, which the exceptions of aiohttp and of `workers.objects` have."""
    statuses = (getattr(cause, "status", None) for cause in _causes(error))
    return next((status for status in statuses if isinstance(status, int)), 0)


def _said(error: BaseException, location: str) -> str:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return said.replace(location, clean_uri(location))[:MESSAGE_LIMIT]
