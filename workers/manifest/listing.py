"""The files that a path, a folder or a glob names, and their order, without holding all of them in memory."""

import contextlib
import gzip
import hashlib
import heapq
import json
import os
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from glob import has_magic
from itertools import chain
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from workers.batched import chunks
from workers.storage.s3_listing import Key, keys_below, keys_in

RUN_FILES = 100_000
"""Files that are sorted in memory; more are merged from a disk."""

Order = Callable[[str], str]
"""What names are sorted by."""


class ListedFile(NamedTuple):
    """A file as its file system lists it: a bare tuple, as there may be tens of millions.

    Attributes:
        name: its path there.
        size: its bytes; None where its file system does not say.
        version: its ETag, or the time it was last changed; "" where neither is known.
    """

    name: str
    size: int | None
    version: str


class Listing:
    """Files in their order, each name once: on disk, in a compressed temporary file.

    Attributes:
        count: how many there are.
        last: the name of the last one; None where there is none.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with this object
        self._digest = hashlib.sha256()
        self.last: str | None = None
        self.count = 0

    @property
    def digest(self) -> str:
        """The sha256 over all names, sizes and versions."""
        return self._digest.hexdigest()

    def append(self, files: list[ListedFile]) -> None:
        """Adds sorted files that come after all that are there; of those with one name the first."""
        lines = []
        for file in files:
            if file.name != self.last:
                lines.append(json.dumps(file) + "\n")
                self._digest.update("{}\0{}\0{}\n".format(*file).encode(errors="surrogateescape"))
                self.last = file.name
        self.count += len(lines)
        with gzip.open(self._file, "at", compresslevel=1) as end:
            end.write("".join(lines))

    def __iter__(self) -> Iterator[ListedFile]:
        self._file.seek(0)
        with gzip.open(self._file, "rt") as lines:
            yield from (ListedFile(*json.loads(line)) for line in lines)

    def __del__(self) -> None:
        self._file.close()


def listing_of(files: Iterable[ListedFile], order: Order) -> Listing:
    """Returns files as a listing in an order, whatever order they come in: an external merge sort.

    Stores list in nearly the order that is wanted. So a sorted chunk of files usually comes after all files
    of a run on disk and is appended to it, and few runs, often one, are left to merge. Of the runs that a
    chunk fits after, the one that ends last takes it: the others stay free for chunks that come earlier.
    """

    def key(file: ListedFile) -> str:
        return order(file.name)

    runs: list[Listing] = []
    for chunk in chunks(files, RUN_FILES):
        chunk.sort(key=key)
        fitting = [run for run in runs if run.last and order(run.last) <= key(chunk[0])]
        run = max(fitting, key=lambda run: order(run.last or ""), default=None)
        if run is None:
            runs.append(run := Listing())
        run.append(chunk)
    if len(runs) == 1:
        return runs[0]
    merged = Listing()
    for chunk in chunks(heapq.merge(*runs, key=key), RUN_FILES):
        merged.append(chunk)
    return merged


def list_files(fs: Any, path: str) -> tuple[Iterator[ListedFile], Order]:
    """Returns the files that a path, a folder or a glob names, as they come, and the order to sort them in.

    That is `by_folder` for a folder and `by_path` for a glob. Names that begin with "." or "_" are passed
    over in folders, but not by a glob.

    Raises:
        Exception: while they are iterated, as each store has its own.
    """
    if has_magic(path) and not fs.exists(path):
        return _glob(fs, path), by_path
    return _folder_or_file(fs, path), by_folder


def by_path(name: str) -> str:
    """The order of paths as they are written, as fsspec sorts a glob's: "a-1/x" before "a/x"."""
    return name


def by_folder(name: str) -> str:
    """The order of folders, and of names within a folder: "a/x" before "a-1/x"."""
    return name.replace("/", "\0")  # below every character of a name, where "-" and "." are below "/"


def _folder_or_file(fs: Any, path: str) -> Iterator[ListedFile]:
    if _is_s3(fs):
        is_folder = yield from _objects(fs, path)
    elif is_folder := fs.isdir(path):
        yield from _below(fs, path)
    if not is_folder and fs.exists(path):
        yield _listed(fs.info(path))


