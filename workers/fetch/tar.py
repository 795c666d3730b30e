"""Tar files of images: reads their headers, and groups their members into samples as WebDataset does.

A sample is a series of members with the same key: the path up to the first dot of the file's name
(`base_plus_ext` of https://github.com/webdataset/webdataset). Names without a dot, names that begin with one,
and folders and files named `__…__` belong to no sample.
"""

import re
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError, ManifestError
from schemas.locations import IMAGE_ENDINGS, MissingImage
from schemas.spec import FetchSpec
from workers.fetch.ranges import RangeFile, open_ahead
from workers.printable import message_of
from workers.storage.uris import clean_uri

MAX_LOOKUPS = 4
"""Tar files whose members a process remembers, for looking them up by name."""

_SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.[^/]*", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """A file in a tar file that belongs to a sample.

    Attributes:
        name: its path in the tar file.
        key: of its sample.
        span: its first byte in the tar file, and its size in bytes.
        fault: why it cannot be read as a range of the tar file; "" if it can.
    """

    name: str
    key: str
    span: tuple[int, int]
    fault: str

    @property
    def is_image(self) -> bool:
        """Whether its name has the ending of an image."""
        return PurePosixPath(self.name).suffix.lower() in IMAGE_ENDINGS


def members(tar: str, spec: FetchSpec) -> Iterator[Member | MissingImage]:
    """The members of samples in the order of the tar file; last, if it is cut or damaged, a `MissingImage`.

    If it is cut within an image there is none: that image fails by itself when it is read.

    Raises:
        ManifestError: it is not a tar file, or it is compressed.
        ImageError: stage "fetch": it cannot be read.
    """
    with open_ahead(tar, spec) as file:
        size = file.seek(0, 2)
        file.seek(0)
        for info in _headers(tar, file, size):
            if isinstance(info, MissingImage):
                yield info
            elif member := _member(info):
                yield member


def _headers(tar: str, file: IO[bytes] | RangeFile, size: int) -> Iterator[tarfile.TarInfo | MissingImage]:
    """All headers; last, if they end too early, the reason."""
    last, end, problem = None, 0, ""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while info := archive.next():
                yield info
                if archive.offset <= end:  # a damaged size (negative, for example) would make an endless loop
                    problem = f"the header of {info.name!r} leads back"
                    break
                last, end = info, archive.offset
                archive.members.clear()  # type: ignore[attr-defined] # it would keep all headers in memory
    except (tarfile.TarError, ValueError, ArithmeticError, struct.error) as error:
        if last is None:
            raise ManifestError(_not_a_tar(tar, file, error)) from None
        problem = message_of(error)
    if missing := _missing_end(file, last, end, size, problem):
        yield missing


def _missing_end(
    file: IO[bytes] | RangeFile, last: tarfile.TarInfo | None, end: int, size: int, problem: str
) -> MissingImage | None:
    """Why the headers of a tar file ended; None if it is whole, or if the last image itself is cut.

    `tarfile` ends without an exception at some kinds of damage, so the file is checked here.

    Args:
        file: the tar file.
        last: its last header; None if it has none.
        end: the byte after the last member, where a header or the end marker should be.
        size: bytes of the file.
        problem: why reading stopped; "" if `tarfile` took it for the end.
    """
    if last and last.isreg() and not last.issparse() and last.offset_data + last.size > size:
        member = _member(last)
        if member and member.is_image:
            return None
        return MissingImage(
            ErrorCode.TRUNCATED, f"the tar file ends within {last.name!r}; what followed is lost"
        )
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE) or b""
    if not block.strip(b"\0"):  # the end marker, or only padding
        return None
    if problem or len(block) < tarfile.BLOCKSIZE:
        why = (
            f"the tar file ends within a header, at byte {end:,} ({problem or 'cut'}); what followed is lost"
        )
        return MissingImage(ErrorCode.TRUNCATED, why)
    why = f"byte {end:,} of the tar file begins neither a header nor its end; what followed is lost"
    return MissingImage(ErrorCode.UNSUPPORTED, why)


def _not_a_tar(tar: str, file: IO[bytes] | RangeFile, error: Exception) -> str:
    file.seek(0)
    start = file.read(8) or b""
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            return compressed_message(clean_uri(tar), f"it is {name} data")
    return f"{clean_uri(tar)} is not a tar file: {message_of(error)}"


def compressed_message(tar: str, reason: str) -> str:
    """The error message for a tar file that is compressed; `reason` says how that is known."""
    return (
        f"{tar} is compressed ({reason}): an image in it cannot be read without all that is before it. "
        "Unpack it to a plain .tar, which is hardly larger, as images are compressed already"
    )


def _member(info: tarfile.TarInfo) -> Member | None:
    """The member of a header; None if it belongs to no sample."""
    # tarfile decodes bytes that are not UTF-8 to lone surrogates, which no table can hold
    name = info.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    sample = _SAMPLE.fullmatch(name)
    if not sample or _META.match(name):
        return None
    fault = ""
    if info.issym() or info.islnk():
        fault = f"{name!r} is a link to {info.linkname!r} in the tar file, and links are not followed"
    elif not info.isreg():
        return None
    elif info.issparse():
        fault = f"{name!r} is stored with holes (a sparse file), which are not filled here"
    member = Member(name, sample[1], (info.offset_data, info.size), fault)
    return member if member.is_image or not fault else None


class _Lookup:
    """Finds members of one tar file by name; reads headers only as far as needed.

    If several members have the same name, the first counts.
    """

    def __init__(self, tar: str, spec: FetchSpec) -> None:
        self._unread = members(tar, spec)
        self._end = MissingImage(ErrorCode.NOT_FOUND, f"{clean_uri(tar)} has no such member")
        self._members: dict[str, Member] = {}

    def __call__(self, name: str) -> Member | MissingImage:
        while name not in self._members:
            match next(self._unread, None):
                case Member() as member:
                    self._members.setdefault(member.name, member)
                case MissingImage() as end:
                    self._end = end
                case None:
                    return self._end
        return self._members[name]


_lookups: dict[str, _Lookup] = {}
_lookup_lock = threading.Lock()


def find_member(tar: str, name: str, spec: FetchSpec) -> tuple[int, int]:
    """The first byte and the size of a member of a tar file; reads headers only as far as needed.

    Raises:
        ImageError: there is no such member, or the tar file cannot be read.
    """
    with _lookup_lock:
        lookup = _lookups.pop(tar, None) or _Lookup(tar, spec)
        try:
            member = lookup(name)
        except ManifestError as error:
            raise ImageError(Stage.FETCH, ErrorCode.UNSUPPORTED, str(error)) from None
        _lookups[tar] = lookup  # not reached if reading failed: the next call starts over
        for oldest in list(_lookups)[:-MAX_LOOKUPS]:
            del _lookups[oldest]
    match member:
        case MissingImage(code, why):
            raise ImageError(Stage.FETCH, code, f"tar://{name}: {why}")
        case Member(fault=why) if why:
            raise ImageError(Stage.FETCH, ErrorCode.UNSUPPORTED, why)
        case Member(span=span):
            return span
