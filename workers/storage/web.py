"""Files of web servers: what a request says, where it may lead, and how much of an answer is read.

fsspec's file system for HTTP, with requests of our own: headers and proxies as the job and the environment
say, secrets that no other server gets, answers that are read within bounds and decoded here.
"""

import io
import re
import sys
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Generator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFile, HTTPFileSystem
from multidict import CIMultiDict
from yarl import URL

from schemas.exceptions import StorageError
from schemas.spec import is_harmless
from workers.printable import message_of, short_line
from workers.storage.answers import COMPRESSED, NotPartialError, Part, TooManyBytesError
from workers.storage.encodings import decoded, encodings_of, undone
from workers.storage.options import S3_TIMEOUTS, headers_for
from workers.storage.proxies import proxy_for
from workers.storage.uris import clean_uri

MAX_REDIRECTS = 10

_REDIRECTS = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_FILES = (200, 203, 204, 206)
"""Statuses of a file: whole, changed by a proxy, without content, in part."""
_VERSIONS = ("ETag", "Content-MD5", "Digest", "Last-Modified")


class WebError(ConnectionError):
    """An answer of the server that is not the file.

    Attributes:
        status: of HTTP.
        retry_after: what the server says of when to ask again; "" if nothing.
    """

    def __init__(self, status: int, reason: str, retry_after: str = "") -> None:
        super().__init__(f"status {status} {reason}".strip())
        self.status = status
        self.retry_after = retry_after


@cache
def user_agent() -> str:
    """What requests name as their sender."""
    try:
        return f"raylabel/{version('raylabel')}"
    except PackageNotFoundError:  # on a node of a cluster that has only its source
        return "raylabel"


