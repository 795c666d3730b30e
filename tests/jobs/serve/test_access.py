import socket

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from jobs.serve.access import HEADERS, Access

TOKEN = "a-long-token"


def client_of(host: str = "127.0.0.1", token: str | None = None, name: str = "127.0.0.1:8899") -> TestClient:
    """A client that asks for a name of a server that listens on a host."""

    async def answer(request: Request) -> Response:
        return PlainTextResponse(str(request.query_params))

    app = Starlette(routes=[Route("/{path:path}", answer)])
    return TestClient(Access(app, host, 8899, token), base_url=f"http://{name}", follow_redirects=False)


@pytest.mark.parametrize(
    ("host", "name", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8899", 200),
        ("127.0.0.1", "localhost:1234", 200),  # as through `ssh -L 1234:localhost:8899`
        ("127.0.0.1", "LOCALHOST", 200),
        ("127.0.0.1", "[::1]:8899", 200),
        ("127.0.0.1", "evil.example", 421),
        ("127.0.0.1", "127.0.0.1.evil.example", 421),
        ("127.0.0.1", "localhost.evil.example:8899", 421),
        ("127.0.0.1", "10.0.0.1:8899", 421),
        ("127.0.0.1", "evil.example:8899", 421),
        ("0.0.0.0", "10.0.0.1:8899", 200),
        ("0.0.0.0", socket.gethostname(), 200),
        ("0.0.0.0", "evil.example", 421),
        ("photos.lan", "photos.lan:8899", 200),
    ],
)
def test_only_requests_for_a_name_of_the_server_are_answered(host: str, name: str, status: int) -> None:
    answer = client_of(host).get("/", headers={"Host": name})
    assert answer.status_code == status


def test_a_request_for_two_names_or_none_is_refused() -> None:
    client = client_of()
    for headers in ([("Host", "localhost"), ("Host", "evil.example")], [("Host", "")]):
        assert client.get("/", headers=headers).status_code == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "ODD"])
def test_only_reading_is_answered(method: str) -> None:
    answer = client_of().request(method, "/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_every_answer_tells_the_browser_what_to_refuse() -> None:
    client = client_of()
    answers = [
        *(client.get("/"), client.head("/"), client.post("/"), client.get("/", headers={"Host": "evil"})),
        client_of("0.0.0.0", TOKEN).get("/"),
    ]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy


def test_a_page_of_another_site_cannot_ask_in_the_background() -> None:
    client = client_of()
    for mode, status in (("no-cors", 403), ("cors", 403), ("navigate", 200)):
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
        assert client.get("/", headers=headers).status_code == status


def test_with_a_token_nothing_is_answered_without_it() -> None:
    client = client_of("0.0.0.0", TOKEN)
    for path in ("/", "/api/search", "/photo/0", f"/?token={TOKEN}x", "/?token=", f"/?t={TOKEN}"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers.get("set-cookie")) == (403, None), path
    wrong = (
        *((b"Cookie", b"raylabel-8899=wrong"), (b"Cookie", b"=;;\x7f"), (b"Cookie", b"raylabel-8899=\xff")),
        *((b"Authorization", b"Bearer \xe9"), (b"Authorization", f"Basic {TOKEN}".encode())),
    )
    for header in wrong:
        assert client.get("/", headers=[header]).status_code == 403


def test_the_token_of_the_address_becomes_a_cookie_and_leaves_the_address() -> None:
    client = client_of("0.0.0.0", TOKEN)
    answer = client.get(f"/image/3?q=a+b&token={TOKEN}&x=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/image/3?q=a+b&x=")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"raylabel-8899={TOKEN};")
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert client.get("/image/3").status_code == 200


def test_a_program_has_the_token_in_a_header() -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert client_of("0.0.0.0", TOKEN).get("/api/search", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["//evil.example/", "///evil.example", "/%2f/evil.example", "/\\evil.example"]
)
def test_the_way_without_the_token_stays_on_this_server(path: str) -> None:
    client = client_of("0.0.0.0", TOKEN)
    where = client.get(f"http://127.0.0.1:8899{path}?token={TOKEN}").headers["location"]
    assert where.startswith("/")
    assert not where.startswith(("//", "/\\"))


def test_who_comes_by_a_link_of_another_site_is_led_on_with_the_cookie() -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = client_of("0.0.0.0", TOKEN).get("/", headers=headers)
    assert answer.status_code == 403
    assert 'http-equiv="refresh"' in answer.text
