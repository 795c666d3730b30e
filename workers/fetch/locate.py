"""From a URI to the location of an image, from a location to its bytes.

What is not a whole file is written as a chain, the inner part first, as fsspec has it:

    tar://000000123.jpg::s3://bucket/00000.tar            a member of a tar file, by its name
    parquet://image/1234::s3://bucket/train-0.parquet     a value of a column, by its position in the file
"""

import re
from urllib.parse import quote, unquote

from schemas.errors import Stage
from schemas.exceptions import ImageError
from schemas.locations import Location, MissingImage, ParquetCell, TarMember
from schemas.spec import FetchSpec
from workers.fetch.fetch import fetch
from workers.fetch.parquet_column import read_value
from workers.fetch.tar import find_member
from workers.fetch.throttle import AdaptiveLimiter
from workers.storage import uris
from workers.storage.uris import clean_uri, resolve_uri

_TAR = re.compile(r"tar://(.+)::(.+)", re.DOTALL)
_PARQUET = re.compile(r"parquet://([^/]+)/(\d+)::(.+)")


def locate(uri: str, base: str) -> Location:
    """Where the image of a URI is; a relative path is meant from `base`.

    A member of a compressed tar file is left to fsspec, which reads all that is before it.
    """
    if (found := _TAR.fullmatch(uri)) and clean_uri(found[2]).lower().endswith(".tar"):
        return TarMember(resolve_uri(found[2], base), found[1])
    if found := _PARQUET.fullmatch(uri):
        return ParquetCell(resolve_uri(found[3], base), unquote(found[1]), int(found[2]))
    return resolve_uri(uri, base)


def uri_of(location: TarMember | ParquetCell) -> str:
    """The URI that `locate` makes such a location of, without credentials and query."""
    match location:
        case TarMember(tar, name):
            return f"tar://{name}::{clean_uri(tar)}"
        case ParquetCell(file, column, row):
            return f"parquet://{quote(column, safe='')}/{row}::{clean_uri(file)}"


def said(location: Location) -> str:
    """A location for a person, without credentials and query."""
    match location:
        case str():
            return clean_uri(location)
        case MissingImage(_, why):
            return why
        case _:
            return uri_of(location)


def is_local(location: Location) -> bool:
    """Whether reading it takes no network."""
    match location:
        case MissingImage():
            return True
        case TarMember(file) | ParquetCell(file):
            return uris.is_local(file)
        case str():
            return uris.is_local(location)


def read_image(location: Location, spec: FetchSpec, limiter: AdaptiveLimiter | None = None) -> bytes:
    """The bytes of one image, wherever it is.

    Values of a Parquet column should be asked for in the order of their rows.

    Raises:
        ImageError: stage "fetch", or "list" where there is none, with the code and the number of attempts.
    """
    match location:
        case MissingImage(code, why):
            raise ImageError(Stage.LIST, code, why)
        case TarMember(tar, name, span):
            return fetch(tar, spec, *(span or find_member(tar, name, spec)), limiter)
        case ParquetCell():
            return read_value(location, spec)
        case str():
            return fetch(location, spec, limiter=limiter)