class WebFileSystem(HTTPFileSystem):  # type: ignore[misc] # fsspec is not typed
    """The files of web servers, read only.

    Args:
        timeout_s: seconds that a request may take as a whole; None: it may take long, without a pause.
        client_kwargs: of `aiohttp.ClientSession`.
        options: of fsspec's HTTPFileSystem.
    """

    _session: "_Session | None"

    def __init__(
        self, *, timeout_s: float | None = None, client_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        client = {key: value for key, value in (client_kwargs or {}).items() if key != "headers"}
        super().__init__(client_kwargs=client, **options)
        connect_s, read_s = S3_TIMEOUTS["connect_timeout"], S3_TIMEOUTS["read_timeout"]
        self._timeout = ClientTimeout(total=timeout_s, sock_connect=connect_s, sock_read=read_s)

    async def set_session(self) -> "_Session":
        """The session of this file system, which is made once."""
        if self._session is None:
            client = ClientSession(
                **{
                    "auto_decompress": False,
                    "cookie_jar": DummyCookieJar(),  # no request says what another was answered, as with curl
                    "connector": TCPConnector(limit=0),  # as many at once as the callers are
                    "timeout": self._timeout,
                    **self.client_kwargs,
                }
            )
            self._session = _Session(client)
            weakref.finalize(self, self.close_session, self.loop, client)
        return self._session

    def read_part(self, url: str, part: Part) -> bytes:
        """Reads a file, or a part of one, by one request, or two where the server stumbles over the first.

        Raises:
            WebError: the server answers otherwise.
            FileNotFoundError: it has no such file.
            TooManyBytesError: the file has more bytes than `part.most`, as they came or as they are decoded.
            NotPartialError: a part is wanted, and the server does not send it.
            EncodingError: the bytes are not what the server says of their encoding.
            TimeoutError: it took longer than the request may.
            aiohttp.ClientError: the connection failed.
        """
        body: bytes | _ResponseBody = sync(self.loop, self._body, url, part, timeout=self._timeout.total)
        if isinstance(body, bytes):
            return body
        try:  # in this thread: the one of all connections is not kept from the others
            return decoded(body, body.encodings, part.most)
        finally:
            body.close()

    async def _body(self, url: str, part: Part) -> "bytes | _ResponseBody":
        """The bytes that a server sends; of a file that it sends encoded, what they are read from."""
        response = await self._ask(url, part)
        encodings = _encodings(response)
        if encodings and part.size is None and not part.start and response.status != 416:
            return _ResponseBody(self.loop, response)
        try:
            if response.status == 416:  # the file ends before `start`
                return b""
            if encodings:
                raise NotPartialError(COMPRESSED)
            if part.size is None:
                return await _up_to(response, part.most)
            if response.status != 206 and part.start:
                raise NotPartialError("its server does not support range requests")
            return await _first_of(response, part.size)
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def _ask(self, url: str, part: Part) -> ClientResponse:
        """A server's answer to the request for a part of a file; of a whole file no range is asked for."""
        session = await self.set_session()
        if part.size is None and not part.start:
            return await session.get(self.encode_url(url))
        end = "" if part.size is None else part.start + part.size - 1
        wanted = {"Range": f"bytes={part.start}-{end}"}
        response = await session.get(self.encode_url(url), headers=wanted)
        if response.status == 416 and not part.start and _length(response) != 0:
            response.release()  # some servers refuse a range that is merely longer than the file
            return await session.get(self.encode_url(url))
        if response.status == 206 and _first_byte(response) not in (part.start, None):
            response.close()
            raise NotPartialError(f"its server sent the bytes from {_first_byte(response)} on")
        return response

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """A file or a part of it, as its server sends it."""
        size = None if end is None else end - (start or 0)
        body = await self._body(url, Part(start or 0, size, sys.maxsize))
        if isinstance(body, bytes):
            return body
        encoded = io.BytesIO(await body.response.read())
        return decoded(encoded, body.encodings, sys.maxsize - 1)

    async def _info(self, url: str, **_: Any) -> dict[str, Any]:
        """The size and version of a file, and whether it is read in parts, or encoded; by a GET of one byte.

        Presigned URLs and some servers refuse a HEAD.
        """
        session = await self.set_session()
        response = await session.get(self.encode_url(url), headers={"Range": "bytes=0-0"})
        try:
            encoded = bool(_encodings(response))
            info = {name: response.headers[name] for name in _VERSIONS if name in response.headers}
            return {
                "name": url,
                "type": "file",
                "size": None if encoded else _length(response),
                "encoded": encoded,
                "partial": response.status == 206 and not encoded,
                **info,
            }
        finally:
            response.close()

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """A file that is read in parts, or from its beginning to its end where its server allows no more."""
        if mode != "rb":
            raise NotImplementedError(f"mode {mode}: web servers are only read from")
        info = self.info(path)
        if info["partial"] and info["size"]:
            return WebFile(self, path, size=info["size"], **options)
        return io.BufferedReader(WebStream(self, path), 2**18)


class WebFile(HTTPFile):  # type: ignore[misc] # fsspec is not typed
    """A file of a web server that is read in parts, each by a request."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        fs: WebFileSystem = self.fs
        return fs.read_part(self.url, Part(start, end - start, end - start))

    def _fetch_all(self) -> None:
        """Nothing: what is read is asked for by its size."""


class WebStream(io.RawIOBase):
    """A file of a web server, from its beginning to its end, decoded.

    Args:
        fs: of the server.
        url: of the file.
    """

    def __init__(self, fs: WebFileSystem, url: str) -> None:
        super().__init__()
        self._name = clean_uri(url)
        body = _ResponseBody(fs.loop, sync(fs.loop, fs._ask, url, Part(0, None, 0)))
        self._close_body = body.close
        self._source = undone(body, body.encodings)
        self._position = 0

    def readinto(self, buffer: Any) -> int:
        """Reads the next bytes into a buffer; returns how many."""
        try:
            data = self._source.read(len(buffer))
        except (aiohttp.ClientError, TimeoutError) as error:
            why = message_of(error) or type(error).__name__
            raise ConnectionError(f"the connection failed while the file was read: {why}") from error
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        """The position: where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Stays where it is; any other position is refused."""
        if (
            offset + (0 if whence == io.SEEK_SET else self._position) != self._position
            or whence == io.SEEK_END
        ):
            raise io.UnsupportedOperation(  # so that it is not taken for damage
                f"{self._name} cannot be read in parts: its server knows no range requests, or sends it "
                "compressed (Content-Encoding). Download it and name the copy"
            )
        return self._position

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True, so that a reader that seeks is told why it cannot."""
        return True

    def close(self) -> None:
        """Ends the connection."""
        if not self.closed:
            self._close_body()
        super().close()


class _ResponseBody:
    """The bytes of an answer as they come, for a thread."""

    def __init__(self, loop: AbstractEventLoop, response: ClientResponse) -> None:
        self._loop = loop
        self.response = response
        self.encodings = _encodings(response)

    def read(self, size: int = -1, /) -> bytes:
        return bytes(sync(self._loop, self.response.content.read, size))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self.response.close)


