"""The file system of a URL, with this process's options and credentials that have not expired."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.exceptions import StorageError
from workers.storage.options import kind_of, missing, options_of
from workers.storage.s3 import EXPIRED_CODES, s3_code
from workers.storage.uris import clean_uri

_renewing = threading.Lock()
_T = TypeVar("_T")


def renewing(fs: Any, ask: Callable[[], _T]) -> _T:
    """What a file system is asked, once more where its credentials have ended, with those that are there now.

    botocore by itself renews what a role or a command gave it; what it found in a file it keeps.
    """
    client = getattr(fs, "_s3", None)
    try:
        return ask()
    except Exception as error:
        if s3_code(error) not in (*EXPIRED_CODES, "400"):  # the answer to a HEAD has no body that says why
            raise
    with _renewing:
        if fs._s3 is client:  # no other thread was here first
            fs.connect(refresh=True)
    return ask()


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path on it, without listings kept from earlier.

    Raises:
        StorageError: nothing here reads such a URL.
    """
    if kind_of(url) == "az" and "@" in url.split("/")[2]:  # its file system forgets the account
        raise StorageError(
            f"cannot use {clean_uri(url)}: write az://CONTAINER/PATH, with the account's name in the "
            "variable AZURE_STORAGE_ACCOUNT_NAME or in the job's storage section (options: {account_name: "
            "NAME})"
        )
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options_of(url))
    except ImportError as error:
        raise StorageError(f"cannot use {clean_uri(url)}: {missing(url) or error}") from error
    except ValueError as error:
        raise StorageError(f"cannot use {clean_uri(url)}: {error}") from error
    return fs, path.rstrip("/") or "/"


def opened(url: str, mode: str = "rb", **options: Any) -> Any:
    """A file of a path or URL, to be used in a `with`; compression, encoding, ... as `fsspec.open` has them.

    Raises:
        StorageError: nothing here reads such a URL.
    """
    fs, path = file_system(url)
    compression = fsspec.core.get_compression(path, options.pop("compression", None))
    return fsspec.core.OpenFile(fs, path, mode, compression=compression, **options)


def full_url(fs: Any, path: str, found_by: str) -> str:
    """The URL of a path on a file system; a local path stays a path.

    Args:
        fs: the file system.
        path: the path on it.
        found_by: the URL that led to it, whose scheme is kept where it has several: az:// or abfs://.
    """
    if isinstance(fs, LocalFileSystem):
        return path
    first, _, rest = str(fs.unstrip_protocol(path)).partition("://")
    asked = found_by.partition("://")[0]
    return f"{asked if asked in fs.protocol else first}://{rest}"