def _below(fs: Any, path: str) -> Iterator[ListedFile]:
    """The files below a folder, one folder after another."""
    for entry in _ls(fs, path):
        name = entry["name"].rstrip("/")
        if name.rpartition("/")[2].startswith((".", "_")) or name == path:
            continue
        if entry["type"] == "directory":
            yield from _below(fs, name)
        else:
            yield _listed(entry)


def _ls(fs: Any, path: str) -> Iterator[dict[str, Any]]:
    """The entries of a folder; a local one is iterated, as fsspec would hold all of it in memory."""
    if not isinstance(fs, LocalFileSystem):
        yield from fs.ls(path, detail=True)
        return
    with os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                yield fs.info(entry)


def _listed(entry: dict[str, Any]) -> ListedFile:
    return ListedFile(entry["name"], entry["size"], _version(entry))


def _version(entry: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated"):
        if entry.get(key) is not None:
            return str(entry[key]).strip('"')
    return ""


def _objects(fs: Any, path: str) -> Generator[ListedFile, None, bool]:
    """Yields the files below a folder in S3; returns whether there is such a folder."""
    bucket, folder = _bucket_and_rest(fs, path)
    prefix = f"{folder}/" if folder else ""
    is_hidden = re.compile("/[._]").search
    is_folder = not folder
    with contextlib.suppress(FileNotFoundError):  # there is no such bucket
        for key in keys_below(fs, bucket, prefix):
            is_folder = True
            if not (key.key.endswith("/") or is_hidden(f"/{key.key}", len(prefix))):
                yield _object(bucket, key)
    return is_folder


def _bucket_and_rest(fs: Any, path: str) -> tuple[str, str]:
    bucket: str = fs.split_path(path)[0]  # it may be the name of an access point, which may have a slash
    return bucket, path.removeprefix(bucket).removeprefix("/")


def _object(bucket: str, key: Key) -> ListedFile:
    return ListedFile(f"{bucket}/{key.key}", key.size, key.etag.strip('"'))


def _glob(fs: Any, pattern: str) -> Iterator[ListedFile]:
    """The files that a glob names.

    fsspec's own glob holds all that it goes through in memory. So where there may be millions of files they
    are iterated here, from the folder that the pattern's fixed beginning leads to, and matched by its name.
    """
    stem = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    if "/" not in stem or not (_is_s3(fs) or isinstance(fs, LocalFileSystem)):
        entries = fs.glob(pattern, detail=True).values()
        yield from (_listed(entry) for entry in entries if entry["type"] == "file")
        return
    folder = pattern.rpartition("/")[0]
    if "**" in pattern:
        files = _beginning(fs, stem, deep=True)
    elif not has_magic(folder):
        files = _beginning(fs, stem, deep=False)
    else:
        entries = fs.glob(folder, detail=True).values()
        folders = [f"{entry['name']}/" for entry in entries if entry["type"] == "directory"]
        files = chain.from_iterable(_beginning(fs, inner, deep=False) for inner in folders)
    matches = re.compile(glob_translate(pattern)).match
    with contextlib.suppress(FileNotFoundError):
        yield from (file for file in files if matches(file.name))


def _beginning(fs: Any, stem: str, *, deep: bool) -> Iterator[ListedFile]:
    """Files of a local disk or S3 in the folder of a stem, those that begin with it among them.

    Args:
        fs: the file system.
        stem: the beginning of a path.
        deep: whether files in folders below are of interest too.
    """
    if not _is_s3(fs):
        return _files_of(fs, stem.rpartition("/")[0] or "/", deep=deep)
    bucket, prefix = _bucket_and_rest(fs, stem)
    inner = prefix[: prefix.rfind("/") + 1]
    keys = keys_below(fs, bucket, inner) if deep else keys_in(fs, bucket, prefix)
    return (_object(bucket, key) for key in keys if not key.key.endswith("/"))


def _files_of(fs: Any, folder: str, *, deep: bool) -> Iterator[ListedFile]:
    for entry in _ls(fs, folder):
        if entry["type"] == "file":
            yield _listed(entry)
        elif deep and entry["type"] == "directory":
            yield from _files_of(fs, entry["name"], deep=True)


def _is_s3(fs: Any) -> bool:
    return "s3" in fs.protocol
