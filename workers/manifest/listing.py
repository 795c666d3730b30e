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
from glob import escape, has_magic
from itertools import chain
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from schemas.exceptions import ManifestError
from workers.batched import chunks
from workers.manifest.passed_over import HIDDEN, NOWHERE, SPECIAL, PassedOver
from workers.storage.s3_listing import Key, keys_below, keys_in
from workers.storage.store import version_of

RUN_FILES = 100_000
"""Files that are sorted in memory; more are merged from a disk."""

_MAGIC = re.compile(r"[*?[]")

Order = Callable[[str], str]
"""What names are sorted by."""


class ListedFile(NamedTuple):
    """A file as its file system lists it: a bare tuple, as there may be tens of millions.

    Attributes:
        name: its path there.
        size: its bytes; None where its file system does not say.
        version: its ETag, or the time it was last changed; "" on a local disk, and where neither is known.
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


def list_files(fs: Any, path: str, passed: PassedOver | None = None) -> tuple[Iterator[ListedFile], Order]:
    """Returns the files that a path, a folder or a glob names, as they come, and the order to sort them in.

    That is `by_folder` for a folder and `by_path` for a glob. Names that begin with "." or "_" are passed
    over in folders, but not by a glob. Only regular files are listed, also through links.

    Args:
        fs: the file system.
        path: on it.
        passed: counts what is passed over.

    Raises:
        ManifestError: the path is neither a folder nor a regular file.
        Exception: while they are iterated, as each store has its own.
    """
    passed = PassedOver() if passed is None else passed
    if is_glob(fs, path):
        return _glob(fs, _with_fixed_folders(fs, path)), by_path
    return _folder_or_file(fs, path, passed), by_folder


def is_glob(fs: Any, path: str) -> bool:
    """Whether a path is a pattern, and not the name of something that is there."""
    return bool(has_magic(path)) and not fs.exists(path)


def root_of(fs: Any, path: str) -> str:
    """The folder below which `list_files` looks: the path, or what a glob's fixed beginning leads to."""
    if not is_glob(fs, path):
        return path
    fixed: list[str] = []
    for name in _with_fixed_folders(fs, path).split("/")[:-1]:
        plain = re.sub(r"\[([*?[])\]", r"\1", name)
        if has_magic(name) and escape(plain) != name:
            break
        fixed.append(plain)
    return "/".join(fixed)


def by_path(name: str) -> str:
    """The order of paths as they are written, as fsspec sorts a glob's: "a-1/x" before "a/x"."""
    return name


def by_folder(name: str) -> str:
    """The order of folders, and of names within a folder: "a/x" before "a-1/x"."""
    return name.replace("/", "\0")  # below every character of a name, where "-" and "." are below "/"


def _with_fixed_folders(fs: Any, pattern: str) -> str:
    """A pattern in which folders that are there are named as they are: a "[2024] photos" is no range."""
    *folders, last = pattern.split("/")
    for number, name in enumerate(folders):
        if has_magic(name):
            if not fs.exists("/".join([*folders[:number], name])):
                break
            folders[number] = escape(name)
    return "/".join([*folders, last])


def _folder_or_file(fs: Any, path: str, passed: PassedOver) -> Iterator[ListedFile]:
    if isinstance(fs, LocalFileSystem):
        yield from _local(path, passed)
        return
    if _is_s3(fs):
        is_folder = yield from _objects(fs, path, passed)
    elif is_folder := fs.isdir(path):
        yield from _below(fs, path, passed)
    if not is_folder and fs.exists(path):
        yield _listed(fs.info(path))


def _local(path: str, passed: PassedOver) -> Iterator[ListedFile]:
    """A local file, or those below a local folder."""
    if os.path.isdir(path):
        yield from _files_of(path, passed, deep=True, hidden=False)
    elif os.path.isfile(path):
        yield _local_file(path, os.stat(path))
    elif os.path.lexists(path):
        kind = "a pipe, socket or device" if os.path.exists(path) else "a link that leads nowhere"
        raise ManifestError(f"{path!r} is {kind}; allowed: a regular file or a folder")


def _below(fs: Any, path: str, passed: PassedOver) -> Iterator[ListedFile]:
    """The files below a folder, one folder after another."""
    for entry in fs.ls(path, detail=True):
        name = entry["name"].rstrip("/")
        if name == path:
            continue
        if name.rpartition("/")[2].startswith((".", "_")):
            passed.add(HIDDEN)
        elif entry["type"] == "directory":
            yield from _below(fs, name, passed)
        else:
            yield _listed(entry)


