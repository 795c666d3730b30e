"""Paths and URLs as text: made absolute, resolved, cleaned of secrets."""

import os
from urllib.parse import urlsplit, urlunsplit

CHAINS = ("tar://", "zip://", "parquet://")
"""Beginnings of a URI that names something within a file, whose own URI follows after "::"."""

_QUERY_SCHEMES = ("http", "https", "ftp")


def is_local(uri: str) -> bool:
    """Whether a URI is a plain path, which this process opens itself; all others go through fsspec."""
    return "://" not in uri


def absolute_uri(uri: str) -> str:
    """The same place, named so that it is found from any folder."""
    return os.path.abspath(uri) if is_local(uri) else uri


def parent_url(url: str) -> str:
    """The folder that a file is in, without the query of a web address."""
    if url.partition("://")[0].lower() in _QUERY_SCHEMES:
        url = url.partition("?")[0]
    return url.rpartition("/")[0]


def clean_uri(uri: str) -> str:
    """A URI without what may be secret: user and password, and the query of a web address."""
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
    """Where an image is: its URI, a relative path being meant from `base`."""
    if "://" in uri or uri.startswith("/"):
        return uri
    return f"{base.rstrip('/')}/{uri}"
