"""Reads image files: the bytes at a location, or the reason why there are none."""

import errno
from collections.abc import Callable
from typing import TypeVar

from fsspec.asyn import AsyncFileSystem, sync

from schemas.errors import MESSAGE_LIMIT, ErrorCode, Stage
from schemas.exceptions import ImageError, StorageError
from schemas.spec import FetchSpec
from workers.fetch.local import assert_file, read_local
from workers.fetch.patience import Patience, within
from workers.fetch.throttle import AdaptiveLimiter
from workers.printable import message_of
from workers.storage import s3
from workers.storage.answers import NotPartialError, Part, TooManyBytesError
from workers.storage.encodings import EncodingError
from workers.storage.filesystem import file_system, http_status, local_path
from workers.storage.options import kind_of
from workers.storage.uris import clean_uri, data_of, file_of, is_data, is_local, is_web, text_of

_CODES_BY_HTTP_STATUS = {
    401: ErrorCode.DENIED,
    403: ErrorCode.DENIED,
    404: ErrorCode.NOT_FOUND,
    410: ErrorCode.NOT_FOUND,
    408: ErrorCode.TIMEOUT,
    429: ErrorCode.THROTTLED,
    503: ErrorCode.THROTTLED,
}
_CODES_BY_S3_CODE = {
    "SlowDown": ErrorCode.THROTTLED,
    "ServiceUnavailable": ErrorCode.THROTTLED,
    "AccessDenied": ErrorCode.DENIED,
    **dict.fromkeys(s3.EXPIRED_CODES, ErrorCode.EXPIRED),
    "RequestTimeout": ErrorCode.TIMEOUT,
    "InternalError": ErrorCode.NETWORK,
    "NoSuchKey": ErrorCode.NOT_FOUND,
    "NoSuchBucket": ErrorCode.NOT_FOUND,
}
_T = TypeVar("_T")

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
    """Reads the bytes of one image file; retries while the error is temporary.

    Tries `spec.attempts` times; while the store throttles, for `spec.throttle_timeout_s` seconds.

    Args:
        location: an absolute path or any fsspec URL.
        spec: attempts, timeouts, and the largest file in bytes.
        start: the image's first byte in the file.
        size: the image's bytes; None: all up to the end of the file.
        limiter: shared by all reads of this process; None: no limit.

    Raises:
        ImageError: stage "fetch", with the code and the number of attempts.
    """
    name = clean_uri(location) + ("" if size is None else f" ({size:,} bytes from {start:,} on)")
    if size is not None and not 0 < size <= spec.max_bytes:  # no request is needed
        raise wrong_size(name, size, spec, 1)
    part = Part(start, size, spec.max_bytes)
    data, attempt = persist(name, spec, lambda: _read(location, part, spec.timeout_s), location, limiter)
    if size is not None and len(data) != size:
        raise _wrong_part(name, len(data), size, attempt)
    if not 0 < len(data) <= spec.max_bytes:
        raise wrong_size(name, len(data), spec, attempt)
    return data


def persist(
    name: str,
    spec: FetchSpec,
    read: Callable[[], _T],
    location: str,
    limiter: AdaptiveLimiter | None = None,
) -> tuple[_T, int]:
    """The result of reading something, and how many attempts it took: as many as its spec allows.

    Args:
        name: of what is read, for the message.
        spec: attempts and timeouts.
        read: reads once.
        location: that messages may hold, with its credentials.
        limiter: shared by all reads of this process; None: no limit.

    Raises:
        ImageError: stage "fetch", with the code and the number of attempts.
    """
    limiter, patience = limiter or AdaptiveLimiter(1), Patience(spec)
    while True:
        try:
            with limiter.slot():
                result = read()
        except Exception as error:
            code = code_of(error)
            if code is ErrorCode.THROTTLED:
                limiter.on_throttle()
            if patience.waited(code, error):
                continue
            if code is ErrorCode.TOO_LARGE:
                raise wrong_size(name, spec.max_bytes + 1, spec, patience.attempt) from None
            raise failure_of(error, location, name, patience.attempt) from None
        limiter.on_success()
        return result, patience.attempt


def wrong_size(name: str, size: int, spec: FetchSpec, attempt: int) -> ImageError:
    """The error of an image that has no bytes, or too many."""
    if not size:
        return ImageError(Stage.FETCH, ErrorCode.EMPTY, f"{name} has no bytes", attempt)
    message = f"{name} has more bytes than fetch.max_bytes = {spec.max_bytes:,}"
    return ImageError(Stage.FETCH, ErrorCode.TOO_LARGE, message, attempt)


def _wrong_part(name: str, read: int, size: int, attempt: int) -> ImageError:
    """The error of a part of a file of which other than `size` bytes were read."""
    if read < size:
        message = f"{name}: the file ends after {read:,} of them"
        return ImageError(Stage.FETCH, ErrorCode.TRUNCATED, message, attempt)
    message = f"{name}: found {read:,} bytes; its server does not support range requests"
    return ImageError(Stage.FETCH, ErrorCode.UNSUPPORTED, message, attempt)