def _files_of(folder: str, passed: PassedOver, *, deep: bool, hidden: bool) -> Iterator[ListedFile]:
    """The regular files in a local folder, links to such included, as they come from the disk.

    A folder is read once, however many links lead to it: by the path with the fewest links and, of several
    such, the first in order. Links in linked folders would otherwise be more paths than can be counted.

    Args:
        folder: its path.
        passed: counts the others.
        deep: whether those in folders below are files of it too.
        hidden: whether names that begin with "." or "_" are listed. Each link in a folder is a name of its
            own then, which a pattern may ask for: only links within what it leads to are read once.
    """
    read: set[tuple[int, int]] = set()
    waiting = [_Folder(0, by_folder(folder), folder, is_link=False)]
    while waiting:
        now = heapq.heappop(waiting)
        stat = os.stat(now.path)
        is_name = hidden and now.links == 1 and not (now.is_link and _leads_up(now.path))
        if (stat.st_dev, stat.st_ino) in read and not is_name:
            passed.add(NOWHERE)
            continue
        read.add((stat.st_dev, stat.st_ino))
        for entry, entry_stat in _entries(now.path, passed, hidden=hidden):
            if S_ISREG(entry_stat.st_mode):
                yield _local_file(entry.path, entry_stat)
            elif not S_ISDIR(entry_stat.st_mode):
                passed.add(SPECIAL)
            elif deep:
                is_link = entry.is_symlink()
                links = now.links + is_link
                heapq.heappush(waiting, _Folder(links, by_folder(entry.path), entry.path, is_link=is_link))


class _Folder(NamedTuple):
    """A local folder that is to be read: of those that wait the first is next."""

    links: int
    order: str
    path: str
    is_link: bool


def _entries(
    folder: str, passed: PassedOver, *, hidden: bool
) -> Iterator[tuple["os.DirEntry[str]", os.stat_result]]:
    """What is in a local folder, and what it leads to."""
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                stat = entry.stat()
            except OSError:  # also of a link that leads to itself
                if entry.is_symlink():  # otherwise it was deleted meanwhile
                    passed.add(NOWHERE)
                continue
            if not hidden and entry.name.startswith((".", "_")):
                passed.add(HIDDEN)
            else:
                yield entry, stat


def _leads_up(link: str) -> bool:
    """Whether a link leads to a folder that it lies in."""
    target, place = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    return f"{place}/".startswith(f"{target.rstrip('/')}/")


def _local_file(path: str, stat: os.stat_result) -> ListedFile:
    """A local file; its version is left out, as the time of its change says nothing of what is in it."""
    return ListedFile(path, stat.st_size, "")


def _listed(entry: dict[str, Any]) -> ListedFile:
    return ListedFile(entry["name"], entry["size"], version_of(entry))


def _objects(fs: Any, path: str, passed: PassedOver) -> Generator[ListedFile, None, bool]:
    """Yields the files below a folder in S3; returns whether there is such a folder."""
    bucket, folder = _bucket_and_rest(fs, path)
    prefix = f"{folder}/" if folder else ""
    is_hidden = re.compile("/[._]").search
    is_folder = not folder
    with contextlib.suppress(FileNotFoundError):  # there is no such bucket
        for key in keys_below(fs, bucket, prefix):
            is_folder = True
            if is_hidden(f"/{key.key}", len(prefix)):
                passed.add(HIDDEN)
            elif not key.key.endswith("/"):
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
    stem = _MAGIC.split(pattern, maxsplit=1)[0]
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
        folders = [f"{entry['name']}/" for entry in entries if _is_folder(fs, entry)]
        files = chain.from_iterable(_beginning(fs, inner, deep=False) for inner in folders)
    matches = re.compile(glob_translate(pattern)).match
    with contextlib.suppress(FileNotFoundError):
        yield from (file for file in files if matches(file.name))


def _is_folder(fs: Any, entry: dict[str, Any]) -> bool:
    return entry["type"] == "directory" or (isinstance(fs, LocalFileSystem) and os.path.isdir(entry["name"]))


def _beginning(fs: Any, stem: str, *, deep: bool) -> Iterator[ListedFile]:
    """Files of a local disk or S3 in the folder of a stem, those that begin with it among them.

    Args:
        fs: the file system.
        stem: the beginning of a path.
        deep: whether files in folders below are of interest too.
    """
    if not _is_s3(fs):
        return _files_of(stem.rpartition("/")[0] or "/", PassedOver(), deep=deep, hidden=True)
    bucket, prefix = _bucket_and_rest(fs, stem)
    inner = prefix[: prefix.rfind("/") + 1]
    keys = keys_below(fs, bucket, inner) if deep else keys_in(fs, bucket, prefix)
    return (_object(bucket, key) for key in keys if not key.key.endswith("/"))


def _is_s3(fs: Any) -> bool:
    return "s3" in fs.protocol
