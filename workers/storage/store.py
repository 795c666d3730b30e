"""The files of a run: a folder on a local disk or in an object store, with the same methods for both."""

import contextlib
import copy
import errno
import functools
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from schemas.exceptions import StorageError
from schemas.ledger import TEMPORARY
from workers.printable import message_of
from workers.storage.filesystem import file_system, full_url, with_fresh_credentials
from workers.storage.naming import name_new, names_once
from workers.storage.options import kind_of
from workers.storage.uris import clean_uri

READERS = 16
"""Threads that read files at once."""


UNCONDITIONAL = (
    "this store does not refuse to overwrite (no conditional PUT, or a disk with neither hard links nor a "
    "rename that refuses). A run that is killed still loses and doubles nothing, but only as long as no two "
    "attempts at it run at once: make sure of that yourself"
)
"""What a person is told of a store that does not create once."""

_P = ParamSpec("_P")
_T = TypeVar("_T")

_CONDITIONAL = ("s3", "gs", "az")
"""Kinds of stores that can refuse to overwrite a key; other file systems look before they write."""


def _renews_credentials(
    method: Callable[Concatenate["Store", _P], _T],
) -> Callable[Concatenate["Store", _P], _T]:
    """Decorates a method of a store: see `with_fresh_credentials`."""

    @functools.wraps(method)
    def wrapper(store: "Store", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return with_fresh_credentials(store.fs, lambda: method(store, *args, **kwargs))

    return wrapper


_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated")
"""How file systems call what changes with a file."""


def version_of(entry: Mapping[str, Any]) -> str:
    """The version of a file that a file system describes: its ETag, or its time; "" if neither is known."""
    known = (entry[name] for name in _VERSIONS if entry.get(name) is not None)
    return str(next(known, "")).strip('"')


class Store:
    """A folder, and the files below it by key (a path relative to the folder).

    Writes are atomic. A reader that globs the folder never sees a part of a file: on a local disk files
    are written under `_work/tmp` and renamed; an object store shows an object only once it is complete.

    Args:
        url: a path or any fsspec URL. A relative path is made absolute, so that workers find the same folder.

    Attributes:
        conditional: whether `create` relies on the store to refuse a key that exists. Set it to False if the
            store cannot (see `creates_once`): `create` then looks before it writes.
    """

    def __init__(self, url: str) -> None:
        fs, self.root = file_system(url)
        self.url = full_url(fs, self.root, url)
        self.conditional = True
        self._temporary = f"{self.root}/{TEMPORARY}"

    @functools.cached_property
    def fs(self) -> Any:
        """The file system, opened anew in each process, so that no credentials are pickled."""
        return file_system(self.url)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "fs"}

    def below(self, folder: str) -> "Store":
        """A store for a folder in this one."""
        inner = copy.copy(self)
        inner.root, inner.url = f"{self.root}/{folder}", f"{self.url}/{folder}"
        return inner

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a local disk, where files can be renamed and linked."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, key: str) -> str:
        """The path of a key on the file system."""
        return f"{self.root}/{key}"

    @_renews_credentials
    def read(self, key: str) -> bytes:
        """The bytes of a key.

        Raises:
            FileNotFoundError: no such key; a folder is none.
            StorageError: it cannot be read.
        """
        with self._storage_errors("read", key):
            try:
                data: bytes = self.fs.cat_file(self.path(key))
            except (IsADirectoryError, NotADirectoryError) as error:
                raise FileNotFoundError(self.path(key)) from error
            return data

    def read_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """The bytes of many keys, in order, read in parallel; None for a key that does not exist."""
        with ThreadPoolExecutor(READERS) as pool:
            yield from pool.map(self._read_or_none, keys)

    def _read_or_none(self, key: str) -> bytes | None:
        try:
            return self.read(key)
        except FileNotFoundError:
            return None

    def read_tables(self, keys: Iterable[str]) -> list[pa.Table]:
        """The Parquet tables of many keys, in order, read in parallel.

        Raises:
            FileNotFoundError: one of the keys does not exist.
        """
        with ThreadPoolExecutor(READERS) as pool:
            return [pq.read_table(pa.BufferReader(data)) for data in pool.map(self.read, keys)]

    @_renews_credentials
    def exists(self, key: str) -> bool:
        """Whether a key exists."""
        with self._storage_errors("look for", key):
            return bool(self.fs.exists(self.path(key)))

    @_renews_credentials
    def folders(self, folder: str) -> list[str]:
        """The keys of the folders directly in a folder, sorted; none if it does not exist."""
        with self._storage_errors("list", folder):
            try:
                entries = self.fs.ls(self.path(folder), detail=True)
            except FileNotFoundError:
                return []
        names = (entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory")
        return sorted(name.removeprefix(f"{self.root}/") for name in names)

    def list(self, prefix: str) -> list[str]:
        """The keys below a folder, at any depth, sorted; none if it does not exist."""
        return sorted(self.sizes(prefix))

    @_renews_credentials
    def sizes(self, prefix: str) -> dict[str, int]:
        """The keys below a folder, at any depth, and the bytes of each; none if it does not exist."""
        with self._storage_errors("list", prefix):
            paths = self.fs.find(self.path(prefix), detail=True)
        # a server may keep an object for a folder that was emptied; s3fs lists it as a file
        below = f"{self.path(prefix).rstrip('/')}/"
        return {
            path.removeprefix(f"{self.root}/"): entry["size"]
            for path, entry in paths.items()
            if path.startswith(below)
        }

    @_renews_credentials
    def version(self, key: str) -> str | None:
        """What changes when a key of a store that is no local disk is replaced; None: there is no such key.

        Raises:
            StorageError: it cannot be asked for.
        """
        try:
            with self._storage_errors("read", key):
                entry = self.fs.info(self.path(key))
        except FileNotFoundError:
            return None
        return f"{entry['size']} {version_of(entry)}"

    @_renews_credentials
    def write(self, key: str, data: bytes) -> None:
        """Writes a key, replacing what is there.

        Raises:
            StorageError: it cannot be written; what was there is unchanged.
        """
        with self._storage_errors("write", key):
            if self.is_local:
                with self._temporary_file(key, data) as temporary:
                    os.replace(temporary, self.path(key))
            else:
                self.fs.pipe_file(self.path(key), data)

    @_renews_credentials
    def put(self, key: str, file: Path) -> None:
        """Writes a key of a store that is no local disk from a file of any size, replacing what is there.

        Raises:
            StorageError: it cannot be written; what was there is unchanged.
        """
        with self._storage_errors("write", key):
            self.fs.put_file(str(file), self.path(key))

    @_renews_credentials
    def get(self, key: str, file: Path) -> None:
        """Copies a key of a store that is no local disk into a file, of any size.

        Raises:
            FileNotFoundError: there is no such key.
            StorageError: it cannot be read, or the file cannot be written.
        """
        with self._storage_errors("read", key):
            self.fs.get_file(self.path(key), str(file))

    @_renews_credentials
    def create(self, key: str, data: bytes) -> bool:
        """Writes a key only if it does not exist: by a conditional PUT, or on a local disk by `name_new`.

        If the store is not `conditional`, two writers at the same moment can both get True.

        Returns:
            Whether this call created it. False: it existed, and is unchanged.

        Raises:
            StorageError: it cannot be written.
        """
        with self._storage_errors("create", key):
            if self.is_local:
                with self._temporary_file(key, data) as temporary:
                    name = name_new if self.conditional else _look_and_rename
                    return name(temporary, self.path(key))
            if not self.conditional and self.fs.exists(self.path(key)):
                return False
            try:
                self.fs.pipe_file(self.path(key), data, **({"mode": "create"} if self.conditional else {}))
            except FileExistsError:
                return False
            except OSError as error:
                # s3fs reports a refused conditional PUT as "invalid argument"
                if error.errno == errno.EINVAL and self.fs.exists(self.path(key)):
                    return False
                raise
            return True

    def creates_once(self) -> bool:
        """Whether of two `create` calls for a key only one succeeds, tried with a key of its own.

        Local disks are tried, as some have neither hard links nor a rename that refuses, and servers of S3,
        Google and Azure, as some ignore the condition. Other file systems only look before they write.

        Raises:
            StorageError: nothing can be written to the store.
        """
        if self.is_local:
            with self._storage_errors("write", TEMPORARY):
                Path(self._temporary).mkdir(parents=True, exist_ok=True)
                return names_once(self._temporary)
        key = f"{TEMPORARY}/create-{uuid.uuid4().hex}"
        try:
            # the first is refused if its response was lost and the client sent it again
            twice = self.create(key, b"1") and self.create(key, b"2")
            return not twice and kind_of(self.url) in _CONDITIONAL
        except StorageError:
            self.write(key, b"3")
            return False
        finally:
            with contextlib.suppress(StorageError):
                self.delete([key])

    def try_to_write(self) -> bool:
        """Writes a file and deletes it; on a local disk in the nearest folder that exists.

        Returns:
            Whether `create` creates once there; see `creates_once`, which makes the folder.

        Raises:
            StorageError: it cannot be written or deleted.
        """
        key = f"{TEMPORARY}/try-{uuid.uuid4().hex}"
        if self.is_local:
            with self._storage_errors("write to", ""):
                folder = next(it for it in (Path(self.root), *Path(self.root).parents) if it.exists())
                return names_once(str(folder))
        self.write(key, b"raylabel was here")
        self.delete([key])
        return self.creates_once()

    @_renews_credentials
    def delete(self, keys: Iterable[str]) -> None:
        """Deletes keys; keys that do not exist are skipped.

        Raises:
            StorageError: a key could not be deleted.
        """
        paths = [self.path(key) for key in keys]
        with self._storage_errors("delete below", ""):
            if self.is_local:
                for path in paths:
                    Path(path).unlink(missing_ok=True)
            elif paths:
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm(paths)

    def clear(self, folder: str) -> None:
        """Deletes a folder and all that is below it."""
        self.delete(self.list(folder))
        if self.is_local:
            shutil.rmtree(self.path(folder), ignore_errors=True)

    @contextlib.contextmanager
    def _temporary_file(self, key: str, data: bytes) -> Iterator[str]:
        """The path of a temporary file with the data, synced to disk; it is gone after the block."""
        temporary = Path(self._temporary, f"{os.getpid()}-{uuid.uuid4().hex}")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        Path(self.path(key)).parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield str(temporary)
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _storage_errors(self, verb: str, key: str) -> Iterator[None]:
        """Turns an error into a StorageError with verb and key, but for a file that is read and not there."""
        try:
            yield
        except Exception as error:
            if verb == "read" and isinstance(error, FileNotFoundError):
                raise
            raise StorageError(f"cannot {verb} {clean_uri(self.url)}/{key}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why a file could not be used, without the path of the system's message: it may be a temporary one."""
    if isinstance(error, OSError) and error.filename:
        error = OSError(error.strerror)
    return message_of(error) or type(error).__name__


def _look_and_rename(temporary: str, path: str) -> bool:
    """Gives a finished file its name unless it is taken, where the disk cannot do both at once."""
    if os.path.exists(path):
        return False
    os.replace(temporary, path)
    return True
