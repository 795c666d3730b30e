"""Storage options by URL: endpoints, regions and credentials, one map for the whole process.

Like the environment variables of AWS's tools, the map belongs to the process, not to a call: models,
manifests, images and tables are opened in many places, and a forgotten one would use other credentials.
The driver sets the map when it reads a job; each actor, task and child process of the job sets it first.
"""

import contextlib
import functools
import logging
import os
import socket
from typing import Any

from schemas.exceptions import StorageError
from schemas.spec import StorageMap, StorageOptions
from workers.storage.uris import file_of, lower_scheme, scheme_of

S3_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 30}
"""Seconds to connect, and between two bytes of a response."""

S3_ATTEMPTS = 3
"""Attempts of botocore at a request, which s3fs repeats five times: a request to a store that never responds
fails after ten minutes, to one that throttles after one."""

_ANONYMOUS: dict[str, dict[str, Any]] = {"gs": {"token": "anon"}, "az": {"anon": True}}
"""Arguments that switch signing off, of the file systems of other stores than S3."""

_KINDS = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
"""Alternative schemes, and the one that stands for the kind of store."""

_EXTRAS = {"gs": ("gcsfs", "gcs"), "az": ("adlfs", "azure")}
"""The package that a kind of store needs, and the extra of raylabel that installs it."""

_HINTS = {
    "dbfs": "it has no host and token of a workspace; on Databricks itself the files are below /dbfs/",
    "hdfs": "there is no Hadoop client. Install one with libhdfs on every node (JAVA_HOME, HADOOP_HOME, "
    "CLASSPATH), or write webhdfs://HOST:PORT/PATH, which needs none",
    "wasb": "no library reads it any more. Write az://CONTAINER/PATH",
    "wasbs": "no library reads it any more. Write az://CONTAINER/PATH",
}
"""What to do about a scheme whose file system cannot be made, by scheme."""

_storage: StorageMap = {}


def configure_storage(storage: StorageMap) -> None:
    """Sets the storage options of this process, by beginnings of URLs; replaces those set before."""
    global _storage  # noqa: PLW0603 - what the module is about
    _storage = dict(storage)


def configured_storage() -> StorageMap:
    """The storage options of this process, by beginnings of URLs."""
    return _storage


def options_for(url: str) -> StorageOptions:
    """The options for a URL: those of the longest prefix in the map that fits, else the defaults."""
    url = _normalised(url)
    prefixes = [prefix for prefix in _storage if _is_below(url, _normalised(prefix))]
    return _storage[max(prefixes, key=len)] if prefixes else StorageOptions()


def filesystem_options(url: str, timeout_s: float | None = None) -> dict[str, Any]:
    """The arguments of fsspec's file system for a URL, as {scheme: arguments}.

    Of a chained URL (`tar://member::s3://bucket/key`) the last part names the store.

    Args:
        url: any that fsspec reads.
        timeout_s: seconds that a request over HTTP may take as a whole; None: it may take long.

    Raises:
        StorageError: an environment variable that should hold credentials is not set.
    """
    inner = file_of(url)
    scheme = scheme_of(inner)
    if not scheme:
        return {}
    options, kind = options_for(inner), kind_of(inner)
    if kind == "s3":
        return {scheme: {**s3_options(options), "config_kwargs": s3_config(S3_ATTEMPTS)}}
    arguments = _timeouts(kind) | {name: _resolve(value) for name, value in options.options.items()}
    if timeout_s and kind in ("http", "https"):
        arguments = {"timeout_s": timeout_s} | arguments
    if options.anonymous:
        arguments |= _ANONYMOUS.get(kind, {})
    return {scheme: arguments} if arguments else {}


def kind_of(url: str) -> str:
    """The kind of store of a URL: its scheme, but "s3", "gs" or "az" for their alternatives."""
    scheme = scheme_of(url)
    return _KINDS.get(scheme, scheme)


def install_hint(url: str) -> str | None:
    """What to install or write for a URL whose file system is missing; None if unknown."""
    kind = kind_of(file_of(url))
    if requirement := _EXTRAS.get(kind):
        package, extra = requirement
        return f"{package} is not installed. Install raylabel[{extra}], on every node of a cluster"
    return _HINTS.get(kind)


