"""How the stores of a job are reached: settings by URL, the same for the whole of a process.

Like the variables that AWS's own tools read, they are of a process, not of a call: models, manifests, images
and tables are opened in many places, and one that was forgotten would look elsewhere. The driver sets them
when it reads a job; every actor, task and labelling process that works for it is handed them first.
"""

import functools
import logging
import os
import socket
from typing import Any

from schemas.exceptions import StorageError
from schemas.spec import StorageMap, StorageOptions

S3_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 30}
"""Seconds for a connection, and between two bytes of an answer."""

S3_TRIES = 3
"""Of a request by botocore; s3fs repeats that five times. So a store that never answers is given up after ten
minutes, one that refuses for being too busy after one."""

_ANONYMOUS: dict[str, dict[str, Any]] = {"gs": {"token": "anon"}, "az": {"anon": True}}
"""How the file systems of other stores than S3 are told to sign nothing."""

_KINDS = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
"""Other schemes of the same stores."""

_EXTRAS = {"gs": ("gcsfs", "gcs"), "az": ("adlfs", "azure")}
"""The package that a kind of store needs, and the extra of raylabel that brings it along."""

_storage: StorageMap = {}


def configure_storage(places: StorageMap) -> None:
    """From now on this process reaches the files below these URLs so."""
    global _storage  # noqa: PLW0603 - what the module is about
    _storage = dict(places)


def places() -> StorageMap:
    """How this process reaches files."""
    return _storage


def options_for(url: str) -> StorageOptions:
    """The settings of the longest beginning of a URL that has any."""
    url = _plain(url)
    found = [start for start in _storage if _begins(_plain(start), url)]
    return _storage[max(found, key=len)] if found else StorageOptions()


def options_of(url: str) -> dict[str, Any]:
    """What fsspec's file systems take as arguments for a URL: one dictionary for each of its protocols.

    A chained URL (`tar://member::s3://bucket/key`) has several; its innermost one says where it leads.

    Raises:
        StorageError: a variable that should hold credentials is not set here.
    """
    inner = url.rpartition("::")[2]
    scheme, separator, _ = inner.partition("://")
    if not separator:
        return {}
    settings, kind = options_for(inner), kind_of(inner)
    if kind == "s3":
        return {scheme: {**s3_options(settings), "config_kwargs": s3_config(S3_TRIES)}}
    found = _bounds(kind) | {name: _value(value) for name, value in settings.options.items()}
    if settings.anonymous:
        found |= _ANONYMOUS.get(kind, {})
    return {scheme: found} if found else {}


def kind_of(url: str) -> str:
    """The scheme that stands for a URL's kind of store: of several names of one it is "s3", "gs" or "az"."""
    scheme = url.partition("://")[0]
    return _KINDS.get(scheme, scheme)


def missing(url: str) -> str | None:
    """What to install for a URL whose file system is not there; None where that is not known here."""
    if needed := _EXTRAS.get(kind_of(url.rpartition("::")[2])):
        package, extra = needed
        return f"{package} is not installed. Install raylabel[{extra}], on every node of a cluster"
    return None


def _bounds(kind: str) -> dict[str, Any]:
    """What keeps requests to other stores from hanging: the same seconds as for S3."""
    connect_s, read_s = S3_TIMEOUTS["connect_timeout"], S3_TIMEOUTS["read_timeout"]
    if kind == "az":
        return {"connection_timeout": connect_s, "read_timeout": read_s}
    if kind == "gs":
        from aiohttp import ClientTimeout

        _use_http_alone()
        return {"requests_timeout": ClientTimeout(sock_connect=connect_s, sock_read=read_s)}
    return {}


@functools.cache
def _use_http_alone() -> None:
    """Keeps gcsfs from gRPC, by which it asks of each bucket whether it is a zonal one.

    Where nobody answers, as with emulators and in networks that let HTTP through alone, that takes a minute.
    """
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # else it prints what it raises as well


def s3_options(settings: StorageOptions) -> dict[str, Any]:
    """The arguments of s3fs that say where a place is and who asks.

    Raises:
        StorageError: a variable that should hold credentials is not set here.
    """
    found = {
        "endpoint_url": settings.endpoint,
        "profile": settings.profile,
        "anon": settings.anonymous,
        "requester_pays": settings.requester_pays,
        "client_kwargs": {"region_name": settings.region} if settings.region else None,
    }
    if name := settings.credentials_env_prefix:
        found["key"] = _variable(f"{name}_ACCESS_KEY_ID")
        found["secret"] = _variable(f"{name}_SECRET_ACCESS_KEY")
        found["token"] = os.environ.get(f"{name}_SESSION_TOKEN")
    return {key: value for key, value in found.items() if value} | {
        key: _value(value) for key, value in settings.options.items()
    }


def s3_config(tries: int) -> dict[str, Any]:
    """The configuration of a botocore client that gives up in time."""
    return {"signature_version": "s3v4", "retries": {"total_max_attempts": tries}, **S3_TIMEOUTS}


def _plain(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{_KINDS.get(scheme, scheme)}{separator}{rest}"


def _begins(start: str, url: str) -> bool:
    """Whether a URL lies below another: `s3://photos` is not the beginning of `s3://photos-2/x.jpg`."""
    return (start.endswith("://") and url.startswith(start)) or f"{url}/".startswith(f"{start.rstrip('/')}/")


def _value(value: Any) -> Any:
    return (
        _variable(value.removeprefix("env:"))
        if isinstance(value, str) and value.startswith("env:")
        else value
    )


def _variable(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise StorageError(
        f"the job's storage section says that the environment variable {name} holds credentials; it is not "
        f"set on {socket.gethostname()}. Set it on the driver and on every node of the cluster"
    )
