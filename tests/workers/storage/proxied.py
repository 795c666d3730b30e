"""A bucket behind a proxy that can spoil responses, and the errors of fetching from it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from schemas.errors import Stage
from schemas.exceptions import ImageError
from schemas.spec import FetchSpec
from tests.s3 import S3Server
from tests.s3_proxy import Exchange, Hook, forget_clients, proxying
from workers.fetch.fetch import fetch

SPEC = FetchSpec(attempts=3, timeout_s=20, throttle_timeout_s=0, max_bytes=1000)
IMPATIENT = SPEC.model_copy(update={"timeout_s": 2})
OBJECT = b"0123456789" * 50


@dataclass
class ProxiedBucket:
    """A bucket behind a proxy that can spoil responses and records all exchanges."""

    server: S3Server
    bucket: str
    spoil: Hook = lambda _: None
    seen: list[Exchange] = field(default_factory=list)

    @property
    def asked(self) -> list[str]:
        return [f"{exchange.method} {exchange.path.partition('/')[2]}".strip() for exchange in self.seen]

    @property
    def gets(self) -> list[Exchange]:
        return [exchange for exchange in self.seen if exchange.method == "GET"]


@contextmanager
def proxied_bucket(server: S3Server, bucket: str) -> Iterator[ProxiedBucket]:
    """Puts a bucket behind a proxy, for the length of a block, without clients opened before it."""
    state = ProxiedBucket(server, bucket)

    def after(exchange: Exchange) -> None:
        state.seen.append(exchange)
        state.spoil(exchange)

    with proxying(server, after=after) as state.server:
        forget_clients()
        yield state
    forget_clients()


def of_images(spoil: Hook) -> Hook:
    """Spoils the answers to GETs alone."""
    return lambda exchange: spoil(exchange) if exchange.method == "GET" else None


def refuse(status: int, code: str, exchange: Exchange) -> None:
    exchange.refuse(status, code)


def cut(exchange: Exchange) -> None:
    """Half of the body, and the end of the connection."""
    assert exchange.answer
    exchange.answer.body = exchange.answer.body[: len(exchange.answer.body) // 2]


def shorten(exchange: Exchange) -> None:
    """Half of the body, announced as if it were all."""
    cut(exchange)
    assert exchange.answer
    exchange.answer.length = len(exchange.answer.body)


def failure(location: str, spec: FetchSpec = SPEC) -> ImageError:
    with pytest.raises(ImageError) as raised:
        fetch(location, spec)
    assert raised.value.stage is Stage.FETCH
    return raised.value
