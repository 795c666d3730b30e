"""Reading image files: bytes for a location, or the reason there are none."""

import itertools
import math
import os
import random
import time
from pathlib import Path

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import MESSAGE_LIMIT, ErrorCode, Stage
from schemas.exceptions import ImageError, StorageError
from schemas.spec import FetchSpec
from workers.fetch.throttle import AdaptiveLimiter
from workers.storage import s3
from workers.storage.filesystem import file_system
from workers.storage.uris import clean_uri

FIRST_WAIT_S = 0.2
MAX_WAIT_S = 10.0

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
    **dict.fromkeys(s3.EXPIRED_CODES, ErrorCode.EXPIRED),
    "RequestTimeout": ErrorCode.TIMEOUT,
    "InternalError": ErrorCode.NETWORK,
    "NoSuchKey": ErrorCode.NOT_FOUND,
    "NoSuchBucket": ErrorCode.NOT_FOUND,
}
_NETWORK_LIBRARIES = {
    *("aiohttp", "botocore", "aiobotocore", "requests", "urllib3", "http", "ssl"),
    *("azure", "gcsfs", "google"),
}


def fetch(
    location: str,
    spec: FetchSpec,
    start: int = 0,
    size: int | None = None,
    limiter: AdaptiveLimiter | None = None,
) -> bytes:
    """The bytes of one image file, tried again while the fault may pass.

    Up to `spec.attempts` times; while the store asks to slow down, for `spec.throttle_timeout_s`.

    Args:
        location: an absolute path or any fsspec URL.
        spec: attempts, the time one may take, and the largest file.
        start: where in the file the image begins.
        size: how many bytes it has; None: all that follow.
        limiter: of all reads from here; None: this one's own.

    Raises:
        ImageError: stage "fetch", with the code and the number of attempts.
    """
    what = clean_uri(location) + ("" if size is None else f" ({size:,} bytes from {start:,} on)")
    if size is not None and not 0 < size <= spec.max_bytes:  # known without a request
        raise wrong_size(what, size, spec, 1)
    limiter, refused_since = limiter or AdaptiveLimiter(1), math.inf
    for attempt in itertools.count(1):
        try:
            with limiter.slot():
                data = _read(location, spec, start, spec.max_bytes + 1 if size is None else size)
        except Exception as error:
            code = code_of(error)
            patient = False
            if code is ErrorCode.THROTTLED:
                limiter.on_throttle()
                refused_since = min(refused_since, time.monotonic())
                patient = time.monotonic() - refused_since < spec.throttle_timeout_s
            if code.retryable and (attempt < spec.attempts or patient):
                # full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
                longest = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 16))
                time.sleep(random.uniform(0, longest))
                continue
            raise ImageError(Stage.FETCH, code, f"{what}: {_said(error, location)}", attempt) from None
        limiter.on_success()
        if size is not None and len(data) != size:
            raise _wrong_part(what, len(data), size, attempt)
        if not 0 < len(data) <= spec.max_bytes:
            raise wrong_size(what, len(data), spec, attempt)
        return data
    raise AssertionError("unreachable: counting has no end")


def wrong_size(what: str, size: int, spec: FetchSpec, attempt: int) -> ImageError:
    """Of an image without bytes, or with too many."""
    if not size:
        return ImageError(Stage.FETCH, ErrorCode.EMPTY, f"{what} has no bytes", attempt)
    message = f"{what} has more bytes than fetch.max_bytes = {spec.max_bytes:,}"
    return ImageError(Stage.FETCH, ErrorCode.TOO_LARGE, message, attempt)


def _wrong_part(what: str, found: int, size: int, attempt: int) -> ImageError:
    """Of a part of a file that is not what was asked for."""
    if found < size:
        message = f"{what}: the file ends after {found:,} of them"
        return ImageError(Stage.FETCH, ErrorCode.TRUNCATED, message, attempt)
    message = f"{what}: found {found:,} bytes; its server must know range requests, and does not"
    return ImageError(Stage.FETCH, ErrorCode.UNSUPPORTED, message, attempt)


def _read(location: str, spec: FetchSpec, start: int, most: int) -> bytes:
    """At most so many bytes, in one request, within the time allowed."""
    if "://" not in location:  # fsspec takes as long to tell what it is as the disk takes to read it
        return _read_file(location, start, most)
    try:
        if place := s3.bucket_and_key(location):
            return s3.read(*place, most, spec.timeout_s, start)
        fs, path = file_system(location)
        if isinstance(fs, LocalFileSystem):
            return _read_file(path, start, most)
        # a range makes s3fs send one GET, where it otherwise sends a HEAD first
        if isinstance(fs, AsyncFileSystem) and fs.async_impl:
            return bytes(
                sync(fs.loop, fs._cat_file, path, start=start, end=start + most, timeout=spec.timeout_s)
            )
        return bytes(fs.cat_file(path, start=start, end=start + most))
    except Exception as error:
        if _http_status(error) == 416 or s3.s3_code(error) == "InvalidRange":  # the file ends before it
            return b""
        raise


def _read_file(path: str, start: int, most: int) -> bytes:
    """The bytes of a local file, up to so many; memory is taken for as many as it has."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # 0 of what is no plain file
        if start:
            file.seek(start)
        return file.read(min(most, max(size - start, 0) + 1) if size else most)


def code_of(error: BaseException) -> ErrorCode:  # noqa: PLR0911 - one a code
    """The stable code of an exception that reading a file raised."""
    if (code := _S3.get(s3.s3_code(error))) or (code := _HTTP.get(_http_status(error))):
        return code
    match error:
        case s3.ChangedError():
            return ErrorCode.CORRUPT
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
        case _ if any(_of_the_network(cause) for cause in s3.causes(error)):
            return ErrorCode.NETWORK
        case _:
            return ErrorCode.INTERNAL


def _of_the_network(error: BaseException) -> bool:
    return isinstance(error, ConnectionError) or type(error).__module__.split(".")[0] in _NETWORK_LIBRARIES


def _http_status(error: BaseException) -> int:
    """The status of an HTTP answer: as aiohttp, `workers.storage.s3`, Azure's client and gcsfs name it."""
    for cause in s3.causes(error):
        for name in ("status", "status_code", "code"):
            if isinstance(status := getattr(cause, name, None), int):
                return status
        if type(cause) is OSError and str(cause).startswith("Forbidden: "):
            return 403  # gcsfs says that in its text alone
    return 0


def _said(error: BaseException, location: str) -> str:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return said.replace(location, clean_uri(location))[:MESSAGE_LIMIT]
