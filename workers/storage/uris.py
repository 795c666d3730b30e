"""Paths and URLs as text: tell them apart, make them absolute, resolve them, remove secrets."""

import base64
import os
import re
from urllib.parse import quote, unquote_to_bytes

CHAINS = ("tar://", "zip://", "parquet://")
"""Schemes of URIs that name a part of a file; the URI of the file follows after "::"."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?=:/)")
"""The scheme of a URL. It has two letters or more: `C:/a.jpg` is a path."""

_CHAIN = re.compile(
    r"(?:(?:tar|zip|parquet|libarchive|dir|reference)://.*?|simplecache|filecache|blockcache|cached)::",
    re.DOTALL,
)
"""How a URI begins that names a part or a copy of another one. Elsewhere "::" is a part of a name, or of an
address (`http://[::1]/a.jpg`)."""

_COPY = re.compile(r"(^|::)(?:(?:simplecache|filecache|blockcache|cached)::)+")
"""What asks for a copy of a file in a chain."""

_OUTER = re.compile(r"::(?=/|[A-Za-z][A-Za-z0-9+.-]+:/)")
"""Where in a chain an absolute path or a URL begins."""

QUERY_SCHEMES = ("http", "https", "ftp")
"""Schemes of URIs whose query is not shown, as it may be secret."""

_WEB = re.compile(r"(?<![A-Za-z0-9.-])(?:https?|ftps?|webdavs?|davs?|webhdfs):[/\\]*", re.IGNORECASE)
"""How a web address begins, as people write it."""

_IN_KEY = re.compile(r"(?:/[a-z]+:/+|_[a-z]+:/*)\Z", re.IGNORECASE)
"""How a folder or a file in a bucket begins that is called like a web address."""

_USER = re.compile(
    r"""(
        (?<![A-Za-z0-9.-])(?:https?|ftps?):[/\\]*
        | (?<![A-Za-z0-9+.-])file:[/\\]{2}
        | (?<![A-Za-z0-9+.-])(?!(?:file|tar|zip|parquet|libarchive|dir|reference):)
          [A-Za-z][A-Za-z0-9+.-]+:[/\\]{2,}
        | \A(?!file:)[A-Za-z][A-Za-z0-9+.-]+:/
        | \A[/\\]{2,}
        | (?<=/)\\{2,}
    )(?:
        [^/\\?#]*@
        # a password with a slash: a port has digits only
        | (?!arn:)[^/\\?#:@[\]]*:(?!\d*(?:[/\\?#]|\Z))[^@]{0,1000}@
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""The beginning of a URL, anywhere in a text, and the user and password in it."""

_SIGNED = re.compile(
    r"(:[/\\]+[^?]*)\?(?:[^?]*&)?"
    r"(?:x-(?:amz|goog)-|(?:sig|signature|awsaccesskeyid|googleaccessid|token)=).*",
    re.IGNORECASE | re.DOTALL,
)
"""A URL with a query that is a signature, where a question mark may be a part of the name."""

_LOST_SCHEME = re.compile(r"[/\\]{2}(?:[^/\\]*@|.*\?.*=)", re.DOTALL)
"""How a web address begins that lost its scheme, and has a user or a query."""

_DATA_SHOWN, _DATA_SEEN = 32, 4096
"""Characters of the content of a `data:` URI that are shown, and in which a URL is looked for."""

_SURROGATES = re.compile("[\ud800-\udfff]")
"""What stands in a string of Python's for bytes that are no text, and has no UTF-8."""


def scheme_of(uri: str) -> str:
    """The scheme of a URL, lower case; "" of a path and of a `data:` URI."""
    match = _SCHEME.match(uri)
    return match[0].lower() if match else ""


def is_local(uri: str) -> bool:
    """Whether a URI is a plain path, which this process opens itself; all others go through fsspec."""
    return not (_SCHEME.match(uri) or _CHAIN.match(uri) or is_data(uri))


def is_data(uri: str) -> bool:
    """Whether a URI is the content itself: `data:image/jpeg;base64,…` (RFC 2397)."""
    return uri[:5].lower() == "data:" and "," in uri


def data_of(uri: str) -> bytes:
    """The content of a `data:` URI.

    Raises:
        ValueError: it is not as its encoding says.
    """
    header, _, content = uri.partition(",")
    data = unquote_to_bytes(content)
    return base64.b64decode(data) if header.lower().endswith(";base64") else data


def split_chain(uri: str) -> tuple[str, str] | None:
    """The part that a chained URI names, and the URI of the whole file; None of a URI that is no chain.

    `tar://b.jpg::s3://x/a.tar` is `tar://b.jpg` of `s3://x/a.tar`.
    """
    if not _CHAIN.match(uri):
        return None
    absolute = list(_OUTER.finditer(uri))
    end = absolute[-1].start() if absolute else uri.rindex("::")
    return uri[:end], uri[end + 2 :]


def without_copies(uri: str) -> str:
    """A URI without the parts of its chain that ask for a copy: each file is read once, within bounds."""
    return _COPY.sub(r"\1", uri) if _CHAIN.match(uri) else uri


def file_of(uri: str) -> str:
    """The URI of the whole file: of a chain its last part, which names the store."""
    chain = split_chain(uri)
    return chain[1] if chain else uri


def is_web(uri: str) -> bool:
    """Whether a URI is that of a file on a web server, and not a chain."""
    return scheme_of(uri) in ("http", "https")


def host_of(uri: str) -> str:
    """The scheme and the host or bucket of a URI, of a chain those of its last part; "" of a path."""
    scheme, separator, rest = clean_uri(file_of(uri)).partition("://")
    return f"{scheme}://{rest.partition('/')[0]}" if separator else ""


def absolute_uri(uri: str) -> str:
    """A URI that is valid in any working directory: a relative path becomes absolute."""
    return os.path.abspath(uri) if is_local(uri) else uri


def parent_url(url: str) -> str:
    """The folder of a file; the query of a web address is dropped."""
    if scheme_of(url) in QUERY_SCHEMES:
        url = re.split(r"[?#]", url, maxsplit=1)[0]
    return url.rpartition("/")[0]


def _split_path(uri: str) -> tuple[str, str]:
    """The part of a URI that ends with a name, and what follows it: a query, or the archive that it is in."""
    uri = without_copies(uri)
    if chain := split_chain(uri):
        end = len(_OUTER.split(chain[0], maxsplit=1)[0])
    elif scheme_of(uri) in QUERY_SCHEMES:
        end = len(_cut(uri))
    else:
        end = len(uri)
    return uri[:end], uri[end:]


def name_of(uri: str) -> str:
    """The last name in a URI, of what is in an archive the name in there."""
    return _split_path(uri)[0].rstrip("/").rpartition("/")[2]


def file_in(folder: str, name: str) -> str:
    """The URI of a file in a folder, which may be within an archive or have a query."""
    path, rest = _split_path(folder)
    path = path.rstrip("/")
    return f"{path}{'//' if path.endswith(':') else '/'}{name}{rest}"


def file_beside(uri: str, name: str) -> str:
    """The URI of another file in the folder of one."""
    path, rest = _split_path(uri)
    return f"{path[: path.rfind('/') + 1]}{name}{rest}"


def clean_uri(uri: str) -> str:
    """A URI that may be shown: without user and password, without the query of a web address, and text.

    Whatever stands before a URL (spaces, a quote, a folder), in capitals or with backslashes: it is cleaned.
    A path with bytes that are no UTF-8 becomes a `file:` URL, where they are percent-encoded. Of a `data:`
    URI the content is cut.
    """
    start = len(uri) - len(uri.lstrip())
    return text_of(f"{uri[:start]}{_without_secrets(uri[start:])}")


def _without_secrets(uri: str) -> str:
    if ":" not in uri and not uri.startswith(("/", "\\")):
        return uri
    if chain := split_chain(uri):
        (part, *files), last = _OUTER.split(chain[0]), chain[1]
        scheme, slashes, name = part.partition("://")
        part = f"{scheme}{slashes}{_without_query(_without_user(name))}"
        return "::".join([part, *map(clean_uri, [*files, last])])
    if is_data(uri):
        header, _, content = uri.partition(",")
        header, shown = (_without_query(_without_user(text)) for text in (header, content[:_DATA_SEEN]))
        return f"{header},{shown[:_DATA_SHOWN]}{'…' * (len(content) > _DATA_SHOWN)}"
    is_web = bool(_LOST_SCHEME.match(uri))
    clean = _without_user(uri)
    return _cut(clean) if is_web else text_uri(_without_query(clean))


def _without_user(text: str) -> str:
    return _USER.sub(r"\1", text)


def _without_query(uri: str) -> str:
    """A URI without the query of the web address that it is or has in it, or a signature.

    An object's key is literal: a folder in it may be called like a web address, and have a question mark. But
    a quote or a bracket before one is not of a folder's name: it was to be an address, and may have a secret.
    """
    web = _WEB.search(uri)
    if web and not (_SCHEME.match(uri) and _IN_KEY.search(uri[: web.end()])):
        return f"{uri[: web.end()]}{_cut(uri[web.end() :])}"
    return uri if uri.lower().startswith("file:") else _SIGNED.sub(r"\1", uri)


def _cut(uri: str) -> str:
    return re.split(r"[?#]", uri, maxsplit=1)[0]


def _split_authority(url: str) -> tuple[str, str, str]:
    """What is before the slashes of a URL, the slashes, and what follows them: host and path."""
    start, slash, rest = url.partition("/")
    path = rest.lstrip("/")
    return start, slash + "/" * (len(rest) - len(path)), path


def text_uri(uri: str) -> str:
    """A URI that is text: an absolute path with bytes that are no UTF-8 becomes a `file:` URL."""
    if uri.startswith("/") and _SURROGATES.search(uri):
        return f"file://{quote(os.fsencode(uri))}"
    return uri


def text_of(text: str) -> str:
    """A string with U+FFFD for what has no UTF-8."""
    return _SURROGATES.sub("\ufffd", text)


def lower_scheme(uri: str) -> str:
    """A URI with its scheme in lower case, as libraries take it: `HTTP://h` is `http://h`."""
    scheme = scheme_of(uri)
    return scheme + uri[len(scheme) :]


def resolve_uri(uri: str, base: str) -> str:
    """The absolute URI of an image, as libraries take it; a relative path is resolved against `base`.

    Args:
        uri: as a person wrote it, perhaps with spaces around it.
        base: a path or a URL.
    """
    uri = lower_scheme(uri.strip())
    if uri.startswith("/") or not is_local(uri):
        return uri
    base = base.rstrip("/")
    if is_local(base):  # ".." stays: a folder before it may be a link
        return "/".join([base, *(name for name in uri.split("/") if name != ".")])
    if not {".", ".."} & set(uri.split("/")):
        return f"{base}/{uri}"
    return _without_dots(base, uri)


def _without_dots(base: str, path: str) -> str:
    """A path below a URL without "." and "..", which a store would take for names."""
    start, slashes, rest = _split_authority(base)
    host, *folders = rest.split("/")
    for name in path.split("/"):
        if name == "..":
            folders = folders[:-1]
        elif name != ".":
            folders.append(name)
    return f"{start}{slashes}{'/'.join([host, *folders])}"
