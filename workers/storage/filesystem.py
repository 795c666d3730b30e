"""The fsspec file system of a URL, with this process's storage options and fresh credentials."""

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.exceptions import StorageError
from workers.storage.options import filesystem_options, install_hint, kind_of
from workers.storage.s3 import EXPIRED_CODES, s3_code
from workers.storage.uris import clean_uri

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


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, without a listings cache, and the path on it.

    Raises:
        StorageError: no installed file system takes the URL.
    """
    if kind_of(url) == "az" and "@" in url.split("/")[2]:  # adlfs would drop the account from the URL
        raise StorageError(
            f"cannot use {clean_uri(url)}: write az://CONTAINER/PATH, with the account's name in the "
            "variable AZURE_STORAGE_ACCOUNT_NAME or in the job's storage section (options: {account_name: "
            "NAME})"
        )
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **filesystem_options(url))
    except ImportError as error:
        raise StorageError(f"cannot use {clean_uri(url)}: {install_hint(url) or error}") from error
    except ValueError as error:
        raise StorageError(f"cannot use {clean_uri(url)}: {error}") from error
    return fs, path.rstrip("/") or "/"


def open_file(url: str, mode: str = "rb", **options: Any) -> Any:
    """The file at a path or URL, for a `with` block; takes the options of `fsspec.open` (compression, ...).

    Raises:
        StorageError: no installed file system takes the URL.
    """
    fs, path = file_system(url)
    compression = fsspec.core.get_compression(path, options.pop("compression", None))
    return fsspec.core.OpenFile(fs, path, mode, compression=compression, **options)


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
