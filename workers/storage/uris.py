"""Paths and URLs as text: make them absolute, resolve them, remove secrets."""

import os
from urllib.parse import urlsplit, urlunsplit

CHAINS = ("tar://", "zip://", "parquet://")
"""Schemes of URIs that name a part of a file; the URI of the file follows after "::"."""

_QUERY_SCHEMES = ("http", "https", "ftp")


def is_local(uri: str) -> bool:
    """Whether a URI is a plain path, which this process opens itself; all others go through fsspec."""
    return "://" not in uri


def absolute_uri(uri: str) -> str:
    """A URI that is valid in any working directory: a relative path becomes absolute."""
    return os.path.abspath(uri) if is_local(uri) else uri


def parent_url(url: str) -> str:
    """The folder of a file; the query of a web address is dropped."""
    if url.partition("://")[0].lower() in _QUERY_SCHEMES:
        url = url.partition("?")[0]
    return url.rpartition("/")[0]


def clean_uri(uri: str) -> str:
    """A URI without possible secrets: no user and password, no query of a web address."""
    if is_local(uri):
        return uri
    if uri.startswith(CHAINS) and "::" in uri:
        inner, _, outer = uri.rpartition("::")
        return f"{inner}::{clean_uri(outer)}"
    if uri.split("://", 1)[0].lower() in _QUERY_SCHEMES:
        parts = urlsplit(uri)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    scheme, rest = uri.split("://", 1)
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def resolve_uri(uri: str, base: str) -> str:
    """The absolute URI of an image; a relative path is resolved against `base`."""
    if "://" in uri or uri.startswith("/"):
        return uri
    return f"{base.rstrip('/')}/{uri}"
