from urllib.parse import urlsplit

import pytest

from schemas.exceptions import StorageError
from workers.storage.proxies import is_excepted, proxy_for

NAMES = [f"{name}_proxy" for name in ("http", "https", "all", "no")]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, "http://host/a.jpg", None),
        ({"http_proxy": "http://p:1"}, "http://host/a.jpg", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "http://host/a.jpg", "http://p:1"),
        ({"http_proxy": "http://p:1", "HTTP_PROXY": "http://q:1"}, "http://host/a.jpg", "http://p:1"),
        ({"http_proxy": "http://p:1"}, "https://host/a.jpg", None),
        ({"HTTPS_PROXY": "p:1"}, "https://host/a.jpg", "http://p:1"),
        ({"all_proxy": "http://p:1"}, "https://host/a.jpg", "http://p:1"),
        ({"all_proxy": "http://p:1", "https_proxy": "http://q:1"}, "https://host/a.jpg", "http://q:1"),
        ({"http_proxy": "http://p:1", "NO_PROXY": "other,.host"}, "http://host/a.jpg", None),
        ({"http_proxy": ""}, "http://host/a.jpg", None),
        ({"http_proxy": "http://p:1"}, "http://127.0.0.1/a.jpg", "http://p:1"),
    ],
)
def test_the_proxy_is_the_one_that_curl_would_take(
    variables: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "host", "excepted"),
    [
        ("*", "host", True),
        ("example.org", "example.org", True),
        ("example.org", "images.example.org", True),
        (".example.org", "example.org", True),
        ("example.org", "notexample.org", False),
        ("EXAMPLE.org", "Images.Example.org", True),
        ("a, example.org b", "example.org", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3:8080", True),
        ("host:8080", "host:8080", True),
        ("host:8080", "host:8081", False),
        ("::1", "[::1]:8080", True),
        ("", "host", False),
    ],
)
def test_hosts_are_excepted_by_name_domain_address_and_network(
    no_proxy: str, host: str, excepted: bool
) -> None:
    assert is_excepted(urlsplit(f"http://{host}/a.jpg"), no_proxy) is excepted


def test_a_proxy_of_another_kind_is_refused_with_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://user:secret@p:1")
    with pytest.raises(StorageError) as refused:
        proxy_for("http://host/a.jpg")
    assert str(refused.value) == (
        "the variable all_proxy names a proxy of the kind 'socks5'; allowed: http and https. Set another, or "
        "name the hosts that need none in no_proxy"
    )
