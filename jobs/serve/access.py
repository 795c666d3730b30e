"""Who may ask the page: hosts, a token, methods; and what each answer tells the browser to refuse."""

import hmac
import ipaddress
import socket
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")

TOKEN = "token"
"""What the token is called in an address."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Of every answer."""

_AGAIN = '<!doctype html><title>raylabel</title><meta http-equiv="refresh" content="0">'
"""Asks again from a page of ours: a cookie that is strict does not come with a link of another site."""


class Access:
    """Lets requests through that may be answered, and sets `HEADERS`.

    Args:
        app: that answers.
        host: the address that the server listens on.
        port: its port.
        token: that a request has to have in its cookie, in `Authorization: Bearer`, or in its address, which
            sets the cookie; None: all may ask.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, token: str | None) -> None:
        self._app, self._token = app, token
        self._is_local = is_loopback(host)
        self._names = {"localhost", host.lower()}
        if not self._is_local:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._cookie = f"raylabel-{port}"  # cookies of a host are those of all its ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["type"] != "http":
            return
        answer = self._refusal(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is not let through."""
        headers = Headers(scope=scope)
        if not self._is_known(headers.getlist("host")):
            return _refused(
                421, "This address is not one of the server's: it may be a trick of another site."
            )
        if scope["method"] not in METHODS:
            response = _refused(405, f"Only {METHODS[0]} is answered.")
            response.headers["Allow"] = ", ".join(METHODS)
            return response
        of_another = headers.get("sec-fetch-site") == "cross-site"
        if of_another and headers.get("sec-fetch-mode") != "navigate":
            return _refused(403, "Another site may not ask.")
        return self._without_token(scope, headers, of_another=of_another) if self._token else None

    def _is_known(self, hosts: list[str]) -> bool:
        """Whether a request is for this server by its Host: a name of another may lead here by its DNS."""
        if len(hosts) != 1:
            return False
        name = _without_port(hosts[0]).lower()
        if name in self._names:
            return True
        address = _address(name)
        return address is not None and (address.is_loopback or not self._is_local)

    def _without_token(self, scope: Scope, headers: Headers, *, of_another: bool) -> Response | None:
        """The answer to a request that has no token yet, or has it in its address."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(name == TOKEN and self._is_token(value) for name, value in pairs):
            rest = urlencode([(name, value) for name, value in pairs if name != TOKEN])
            path = "/" + scope["raw_path"].decode("latin-1").lstrip("/\\")  # "//x" would be another host
            response = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
            response.set_cookie(self._cookie, str(self._token), httponly=True, samesite="strict")
            return response
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if self._is_token(self._in_cookie(headers)) or (kind == "Bearer" and self._is_token(bearer)):
            return None
        if of_another:
            return HTMLResponse(_AGAIN, 403)
        return _refused(403, "Open the address with the token that `raylabel serve` printed.")

    def _in_cookie(self, headers: Headers) -> str:
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return next((value for name, _, value in pairs if name == self._cookie), "")

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), str(self._token).encode())


def is_loopback(host: str) -> bool:
    """Whether an address is only reached from this machine."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _refused(status: int, reason: str) -> Response:
    return PlainTextResponse(f"{reason}\n", status, {"Cache-Control": "no-store"})


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
