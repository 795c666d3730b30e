"""Files of a run: a folder on a local disk or in an object store, with the same few verbs for both."""

import contextlib
import copy
import errno
import functools
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from schemas.exceptions import StorageError
from schemas.ledger import TEMPORARY
from workers.storage.filesystem import file_system, full_url, renewing
from workers.storage.options import kind_of
from workers.storage.uris import clean_uri

READERS = 16
"""Files read at once."""


_P = ParamSpec("_P")
_T = TypeVar("_T")

_CONDITIONAL = ("s3", "gs", "az")
"""Kinds of stores that refuse to create a key that is there; others' file systems look before they write."""


def _renewed(verb: Callable[Concatenate["Store", _P], _T]) -> Callable[Concatenate["Store", _P], _T]:
    """A verb of a store, with credentials that have not ended; see `renewing`."""

    @functools.wraps(verb)
    def tried(store: "Store", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return renewing(store.fs, lambda: verb(store, *args, **kwargs))

    return tried


class Store:
    """A folder, and keys below it.

    Writes are whole or not at all. A reader that globs a folder never sees a part of a file: on a local disk
    files are made under `_work/tmp` and renamed; an object store shows an object when it is complete.

    Args:
        url: a path or any fsspec URL. A relative path is made absolute, so that workers find the same folder.

    Attributes:
        conditional: whether `create` may rely on the store to keep two writers apart; where it may not (see
            `creates_once`), it looks before it writes.
    """

    def __init__(self, url: str) -> None:
        fs, self.root = file_system(url)
        self.url = full_url(fs, self.root, url)
        self.conditional = True
        self._temporary = f"{self.root}/{TEMPORARY}"

    @functools.cached_property
    def fs(self) -> Any:
        """The file system, found anew in each process: what it signs with stays where it was found."""
        return file_system(self.url)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "fs"}

    def below(self, folder: str) -> "Store":
        """The same store from a folder in it on."""
        inner = copy.copy(self)
        inner.root, inner.url = f"{self.root}/{folder}", f"{self.url}/{folder}"
        return inner

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a disk that this process can rename and link files on."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, key: str) -> str:
        """The full path of a key, as the file system takes it."""
        return f"{self.root}/{key}"

    @_renewed
    def read(self, key: str) -> bytes:
        """The bytes of a key.

        Raises:
            FileNotFoundError: there is no such key.
            StorageError: it cannot be read.
        """
        with self._explained("read", key):
            data: bytes = self.fs.cat_file(self.path(key))
            return data

    def read_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """The bytes of many keys, in their order, several read at once; None where there is no such key."""
        with ThreadPoolExecutor(READERS) as pool:
            yield from pool.map(self._read_or_none, keys)

    def _read_or_none(self, key: str) -> bytes | None:
        try:
            return self.read(key)
        except FileNotFoundError:
            return None

    def read_tables(self, keys: Iterable[str]) -> list[pa.Table]:
        """The Parquet tables of many keys, in their order.

        Raises:
            FileNotFoundError: there is no such key.
        """
        with ThreadPoolExecutor(READERS) as pool:
            return [pq.read_table(pa.BufferReader(data)) for data in pool.map(self.read, keys)]

    @_renewed
    def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        with self._explained("look for", key):
            return bool(self.fs.exists(self.path(key)))

    @_renewed
    def folders(self, folder: str) -> list[str]:
        """The keys of the folders in a folder; none where there is no such folder."""
        with self._explained("list", folder):
            try:
                found = self.fs.ls(self.path(folder), detail=True)
            except FileNotFoundError:
                return []
        names = (entry["name"].rstrip("/") for entry in found if entry["type"] == "directory")
        return sorted(name.removeprefix(f"{self.root}/") for name in names)

    @_renewed
    def list(self, prefix: str) -> list[str]:
        """The keys below a folder, sorted; none where there is no such folder."""
        with self._explained("list", prefix):
            found = self.fs.find(self.path(prefix))
        # a server may keep a folder that was emptied, which s3fs gives as if it were a file in it
        below = f"{self.path(prefix).rstrip('/')}/"
        return sorted(path.removeprefix(f"{self.root}/") for path in found if path.startswith(below))

    @_renewed
    def write(self, key: str, data: bytes) -> None:
        """Puts a key, replacing what is there.

        Raises:
            StorageError: it cannot be written; what was there stays.
        """
        with self._explained("write", key):
            if self.is_local:
                with self._made_aside(key, data) as made:
                    os.replace(made, self.path(key))
            else:
                self.fs.pipe_file(self.path(key), data)

    @_renewed
    def create(self, key: str, data: bytes) -> bool:
        """Puts a key only where there is none (a conditional PUT; on a local disk a hard link).

        Where the store is not `conditional`, two writers at the same moment can both believe they made it.

        Returns:
            Whether this call made it. False: another did, and it stays as it is.

        Raises:
            StorageError: it cannot be written.
        """
        with self._explained("create", key):
            if self.is_local:
                with self._made_aside(key, data) as made:
                    return _links(made, self.path(key))
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
        """Whether `create` keeps two writers apart here: tried with a key of its own.

        Known of a local disk; S3, Google's and Azure's servers are asked; other file systems only look before
        they write.

        Raises:
            StorageError: nothing can be written here at all.
        """
        if self.is_local:
            return True
        key = f"{TEMPORARY}/create-{uuid.uuid4().hex}"
        try:
            # the first is refused where its answer was lost and it was sent again
            twice = self.create(key, b"1") and self.create(key, b"2")
            return not twice and kind_of(self.url) in _CONDITIONAL
        except StorageError:
            self.write(key, b"3")
            return False
        finally:
            with contextlib.suppress(StorageError):
                self.delete([key])

    def try_to_write(self) -> None:
        """Writes a file and deletes it; on a local disk in the nearest folder that is there.

        Raises:
            StorageError: it cannot be written or deleted.
        """
        key = f"{TEMPORARY}/try-{uuid.uuid4().hex}"
        if not self.is_local:
            self.write(key, b"raylabel was here")
            self.delete([key])
            return
        there = next(folder for folder in (Path(self.root), *Path(self.root).parents) if folder.exists())
        with self._explained("write", key), tempfile.TemporaryFile(dir=there):
            pass

    @_renewed
    def delete(self, keys: Iterable[str]) -> None:
        """Deletes keys; those that are not there are passed over.

        Raises:
            StorageError: a key could not be deleted.
        """
        doomed = [self.path(key) for key in keys]
        with self._explained("delete below", ""):
            if self.is_local:
                for path in doomed:
                    Path(path).unlink(missing_ok=True)
            elif doomed:
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm(doomed)

    def clear(self, folder: str) -> None:
        """Deletes all that is below a folder, and the folder."""
        self.delete(self.list(folder))
        if self.is_local:
            shutil.rmtree(self.path(folder), ignore_errors=True)

    @contextlib.contextmanager
    def _made_aside(self, key: str, data: bytes) -> Iterator[str]:
        """A finished temporary file beside the local key, gone afterwards."""
        made = Path(self._temporary, f"{os.getpid()}-{uuid.uuid4().hex}")
        made.parent.mkdir(parents=True, exist_ok=True)
        Path(self.path(key)).parent.mkdir(parents=True, exist_ok=True)
        try:
            with made.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield str(made)
        finally:
            made.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            raise StorageError(
                f"cannot {verb} {clean_uri(self.url)}/{key}: {error or type(error).__name__}"
            ) from error


def _links(made: str, path: str) -> bool:
    """Gives a finished file its name; False where the name is taken."""
    try:
        os.link(made, path)
    except FileExistsError:
        return False
    return True