class _Session:
    """Requests, with what each of them says and where it leads; it has the methods that fsspec uses."""

    def __init__(self, client: ClientSession) -> None:
        self._client = client

    def get(self, url: URL | str, **options: Any) -> "_Pending":
        """A GET; for `await` or `async with`."""
        return _Pending(self._request("GET", URL(url), **options))

    async def _request(
        self, method: str, url: URL, headers: dict[str, str] | None = None, **options: Any
    ) -> ClientResponse:
        """The answer to a request and to those that it is redirected to.

        aiohttp follows redirects too, but takes all headers and the proxy along to other servers.
        """
        options = {key: options[key] for key in options.keys() & {"params", "ssl", "timeout"}}
        options |= {"allow_redirects": False}
        origin = url.origin()
        for _ in range(MAX_REDIRECTS + 1):
            sent = _headers(str(url), with_secrets=url.origin() == origin, extra=headers or {})
            response = await self._answer(method, url, headers=sent, proxy=proxy_for(str(url)), **options)
            if response.status not in _REDIRECTS or "Location" not in response.headers:
                return _assert_answered(response, url)
            response.release()
            url = _redirected(url, response.headers["Location"])
        raise WebError(response.status, f"more than {MAX_REDIRECTS} redirects")

    async def _answer(self, method: str, url: URL, **options: Any) -> ClientResponse:
        """The answer to one request; that of a proxy which refuses to connect is an error of ours."""
        try:
            return await self._client.request(method, url, **options)
        except aiohttp.ClientHttpProxyError as error:  # its text holds the proxy's URL
            waits = error.headers.get("Retry-After", "") if error.headers else ""
            reason = f"{short_line(error.message)} (by the proxy)".strip()
            raise WebError(error.status, reason, waits) from None


class _Pending:
    """A request that is under way: `await` and `async with` give its answer."""

    def __init__(self, request: Awaitable[ClientResponse]) -> None:
        self._request = request

    def __await__(self) -> Generator[Any, None, ClientResponse]:
        return self._request.__await__()

    async def __aenter__(self) -> ClientResponse:
        self._response = await self._request
        return self._response

    async def __aexit__(self, *_: object) -> None:
        self._response.release()


def _headers(url: str, *, with_secrets: bool, extra: dict[str, str]) -> CIMultiDict[str]:
    """The headers of a request; those that may be secret go to the server that was named, and no further."""
    headers = CIMultiDict({"User-Agent": user_agent(), "Accept-Encoding": "identity"})
    own = headers_for(url)
    headers.update({name: value for name, value in own.items() if with_secrets or is_harmless(name)})
    headers.update(extra)
    return headers


def _redirected(url: URL, location: str) -> URL:
    target = url.join(URL(location))
    if target.scheme not in ("http", "https") or not target.host:
        raise StorageError(
            f"its server redirects to a URL of the kind {target.scheme!r}; allowed: http, https"
        )
    return target


def _assert_answered(response: ClientResponse, url: URL) -> ClientResponse:
    """The response, unless it is an error; 416 is the caller's."""
    if response.status in (*_FILES, 416):
        return response
    response.release()
    if response.status in _GONE:
        raise FileNotFoundError(f"status {response.status}: {clean_uri(str(url))}")
    raise WebError(
        response.status, short_line(response.reason or ""), response.headers.get("Retry-After", "")
    )


def _encodings(response: ClientResponse) -> list[str]:
    return encodings_of(response.headers.get("Content-Encoding", ""), response.url.path)


def _length(response: ClientResponse) -> int | None:
    """The size of the file as the server sends it; None if it does not tell."""
    if response.status == 200:
        return response.content_length
    total = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    return int(total[1]) if total else None


def _first_byte(response: ClientResponse) -> int | None:
    """The position of the first byte of a partial answer; None if the server does not tell."""
    first = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(first[1]) if first else None


async def _up_to(response: ClientResponse, limit: int) -> bytes:
    """The whole body, if it has no more bytes than a limit."""
    body = io.BytesIO()
    if (response.content_length or 0) <= limit:
        async for piece in response.content.iter_any():
            body.write(piece)
            if body.tell() > limit:
                break
        else:
            return body.getvalue()  # not copied
    raise TooManyBytesError(f"more than {limit:,} bytes")


async def _first_of(response: ClientResponse, size: int) -> bytes:
    """Up to `size` bytes of the body."""
    body = io.BytesIO()
    while body.tell() < size and (piece := await response.content.read(size - body.tell())):
        body.write(piece)
    return body.getvalue()
