"""A web server of image files that can be told to answer some requests badly."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class ImageServer(ThreadingHTTPServer):
    """Serves a folder's files, each under any number of names: /N/file.jpg is file.jpg.

    Attributes:
        requests: how often each path was asked for.
        answer: the status for a path and how often it was asked for before, and the client's port; 200 sends
            the file.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: Counter[str] = Counter()
        self.answer: Callable[[str, int, int], int] = lambda _path, _before, _port: 200

    def url(self, path: str) -> str:
        """Where a path is."""
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    server: ImageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        before, self.server.requests[path] = self.server.requests[path], self.server.requests[path] + 1
        status = self.server.answer(path, before, self.client_address[1])
        data = (self.server.folder / Path(path).name).read_bytes() if status == 200 else b""
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[ImageServer]:
    """The server for the length of a block."""
    with ImageServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
