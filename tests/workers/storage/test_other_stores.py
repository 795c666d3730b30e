"""Reading images from Google's and Azure's stores, and what goes wrong there."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from tests.s3_proxy import Exchange, proxying
from tests.stores import AzureServer, GoogleServer, Server, new_bucket, reaching
from tests.workers.storage.proxied import OBJECT, SPEC, failure
from workers.fetch.fetch import fetch
from workers.storage.store import Store


@pytest.fixture(params=["google", "azure"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def bucket(server: Server) -> Iterator[str]:
    """The URL of a bucket with OBJECT as a.jpg, which this process reaches."""
    url = new_bucket(server)
    with reaching(server):
        Store(url).write("a.jpg", OBJECT)
        yield url


@pytest.mark.parametrize(
    "key", ["a b+c%2F&.jpg", "100%/%25/a=b:c@d,e;f$g!h'i(j)k.jpg", "日本/😀/e\u0301.jpg"]
)
def test_an_object_is_read_whatever_its_key(bucket: str, key: str) -> None:
    Store(bucket).write(key, key.encode())
    assert fetch(f"{bucket}/{key}", SPEC) == key.encode()


def test_a_part_of_an_object_is_read_by_itself(bucket: str) -> None:
    assert fetch(f"{bucket}/a.jpg", SPEC, start=3, size=4) == OBJECT[3:7]
    with pytest.raises(ImageError, match="the file ends after 0 of them") as beyond:
        fetch(f"{bucket}/a.jpg", SPEC, start=len(OBJECT), size=4)
    assert beyond.value.code is ErrorCode.TRUNCATED


def test_an_object_that_is_too_large_or_has_no_bytes_is_said_to_be(bucket: str) -> None:
    Store(bucket).write("large.jpg", bytes(SPEC.max_bytes + 1))
    Store(bucket).write("empty.jpg", b"")
    codes = [failure(f"{bucket}/{name}.jpg").code for name in ("large", "empty")]
    assert codes == [ErrorCode.TOO_LARGE, ErrorCode.EMPTY]


def test_a_missing_object_and_a_missing_bucket_are_not_found(bucket: str) -> None:
    errors = [failure(f"{bucket}/gone.jpg"), failure(f"{bucket}-not/a.jpg")]
    assert [(e.code, e.attempts) for e in errors] == [(ErrorCode.NOT_FOUND, 1)] * 2


def test_whoever_has_another_key_is_denied(azure: AzureServer) -> None:
    url = new_bucket(azure)
    with reaching(replace(azure, key="b3RoZXI=")):
        error = failure(f"{url}/a.jpg")
    assert (error.code, error.attempts) == (ErrorCode.DENIED, 1)


@pytest.mark.parametrize("status", [401, 403])
def test_whoever_google_refuses_is_denied(google: GoogleServer, status: int) -> None:
    url = new_bucket(google)
    with proxying(google, after=lambda exchange: exchange.refuse(status, "No")) as proxied, reaching(proxied):
        error = failure(f"{url}/a.jpg")
    assert (error.code, error.attempts) == (ErrorCode.DENIED, 1)


def test_a_connection_that_is_cut_costs_only_a_retry(google: GoogleServer) -> None:
    url, dropped = new_bucket(google), list[str]()
    with reaching(google):
        Store(url).write("a.jpg", OBJECT)

    def drop_once(exchange: Exchange) -> None:
        if not dropped:
            dropped.append(exchange.path)
            exchange.drop()

    with proxying(google, after=drop_once) as proxied, reaching(proxied):
        assert fetch(f"{url}/a.jpg", SPEC) == OBJECT
    assert len(dropped) == 1
