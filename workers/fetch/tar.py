"""Tar files of images: what is in them, by their headers, grouped as WebDataset groups it.

A sample is what follows one another under one key: the path up to the first dot of the file's name
(`base_plus_ext` of https://github.com/webdataset/webdataset). Names without a dot, names that begin with one,
and folders and files named `__…__` are in no sample.
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
from workers.storage.uris import clean_uri

TARS_KEPT = 4
"""Tar files whose members are known in a process, of those that members are looked up in."""

_SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.[^/]*", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """A file in a tar file that belongs to a sample.

    Attributes:
        name: as the tar has it.
        key: of its sample.
        span: its first byte in the tar file, and how many it has.
        fault: why its bytes are not there as they are; "" where they are.
    """

    name: str
    key: str
    span: tuple[int, int]
    fault: str

    @property
    def is_image(self) -> bool:
        """By its name."""
        return PurePosixPath(self.name).suffix.lower() in IMAGE_ENDINGS


def members(tar: str, spec: FetchSpec) -> Iterator[Member | MissingImage]:
    """The members of samples in the order of the tar file; last, where it is cut or damaged, a word on that.

    Of an image that is cut itself its own row will say it.

    Raises:
        ManifestError: it is no tar file, or it is compressed.
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
    """Every header; last, where they end before they should, why."""
    last, at, said = None, 0, ""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while info := archive.next():
                yield info
                if archive.offset <= at:  # a damaged size would lead round and round
                    said = f"the header of {info.name!r} leads back"
                    break
                last, at = info, archive.offset
                archive.members.clear()  # type: ignore[attr-defined] # it would keep them all
    except (tarfile.TarError, ValueError, ArithmeticError, struct.error) as error:
        if last is None:
            raise ManifestError(_no_tar(tar, file, error)) from None
        said = str(error)
    if end := _end(file, last, at, size, said):
        yield end


def _end(
    file: IO[bytes] | RangeFile, last: tarfile.TarInfo | None, at: int, size: int, said: str
) -> MissingImage | None:
    """Why the headers of a tar file ended; None where they should have, or an image's row will say it."""
    if last and last.isreg() and not last.issparse() and last.offset_data + last.size > size:
        member = _member(last)
        if member and member.is_image:
            return None
        return MissingImage(
            ErrorCode.TRUNCATED, f"the tar file ends within {last.name!r}; what followed is lost"
        )
    file.seek(at)
    block = file.read(tarfile.BLOCKSIZE) or b""
    if not block.strip(b"\0"):  # the mark of its end, or no more than padding
        return None
    if said or len(block) < tarfile.BLOCKSIZE:
        why = f"the tar file ends within a header, at byte {at:,} ({said or 'cut'}); what followed is lost"
        return MissingImage(ErrorCode.TRUNCATED, why)
    why = f"byte {at:,} of the tar file begins neither a header nor its end; what followed is lost"
    return MissingImage(ErrorCode.UNSUPPORTED, why)


def _no_tar(tar: str, file: IO[bytes] | RangeFile, error: Exception) -> str:
    file.seek(0)
    begins = file.read(8) or b""
    for magic, name in _COMPRESSED.items():
        if begins.startswith(magic):
            return compressed(clean_uri(tar), f"it is {name} data")
    return f"{clean_uri(tar)} is no tar file: {error}"


def compressed(tar: str, how: str) -> str:
    """What is to be said of a tar file that is compressed."""
    return (
        f"{tar} is compressed ({how}): an image in it cannot be read without all that is before it. "
        "Unpack it to a plain .tar, which is hardly larger, as images are compressed already"
    )


def _member(info: tarfile.TarInfo) -> Member | None:
    """What a header says, where it is of a file in a sample."""
    # bytes of a name that are no UTF-8 come as lone surrogates, which no table can hold
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
    """The members of one tar file by name, as far as it was read.

    Of several with one name the first is meant.
    """

    def __init__(self, tar: str, spec: FetchSpec) -> None:
        self._todo = members(tar, spec)
        self._end = MissingImage(ErrorCode.NOT_FOUND, f"{clean_uri(tar)} has no such member")
        self._found: dict[str, Member] = {}

    def __call__(self, name: str) -> Member | MissingImage:
        while name not in self._found:
            match next(self._todo, None):
                case Member() as member:
                    self._found.setdefault(member.name, member)
                case MissingImage() as end:
                    self._end = end
                case None:
                    return self._end
        return self._found[name]


_lookups: dict[str, _Lookup] = {}
_looking = threading.Lock()


def find_member(tar: str, name: str, spec: FetchSpec) -> tuple[int, int]:
    """Where a member is in a tar file: its first byte and how many it has. Headers are read as far as needed.

    Raises:
        ImageError: there is no such member, or the tar file cannot be read.
    """
    with _looking:
        lookup = _lookups.pop(tar, None) or _Lookup(tar, spec)
        try:
            found = lookup(name)
        except ManifestError as error:
            raise ImageError(Stage.FETCH, ErrorCode.UNSUPPORTED, str(error)) from None
        _lookups[tar] = lookup  # one that could not be read is begun anew
        for old in list(_lookups)[:-TARS_KEPT]:
            del _lookups[old]
    match found:
        case MissingImage(code, why):
            raise ImageError(Stage.FETCH, code, f"tar://{name}: {why}")
        case Member(fault=why) if why:
            raise ImageError(Stage.FETCH, ErrorCode.UNSUPPORTED, why)
        case Member(span=span):
            return span