def _timeouts(kind: str) -> dict[str, Any]:
    """Arguments that give requests to other stores the timeouts of S3."""
    connect_s, read_s = S3_TIMEOUTS["connect_timeout"], S3_TIMEOUTS["read_timeout"]
    if kind == "az":
        return {"connection_timeout": connect_s, "read_timeout": read_s}
    if kind == "gs":
        from aiohttp import ClientTimeout

        _disable_gcs_grpc()
        timeout = ClientTimeout(sock_connect=connect_s, sock_read=read_s)
        return {"requests_timeout": timeout, "session_kwargs": {"trust_env": True}}  # variables of proxies
    return {}


@functools.cache
def _disable_gcs_grpc() -> None:
    """Keeps gcsfs from using gRPC to find out whether a bucket is zonal.

    Without a gRPC server, as with emulators and in networks that allow HTTP only, that takes a minute.
    """
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # Without a handler, logging would print each error that gcsfs also raises
    logging.getLogger("gcsfs").addHandler(logging.NullHandler())


def s3_options(options: StorageOptions) -> dict[str, Any]:
    """The arguments of s3fs for endpoint, region and credentials.

    Raises:
        StorageError: an environment variable that should hold credentials is not set.
    """
    arguments = {
        "endpoint_url": options.endpoint,
        "profile": options.profile,
        "anon": options.anonymous,
        "requester_pays": options.requester_pays,
        "client_kwargs": {"region_name": options.region} if options.region else None,
    }
    if name := options.credentials_env_prefix:
        arguments["key"] = _variable(f"{name}_ACCESS_KEY_ID")
        arguments["secret"] = _variable(f"{name}_SECRET_ACCESS_KEY")
        arguments["token"] = os.environ.get(f"{name}_SESSION_TOKEN")
    return {key: value for key, value in arguments.items() if value} | {
        key: _resolve(value) for key, value in options.options.items()
    }


def s3_config(attempts: int) -> dict[str, Any]:
    """The configuration of a botocore client, with timeouts and a number of attempts at a request."""
    return {"signature_version": "s3v4", "retries": {"total_max_attempts": attempts}, **S3_TIMEOUTS}


def _normalised(url: str) -> str:
    """A URL as requests have it: with the scheme of its kind of store; of a web server percent-encoded."""
    scheme, separator, rest = lower_scheme(url).partition("://")
    if scheme in ("http", "https") and rest:
        from yarl import URL

        with contextlib.suppress(ValueError):
            return str(URL(f"{scheme}://{rest}"))
    return f"{_KINDS.get(scheme, scheme)}{separator}{rest}"


def _is_below(url: str, prefix: str) -> bool:
    """Whether a URL lies below a prefix, by whole names: `s3://photos-2/x.jpg` is not below `s3://photos`."""
    if prefix.endswith("://"):
        return url.startswith(prefix)
    return f"{url}/".startswith(f"{prefix.rstrip('/')}/")


def headers_for(url: str) -> dict[str, str]:
    """The headers of requests for a URL over HTTP, with the values of environment variables.

    Raises:
        StorageError: an environment variable that should hold a value is not set.
    """
    options = options_for(url)
    of_client = options.options.get("client_kwargs", {}).get("headers", {})
    return {name: _resolve(value) for name, value in (of_client | options.headers).items()}


def assert_headers() -> None:
    """Refuses the storage options of this process if a header's environment variable is not set here.

    Raises:
        StorageError: with its name.
    """
    for url in _storage:
        headers_for(url)


def _resolve(value: Any) -> Any:
    """An option's value: "env:NAME", also behind a word, is that of the environment variable NAME."""
    if isinstance(value, dict):
        return {name: _resolve(inner) for name, inner in value.items()}
    word, space, last = value.rpartition(" ") if isinstance(value, str) else ("", "", "")
    if last.startswith("env:") and " " not in word:
        return f"{word}{space}{_variable(last.removeprefix('env:'))}"
    return value


def _variable(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise StorageError(
        f"the job's storage section or fetch.headers says that the environment variable {name} holds "
        f"credentials; it is not set on {socket.gethostname()}. Set it on the driver and on every node of "
        "the cluster"
    )
