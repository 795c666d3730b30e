"""A web server of image files that can be told to answer some requests badly."""

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class Asked:
    """A request for a file.

    Attributes:
        path: of its URL; of one to a proxy, the whole URL.
        before: how often the path was asked for before.
        headers: by lower-case name.
        data: the file's bytes.
    """

    path: str
    before: int
    headers: dict[str, str]
    data: bytes

    @property
    def span(self) -> tuple[int, int] | None:
        """The first and the last byte of the range that is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return (int(match[1]), int(match[2] or len(self.data) - 1)) if match else None


@dataclass
class Reply:
    """What is answered.

    Attributes:
        status: of HTTP.
        body: whole, or in pieces of which the server knows no end: then the connection ends with them.
        headers: beside the length of a whole body.
    """

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


Manner = Callable[[Asked], Reply]


def plain(asked: Asked) -> Reply:
    """As a good server: whole files and ranges."""
    size = len(asked.data)
    if asked.span is None:
        return Reply(200, asked.data)
    first, last = asked.span[0], min(asked.span[1], size - 1)
    if first >= size:
        return Reply(416, b"", {"Content-Range": f"bytes */{size}"})
    return Reply(206, asked.data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{size}"})


def without_ranges(asked: Asked) -> Reply:
    """The whole file, whatever is asked for."""
    return Reply(200, asked.data)


def refusing_long_ranges(asked: Asked) -> Reply:
    """416 to a range that ends behind the file."""
    if asked.span and asked.span[1] >= len(asked.data):
        return Reply(416, b"", {"Content-Range": f"bytes */{len(asked.data)}"})
    return plain(asked)


def endless(_: Asked) -> Reply:
    """A gigabyte, of which the length is not told."""
    return Reply(200, (bytes(2**20) for _ in range(1000)))


def silent(_: Asked) -> Reply:
    """Nothing, for a while."""
    time.sleep(3)
    return Reply(500)


def encoded(encoding: str, body: bytes) -> Manner:
    """A body with a Content-Encoding, whatever is asked for."""
    return lambda _: Reply(200, body, {"Content-Encoding": encoding})


class ImageServer(ThreadingHTTPServer):
    """Serves a folder's files, each under any number of names: /N/file.jpg is file.jpg.

    Attributes:
        requests: how often each path was asked for.
        asked: all requests, in order.
        answer: the status for a path and how often it was asked for before, and the client's port; 200 sends
            the file.
        manner: how requests are answered; None: as `answer` says, with whole files.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: Counter[str] = Counter()
        self.asked: list[Asked] = []
        self.answer: Callable[[str, int, int], int] = lambda _path, _before, _port: 200
        self.manner: Manner | None = None

    def url(self, path: str) -> str:
        """Where a path is."""
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    server: ImageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        before, self.server.requests[path] = self.server.requests[path], self.server.requests[path] + 1
        file = self.server.folder / Path(path).name
        data = file.read_bytes() if file.is_file() else b""
        asked = Asked(self.path, before, {name.lower(): value for name, value in self.headers.items()}, data)
        self.server.asked.append(asked)
        if self.server.manner:
            self._send(self.server.manner(asked))
        else:
            status = self.server.answer(path, before, self.client_address[1])
            self._send(Reply(status, data if status == 200 else b""))

    def _send(self, reply: Reply) -> None:
        pieces = [reply.body] if isinstance(reply.body, bytes) else reply.body
        length = {"Content-Length": str(len(reply.body))} if isinstance(reply.body, bytes) else {}
        self.close_connection = self.close_connection or not length
        with contextlib.suppress(ConnectionError):
            self.send_response(reply.status)
            for name, value in (length | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[ImageServer]:
    """The server for the length of a block."""
    with ImageServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