def _read(location: str, part: Part, timeout_s: float) -> bytes:
    """Reads a file or a part of it, within the timeout; more than its limit of bytes is an exception."""
    start, size = part.start, part.most + 1 if part.size is None else part.size
    if is_data(location):
        return data_of(location)[start : start + size]
    # fsspec would take as long to parse the path as the disk to read the file
    if path := location if is_local(location) else local_path(location):
        return read_local(path, start, size)
    if bucket_and_key := s3.bucket_and_key(location):
        return s3.read(*bucket_and_key, part, timeout_s)
    if is_web(location):
        fs, _ = file_system(location, timeout_s)
        web_data: bytes = fs.read_part(location, part)  # a slash at its end is a part of the address
        return web_data
    return within(timeout_s, lambda: _read_anywhere(location, start, size, timeout_s))


def _read_anywhere(location: str, start: int, size: int, timeout_s: float) -> bytes:
    """Reads at most `size` bytes through fsspec."""
    if is_local(file := file_of(location)):  # of a chain, which a library opens
        assert_file(file)
    fs, path = file_system(location, timeout_s)
    if location.endswith("/"):
        path = _with_slash(location, path)
    try:
        # With a range s3fs sends one GET; without, a HEAD first
        if isinstance(fs, AsyncFileSystem) and fs.async_impl:
            return bytes(sync(fs.loop, fs._cat_file, path, start=start, end=start + size, timeout=timeout_s))
        return bytes(fs.cat_file(path, start=start, end=start + size))
    except Exception as error:
        if http_status(error) == 416 or s3.s3_code(error) == "InvalidRange":  # the file ends before `start`
            return b""
        raise


def _with_slash(location: str, path: str) -> str:
    """The path of a key that ends in slashes, which are a part of its name.

    Raises:
        FileNotFoundError: in this store, names that end in a slash are folders.
    """
    if kind_of(location) != "s3":
        raise FileNotFoundError("a name that ends in a slash is a folder's")
    return path + location[len(location.rstrip("/")) :]


def failure_of(error: Exception, location: str, name: str = "", attempt: int = 1) -> ImageError:
    """The error of an image that cannot be read, without the credentials in a location.

    Args:
        error: what reading it raised.
        location: what was read.
        name: of what was read, for the message; "": its location.
        attempt: the number of the last one.
    """
    shown = clean_uri(location)
    reason = message_of(error, location, shown)
    reason = reason or ("no answer in time" if isinstance(error, TimeoutError) else "no reason given")
    why = text_of(f"{type(error).__name__}: {reason}")[:MESSAGE_LIMIT]
    return ImageError(Stage.FETCH, code_of(error), f"{name or shown}: {why}", attempt)


def code_of(error: BaseException) -> ErrorCode:  # noqa: PLR0911, PLR0912 - one return for each code
    """The error code for an exception that was raised by reading a file."""
    if (code := _CODES_BY_S3_CODE.get(s3.s3_code(error))) or (
        code := _CODES_BY_HTTP_STATUS.get(http_status(error))
    ):
        return code
    match error:
        case s3.ChangedError():
            return ErrorCode.CORRUPT
        case TooManyBytesError():
            return ErrorCode.TOO_LARGE
        case EncodingError(cut=True):
            return ErrorCode.TRUNCATED
        case FileNotFoundError() if error.__cause__:  # fsspec takes any failure of a server for that
            return code_of(error.__cause__)
        case FileNotFoundError() | NotADirectoryError() | OSError(errno=errno.ENAMETOOLONG | errno.ELOOP):
            return ErrorCode.NOT_FOUND  # no file can have such a name, or its links lead in a circle
        case PermissionError():
            return ErrorCode.DENIED
        case IsADirectoryError():
            return ErrorCode.NOT_AN_IMAGE
        case TimeoutError():  # raised by fsspec, sockets and asyncio
            return ErrorCode.TIMEOUT
        case OSError(errno=errno.ENXIO | errno.ENODEV):  # a socket, or a device that is not there
            return ErrorCode.UNSUPPORTED
        case StorageError() | ValueError() | NotImplementedError() | NotPartialError() | EncodingError():
            return ErrorCode.UNSUPPORTED  # no file system for the URL, or an invalid path
        case MemoryError():
            return ErrorCode.OUT_OF_MEMORY
        case _ if any(_is_network_error(cause) for cause in s3.causes(error)):
            return ErrorCode.NETWORK
        case _:
            return ErrorCode.INTERNAL


def _is_network_error(error: BaseException) -> bool:
    return isinstance(error, ConnectionError) or type(error).__module__.split(".")[0] in _NETWORK_LIBRARIES
