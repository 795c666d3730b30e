"""The proxy of a request over HTTP, by the environment variables that curl reads."""

import ipaddress
import os
import re
from urllib.parse import SplitResult, urlsplit

from yarl import URL

from schemas.exceptions import StorageError


def proxy_for(url: str) -> str | None:
    """The URL of the proxy for a URL; None: there is none.

    Read are `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, and the same in upper case (curl leaves
    `HTTP_PROXY` out, AWS's tools read it): https://curl.se/docs/manpage.html#ENVIRONMENT.

    Raises:
        StorageError: the proxy is of a kind that cannot be used here, or its URL is none.
    """
    parts = urlsplit(url)
    name = f"{parts.scheme}_proxy"
    proxy = _variable(name) or _variable(name := "all_proxy")
    if not proxy or is_excepted(parts, _variable("no_proxy")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise StorageError(
            f"the variable {name} names a proxy of the kind {proxy.partition('://')[0]!r}; allowed: http and "
            "https. Set another, or name the hosts that need none in no_proxy"
        )
    if not _is_url(proxy):  # not shown, as it may hold a password
        raise StorageError(
            f"the variable {name} holds no URL of a proxy; allowed: http://HOST:PORT, or "
            "http://USER:PASSWORD@HOST:PORT with %40, %2F and the like for signs in the password"
        )
    return proxy


def _is_url(proxy: str) -> bool:
    """Whether a text is a URL with a host and, where it has one, a port."""
    try:
        return bool(URL(proxy).host)
    except ValueError:
        return False


def is_excepted(parts: SplitResult, no_proxy: str) -> bool:
    """Whether the host of a URL is asked without a proxy.

    Args:
        parts: the URL.
        no_proxy: names of hosts and domains, addresses and networks, separated by commas or spaces; or "*".
    """
    host = (parts.hostname or "").rstrip(".")
    return any(_covers(entry.lower(), host, parts.netloc) for entry in re.split(r"[,\s]+", no_proxy) if entry)


def _covers(entry: str, host: str, netloc: str) -> bool:
    if entry in ("*", netloc.rpartition("@")[2].lower()):
        return True
    name = entry.strip("[]").lstrip(".").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == name or host.endswith(f".{name}")
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False


def _variable(name: str) -> str:
    return (os.environ.get(name) or os.environ.get(name.upper()) or "").strip()
