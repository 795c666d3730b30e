"""A forwarding proxy before a server of a store, that can kill the client of a request or answer it badly."""

import contextlib
import http.client
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import psutil
import s3fs

from tests.s3 import S3Server
from tests.stores import AzureServer, GoogleServer
from workers.storage.s3 import reset_clients

Hook = Callable[["Exchange"], None]
AnyServer = TypeVar("AnyServer", S3Server, GoogleServer, AzureServer)


@dataclass
class Answer:
    """What the client is told; a hook may change it.

    Attributes:
        status: of HTTP.
        headers: without those about the connection and the length.
        body: bytes that are sent.
        length: bytes that are announced; the connection ends after a body that is shorter.
        hold: waited for before it ends; None: it ends at once.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    length: int
    hold: threading.Event | None = None


@dataclass
class Exchange:
    """A request on its way to the server, and the answer on its way back.

    Attributes:
        method: GET, HEAD, PUT, POST or DELETE.
        path: of the bucket and the key, decoded, such as "bucket/runs/out/run.json".
        query: as it was sent, such as "delete" or "list-type=2&prefix=...".
        headers: as they were sent.
        body: as it was sent.
        answer: the server's, or a hook's own; None before there is one.
        dropped: whether the proxy ends the connection here, without a word to either side.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    client: "Client"
    answer: Answer | None = None
    dropped: bool = False

    @property
    def status(self) -> int | None:
        """Of the answer; None before there is one."""
        return self.answer.status if self.answer else None

    def refuse(self, status: int, code: str) -> None:
        """Answers as S3 does when it refuses; called before the request was forwarded, it is not."""
        body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
        body = b"" if self.method == "HEAD" else body
        self.answer = Answer(status, {"Content-Type": "application/xml"}, body, len(body))

    @property
    def changes(self) -> bool:
        """Whether it asks to change what is stored."""
        return self.method in ("PUT", "POST", "DELETE")

    @property
    def paths(self) -> list[str]:
        """The bucket and key of each object it is about; a bulk delete names several."""
        if self.method != "POST" or not self.query.startswith("delete"):
            return [self.path]
        keys = re.findall(r"<Key>(.*?)</Key>", self.body.decode())
        return [f"{self.path.strip('/')}/{key}" for key in keys]

    def drop(self) -> None:
        """Ends the connection: what was not forwarded yet is not, and the client gets no answer."""
        self.dropped = True

    def kill_client(self) -> None:
        """Kills the process that sent the request, and drops it."""
        self.drop()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.client.pid, signal.SIGKILL)


@dataclass
class Client:
    """The other end of a connection to the proxy."""

    port: int
    proxy_port: int
    _pid: int | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Its process, looked up once a connection."""
        if self._pid is None:
            self._pid = next(
                each.pid
                for each in psutil.net_connections(kind="tcp")
                if each.pid
                and each.raddr
                and (each.laddr.port, each.raddr.port) == (self.port, self.proxy_port)
            )
        return self._pid


def _nothing(_: Exchange) -> None:
    """The hook where none is wanted."""


class _Proxy(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for its threads
    request_queue_size = 128

    def __init__(self, upstream: str, before: Hook, halfway: Hook, after: Hook) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream.removeprefix("http://")
        self.before, self.halfway, self.after = before, halfway, after
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Ends the connections that clients keep open."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a connection that was cut: clients that are killed are what this is for."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def setup(self) -> None:
        super().setup()
        self.client = Client(self.client_address[1], self.server.server_port)

    def handle_expect_100(self) -> bool:
        """Asks for the body at once: a hook may want to see it."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def forward(self) -> None:
        """One request there and its answer back, with a call of each hook on the way."""
        url = urlsplit(self.path)
        path, headers = unquote(url.path).lstrip("/"), dict(self.headers)
        exchange = Exchange(self.command, path, url.query, headers, self._body(), self.client)
        self.close_connection = True  # unless all goes well
        self.server.before(exchange)
        if exchange.answer is None and not exchange.dropped:
            self._ask(exchange)
        if exchange.answer and not exchange.dropped:
            self._answer(exchange.answer)

    def _ask(self, exchange: Exchange) -> None:
        """Has the server's answer, unless a hook ends it."""
        with contextlib.closing(http.client.HTTPConnection(self.server.upstream, timeout=120)) as upstream:
            self._send(upstream, exchange)
            if exchange.dropped:
                return
            answer = upstream.getresponse()
            data = answer.read()
        ours = ("connection", "transfer-encoding", "content-length")
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in ours}
        length = int(answer.getheader("Content-Length", 0)) if self.command == "HEAD" else len(data)
        exchange.answer = Answer(answer.status, headers, data, length)
        self.server.after(exchange)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 - the names http.server looks for

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def _send(self, upstream: http.client.HTTPConnection, exchange: Exchange) -> None:
        """The request as the client signed it, its Host among the rest."""
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect", "transfer-encoding", "content-length"):
                upstream.putheader(name, value)
        if exchange.body or "Content-Length" in self.headers:
            upstream.putheader("Content-Length", str(len(exchange.body)))
        half = len(exchange.body) // 2
        upstream.endheaders(exchange.body[:half])
        self.server.halfway(exchange)
        if not exchange.dropped:
            upstream.send(exchange.body[half:])

    def _answer(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()
        if answer.hold:
            answer.hold.wait(20)
        whole = self.command == "HEAD" or len(answer.body) == answer.length
        self.close_connection = not whole or self.headers.get("Connection", "").lower() == "close"

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def forget_clients() -> None:
    """Forgets the clients of this process, which lead where the environment led as they were opened."""
    reset_clients()
    s3fs.S3FileSystem.clear_instance_cache()


@contextlib.contextmanager
def proxying(
    server: AnyServer, *, before: Hook = _nothing, halfway: Hook = _nothing, after: Hook = _nothing
) -> Iterator[AnyServer]:
    """A way to a server that passes the hooks, for the length of a block.

    Hooks are called on the connection's own thread, so several may run at once.

    Args:
        server: where requests are forwarded to, as they were signed.
        before: called when a request was received and none of it was forwarded.
        halfway: called when half of its body was forwarded.
        after: called when the server has answered and the client does not know yet.
    """
    with _Proxy(server.endpoint, before, halfway, after) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, name="s3-proxy")
        thread.start()
        try:
            yield replace(server, endpoint=f"http://127.0.0.1:{proxy.server_port}")
        finally:
            proxy.shutdown()
            thread.join()
            proxy.hang_up()
