"""The fsspec file system of a URL, with this process's storage options and fresh credentials."""

import functools
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.exceptions import StorageError
from workers.printable import message_of
from workers.storage.options import filesystem_options, install_hint, kind_of
from workers.storage.s3 import EXPIRED_CODES, causes, s3_code
from workers.storage.uris import clean_uri, lower_scheme, scheme_of, split_chain, without_copies

_log = logging.getLogger(__name__)

_renewal_lock = threading.Lock()
_T = TypeVar("_T")


def with_fresh_credentials(fs: Any, operation: Callable[[], _T]) -> _T:
    """Returns an operation's result; one whose S3 credentials have expired is repeated once with new ones.

    botocore renews by itself what it got from a role or a command. What it read from a file it keeps, even
    when the file has changed; a new client reads the file again.

    Args:
        fs: the file system that the operation uses.
        operation: does the whole operation, so that it can be repeated.
    """
    client = getattr(fs, "_s3", None)  # None also before the first operation, which makes a client
    try:
        return operation()
    except Exception as error:
        code = s3_code(error)
        if code not in (*EXPIRED_CODES, "400"):  # the answer to a HEAD has no body, so no code of S3's
            raise
    with _renewal_lock:
        # Threads that fail together wait here; one of them renews, the others find a client newer than theirs
        if fs._s3 is client:
            fs.connect(refresh=True)
            _log.info("renewed the credentials for %s (%s)", clean_uri(fs.endpoint_url or "s3://"), code)
    return operation()


def file_system(url: str, timeout_s: float | None = None) -> tuple[Any, str]:
    """The file system of a URL, without a listings cache, and the path on it.

    Args:
        url: any that fsspec reads.
        timeout_s: seconds that a request over HTTP may take as a whole; None: it may take long.

    Raises:
        StorageError: no installed file system takes the URL.
    """
    url = lower_scheme(without_copies(url))
    if reason := _refusal(url):
        raise StorageError(f"cannot use {clean_uri(url)}: {reason}")
    if "http" in url:
        _use_own_web()
    try:
        fs, path = _url_to_fs(local_path(url) or url, timeout_s)
    except (ImportError, ValueError, TypeError) as error:  # TypeError: it takes options that there are not
        raise StorageError(
            f"cannot use {clean_uri(url)}: {install_hint(url) or message_of(error)}"
        ) from error
    except OSError as error:
        if kind_of(url) != "hdfs" or "lib" not in str(error):  # of others the network
            raise
        raise StorageError(f"cannot use {clean_uri(url)}: {install_hint(url)}") from error
    return fs, path.rstrip("/") or "/"


def local_path(url: str) -> str | None:
    """The path of a `file:` URL, whose percent-encoding is undone (RFC 8089); None of any other URI.

    Where nothing is at that path, it is what was written: many URLs are made without encoding.

    Raises:
        StorageError: the URL is of another host.
    """
    if scheme_of(url) != "file":
        return None
    if reason := _refusal(url):
        raise StorageError(f"cannot use {clean_uri(url)}: {reason}")
    written = url[len("file:") :]
    if written.startswith("//"):
        written = f"/{written[2:].partition('/')[2]}"
    decoded = os.fsdecode(unquote_to_bytes(os.fsencode(written)))
    return decoded if os.path.lexists(decoded) or not os.path.lexists(written) else written


def _refusal(url: str) -> str | None:
    """Why no file system can take a URL, by how it is written; None where one may."""
    scheme, rest = scheme_of(url), url[len(scheme_of(url)) + 1 :]
    if scheme == "file":
        host = rest[2:].partition("/")[0] if rest.startswith("//") else ""
        if host.lower() not in ("", "localhost"):
            return f"{host!r} stands where a host does; only files of this machine are read. Write file:///…"
    elif scheme and not rest.startswith("//"):
        return install_hint(url) if scheme == "dbfs" else f"a slash is missing. Write {scheme}://…"
    if kind_of(url) == "az" and "@" in url.split("/")[2]:  # adlfs would drop the account from the URL
        return (
            "write az://CONTAINER/PATH, with the account's name in the variable AZURE_STORAGE_ACCOUNT_NAME "
            "or in the job's storage section (options: {account_name: NAME})"
        )
    return None


def _url_to_fs(url: str, timeout_s: float | None) -> tuple[Any, str]:
    """The file system of a URL and the path on it. fsspec takes any "::" for that of a chain."""
    options, scheme = filesystem_options(url, timeout_s), scheme_of(url)
    if split_chain(url) or (scheme and "::" not in url):
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
        return fs, str(path)
    scheme = scheme or "file"
    kind = fsspec.get_filesystem_class(scheme)
    arguments = kind._get_kwargs_from_urls(url) | options.get(scheme, {})
    return kind(use_listings_cache=False, **arguments), str(kind._strip_protocol(url))


@functools.cache
def _use_own_web() -> None:
    """Makes fsspec read from web servers through `WebFileSystem`, also in chains."""
    from workers.storage.web import WebFileSystem

    for scheme in ("http", "https"):
        fsspec.register_implementation(scheme, WebFileSystem, clobber=True)


def open_file(url: str) -> Any:
    """The bytes at a path or URL, for a `with` block.

    Raises:
        StorageError: no installed file system takes the URL.
    """
    fs, path = file_system(url)
    return fsspec.core.OpenFile(fs, path)


def full_url(fs: Any, path: str, requested: str) -> str:
    """The URL of a path on a file system; a local path stays a path.

    Args:
        fs: the file system.
        path: the path on it.
        requested: the URL that `fs` was made for; its scheme is kept if the file system has several, such as
            az:// and abfs://.
    """
    if isinstance(fs, LocalFileSystem):
        return path
    default, _, rest = str(fs.unstrip_protocol(path)).partition("://")
    scheme = requested.partition("://")[0]
    return f"{scheme if scheme in fs.protocol else default}://{rest}"


def http_status(error: BaseException) -> int:
    """The HTTP status in an exception or its causes, 0 if there is none.

    aiohttp, `workers.storage.s3`, Azure's client and gcsfs each name the attribute differently.
    """
    for cause in causes(error):
        for name in ("status", "status_code", "code"):
            if isinstance(status := getattr(cause, name, None), int):
                return status
        if type(cause) is OSError and str(cause).startswith("Forbidden: "):
            return 403  # gcsfs has it in its text only
    return 0


def is_denied(error: BaseException) -> bool:
    """Whether a store refuses to give a file.

    S3 and Google say so of one that is not there, too, to those who may not list the bucket.
    """
    return isinstance(error, PermissionError) or s3_code(error) == "AccessDenied" or http_status(error) == 403
