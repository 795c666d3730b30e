"""The files that a path, a folder or a glob names, without holding all of them in memory."""

import contextlib
import gzip
import hashlib
import heapq
import json
import os
import re
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from glob import has_magic
from itertools import chain
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from workers.batched import chunks
from workers.manifest.formats import Row
from workers.storage.filesystem import full_url
from workers.storage.s3_listing import Key, keys_below, keys_in

RUN = 100_000
"""Files that are put in order in memory; more are merged from a disk."""


class ListedFile(NamedTuple):
    """A file as its file system lists it.

    Attributes:
        name: its path there.
        size: its bytes; None where that is not told.
        version: what changes when it does: its ETag, or the time it was last changed; "" where neither is.
    """

    name: str
    size: int | None
    version: str


Order = Callable[[str], str]
"""What of a name decides its place among others."""


@dataclass(frozen=True)
class Files:
    """What a path, a folder or a glob names.

    Attributes:
        found: the files, once, as they are found.
        order: the order that they are meant in.
    """

    found: Iterator[ListedFile]
    order: Order


class Listing:
    """The images that a folder held when it was listed, as rows: on disk, as there may be millions.

    Args:
        files: the images.
        fs: the file system they are on.
        uri: of the folder or glob.

    Attributes:
        count: how many there are.
        digest: the sha256 over all names, sizes and versions.
    """

    def __init__(self, files: Files, fs: Any, uri: str) -> None:
        self._files = _sorted(files)
        self._fs, self._uri = fs, uri
        self.count, self.digest = self._files.count, self._files.digest.hexdigest()

    def __iter__(self) -> Iterator[Row]:
        start = None
        for file in self._files:
            if start is None:  # the same for all, and slow to find out
                start = full_url(self._fs, file.name, self._uri).removesuffix(file.name)
            yield {"uri": f"{start}{file.name}"}


class _Run:
    """Files in order, in a compressed temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with this object
        self.last: str | None = None
        self.count, self.digest = 0, hashlib.sha256()

    def append(self, files: list[ListedFile]) -> None:
        """Files that come after all that are there; of those of one name the first."""
        lines = []
        for file in files:
            if file.name != self.last:
                lines.append(json.dumps(file) + "\n")
                self.digest.update("{}\0{}\0{}\n".format(*file).encode(errors="surrogateescape"))
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


def _sorted(files: Files) -> _Run:
    """The files in their order: where they are found in it nearly, little is merged."""

    def place(file: ListedFile) -> str:
        return files.order(file.name)

    runs: list[_Run] = []
    for found in chunks(files.found, RUN):
        found.sort(key=place)
        before = [run for run in runs if run.last and files.order(run.last) <= place(found[0])]
        run = max(before, key=lambda run: files.order(run.last or ""), default=None)
        if run is None:
            runs.append(run := _Run())
        run.append(found)
    if len(runs) == 1:
        return runs[0]
    merged = _Run()
    for found in chunks(heapq.merge(*runs, key=place), RUN):
        merged.append(found)
    return merged


def list_files(fs: Any, path: str) -> Files:
    """The files that a path, a folder or a glob names on a file system.

    A folder's are meant in the order of its folders, those within a folder by name; a glob's by their paths.
    Names that begin with "." or "_" are passed over in folders, but not by a glob.

    Raises:
        Exception: while they are gone through, as each store has its own.
    """
    if has_magic(path) and not fs.exists(path):
        return Files(_glob(fs, path), by_path)
    return Files(_folder_or_file(fs, path), by_folder)


def by_path(name: str) -> str:
    """The order of paths as they are written: "a-1/x" before "a/x"."""
    return name


def by_folder(name: str) -> str:
    """The order of folders and files within a folder: "a/x" before "a-1/x"."""
    return name.replace("/", "\0")


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
    """What is in a folder; of a local one, which fsspec would hold as a whole, one entry after another."""
    if not isinstance(fs, LocalFileSystem):
        yield from fs.ls(path, detail=True)
        return
    with os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # gone since
                yield fs.info(entry)


def _listed(entry: dict[str, Any]) -> ListedFile:
    return ListedFile(entry["name"], entry["size"], _version(entry))


def _version(entry: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated"):
        if entry.get(key) is not None:
            return str(entry[key]).strip('"')
    return ""


def _objects(fs: Any, path: str) -> Generator[ListedFile, None, bool]:
    """The files below a folder in S3; whether there is such a folder."""
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
    bucket: str = fs.split_path(path)[0]  # or the name of an access point, which may have a slash
    return bucket, path.removeprefix(bucket).removeprefix("/")


def _object(bucket: str, key: Key) -> ListedFile:
    return ListedFile(f"{bucket}/{key.key}", key.size, key.etag.strip('"'))


def _glob(fs: Any, pattern: str) -> Iterator[ListedFile]:
    """The files that a glob names."""
    stem = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    if "/" not in stem or not (_is_s3(fs) or isinstance(fs, LocalFileSystem)):
        found = fs.glob(pattern, detail=True).values()
        yield from (_listed(entry) for entry in found if entry["type"] == "file")
        return
    folder = pattern.rpartition("/")[0]
    if "**" in pattern:
        files = _beginning(fs, stem, deep=True)
    elif not has_magic(folder):
        files = _beginning(fs, stem, deep=False)
    else:
        found = fs.glob(folder, detail=True).values()
        folders = [f"{entry['name']}/" for entry in found if entry["type"] == "directory"]
        files = chain.from_iterable(_beginning(fs, each, deep=False) for each in folders)
    matches = re.compile(glob_translate(pattern)).match
    with contextlib.suppress(FileNotFoundError):
        yield from (file for file in files if matches(file.name))


def _beginning(fs: Any, stem: str, *, deep: bool) -> Iterator[ListedFile]:
    """Files of a local disk or S3 whose paths may begin with a stem, in its folder or also below it."""
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
