"""Turns a URI into the location of an image, and reads the image at a location.

A part of a file is written as a chain, the part first, in fsspec's notation:

    tar://000000123.jpg::s3://bucket/00000.tar            a member of a tar file, by its name
    parquet://image/1234::s3://bucket/train-0.parquet     a value of a column, by its row in the file
"""

import re
from urllib.parse import quote, unquote

from schemas.errors import Stage
from schemas.exceptions import ImageError
from schemas.locations import Location, MissingImage, ParquetCell, TarMember
from schemas.spec import FetchSpec
from workers.fetch.fetch import failure_of, fetch
from workers.fetch.parquet_column import read_value
from workers.fetch.tar import find_member
from workers.fetch.throttle import AdaptiveLimiter
from workers.storage import uris
from workers.storage.uris import clean_uri, resolve_uri, split_chain, without_copies

_TAR = re.compile(r"tar://(.+)", re.DOTALL)
_PARQUET = re.compile(r"parquet://([^/]+)/(\d+)")


def locate(uri: str, base: str) -> Location:
    """The location of the image of a URI; a relative path is resolved against `base`.

    A member of a compressed tar file stays a URI: fsspec reads it, with all that is before it in the file. Of
    a copy of a file (`simplecache::`) it is the file itself.
    """
    uri = without_copies(uri.strip())
    if not (chain := split_chain(uri)):
        return resolve_uri(uri, base)
    inner, outer = chain
    if (match := _TAR.fullmatch(inner)) and clean_uri(outer).lower().endswith(".tar"):
        return TarMember(resolve_uri(outer, base), match[1])
    if match := _PARQUET.fullmatch(inner):
        return ParquetCell(resolve_uri(outer, base), unquote(match[1]), int(match[2]))
    return f"{inner}::{resolve_uri(outer, base)}"


def uri_of(location: TarMember | ParquetCell) -> str:
    """The URI of a location, without credentials and query; `locate` turns it back."""
    match location:
        case TarMember(tar, name):
            return f"tar://{name}::{clean_uri(tar)}"
        case ParquetCell(file, column, row):
            return f"parquet://{quote(column, safe='', errors='replace')}/{row}::{clean_uri(file)}"


def shown_uri(location: Location) -> tuple[str | None, bool]:
    """The absolute URI of an image as tables show it, and whether more is needed to find the image again.

    That is a password, a query, or the image itself, which are cut. A row without an image has no URI of one.
    """
    match location:
        case MissingImage():
            return None, True
        case str():
            file, uri = location, clean_uri(location)
        case TarMember(file) | ParquetCell(file):
            uri = uri_of(location)
    return uri, clean_uri(file) != uris.text_uri(file)


def location_of(absolute_uri: str) -> Location:
    """The location of an image by its absolute URI, in which spaces around it are its own."""
    return locate(absolute_uri, "/") if split_chain(absolute_uri) else absolute_uri


def describe(location: Location) -> str:
    """A location for a message, without credentials and query."""
    match location:
        case str():
            return clean_uri(location)
        case MissingImage(_, why):
            return why
        case _:
            return uri_of(location)


def is_local(location: Location) -> bool:
    """Whether reading a location needs no network."""
    match location:
        case MissingImage():
            return True
        case TarMember(file) | ParquetCell(file):
            return uris.is_local(file)
        case str():
            return uris.is_local(location)


def read_image(location: Location, spec: FetchSpec, limiter: AdaptiveLimiter | None = None) -> bytes:
    """Reads the bytes of one image at any kind of location.

    Values of a Parquet column should be read in the order of their rows.

    Raises:
        ImageError: stage "fetch", or "list" if the row has no image; with code and number of attempts. No
            exception but this comes of a location, as one would end the process that reads, and the job.
    """
    try:
        return _read(location, spec, limiter)
    except ImageError:
        raise
    except Exception as error:
        file = location if isinstance(location, str) else ""
        raise failure_of(error, file, describe(location)) from None


def _read(location: Location, spec: FetchSpec, limiter: AdaptiveLimiter | None) -> bytes:
    match location:
        case MissingImage(code, why):
            raise ImageError(Stage.LIST, code, why)
        case TarMember(tar, name, span):
            return fetch(tar, spec, *(span or find_member(tar, name, spec)), limiter)
        case ParquetCell():
            return read_value(location, spec)
        case str():
            return fetch(location, spec, limiter=limiter)
