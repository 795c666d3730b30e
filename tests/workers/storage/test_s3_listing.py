import threading
from collections.abc import Generator, Iterator
from functools import partial
from itertools import islice
from typing import Any

import pytest

from tests.s3 import S3Server
from tests.s3_proxy import Exchange
from tests.workers.storage.proxied import ProxiedBucket, refuse
from workers.storage import s3_listing
from workers.storage.s3_listing import AHEAD, AT_ONCE, Key, ahead, keys_below, keys_in

NAMES = [
    "p/_h/.x.jpg",
    "p/a/x.jpg",
    "p/a-1/x.jpg",
    "p/a.jpg",
    "p/ctl\x01.jpg",  # XML cannot hold it
    "p/empty.jpg",  # as a folder's own key would be
    "p/m/",
    "p/pl us+%41&<.jpg",
    "p/x.jpg/",
    "p/ü.jpg",
]


@pytest.fixture(scope="module")
def full(s3: S3Server) -> str:
    """A bucket with all kinds of keys, and one beside the folder."""
    bucket, files = s3.new_bucket(), s3.files()
    for key in (*NAMES, "q.jpg"):
        body = b"" if key.endswith("/") or "empty" in key else key.encode()
        files.call_s3("put_object", Bucket=bucket, Key=key, Body=body)
    return bucket


def told(files: Any, bucket: str, prefix: str) -> list[Key]:
    """What the server itself says, asked by botocore at once."""
    answer = files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix)
    return sorted(Key(each["Key"], each["Size"], each["ETag"]) for each in answer["Contents"])


@pytest.mark.parametrize("page", [1, 2, 3, 1000])
@pytest.mark.parametrize("prefix", ["p/", ""])
def test_every_key_is_found_once_as_it_is(
    s3: S3Server, full: str, monkeypatch: pytest.MonkeyPatch, prefix: str, page: int
) -> None:
    monkeypatch.setattr(s3_listing, "PAGE", page)
    found = sorted(keys_below(s3.files(), full, prefix))
    assert found == told(s3.files(), full, prefix)
    assert {key.key for key in found} >= set(NAMES)


def test_a_small_folder_takes_one_request_and_a_large_one_is_listed_by_obstore(
    s3: S3Server, proxied: ProxiedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.files().pipe({f"{proxied.bucket}/plain/{number}.jpg": b"x" for number in range(3)})
    assert len(list(keys_below(proxied.server.files(), proxied.bucket, "plain/"))) == 3
    assert len(proxied.gets) == 1
    monkeypatch.setattr(s3_listing, "PAGE", 2)
    assert len(list(keys_below(proxied.server.files(), proxied.bucket, "plain/"))) == 3
    agents = [
        {name.lower(): value for name, value in get.headers.items()}["user-agent"] for get in proxied.gets[1:]
    ]
    assert ["object_store" in agent or "obstore" in agent for agent in agents] == [False, True]


def test_folders_are_listed_several_at_once_and_given_in_their_order(s3: S3Server) -> None:
    bucket, files = s3.new_bucket(), s3.files()
    names = [f"a/set/{folder:02}/{n}.jpg" for folder in range(20) for n in range(2)]
    files.pipe({f"{bucket}/{name}": b"x" for name in names})
    assert [key.key for key in keys_below(files, bucket, "")] == names


def test_sources_are_read_ahead_and_no_farther() -> None:
    begun: list[int] = []

    def source(number: int) -> Iterator[int]:
        for n in range(100):
            begun.append(number)
            yield 100 * number + n

    found = ahead([partial(source, number) for number in range(50)])
    assert next(found) == 0
    assert len(begun) <= AT_ONCE * (AHEAD + 1) + 1
    assert list(found) == list(range(1, 5000))
    began = ahead([partial(source, number) for number in range(50)])
    assert next(began) == 0
    assert isinstance(began, Generator)
    began.close()  # and the threads end
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("list")]


def test_what_ends_a_source_is_raised_in_its_place() -> None:
    def broken() -> Iterator[int]:
        yield 3
        raise PermissionError("no")

    found = ahead([lambda: [1, 2], broken, lambda: [4]])
    assert list(islice(found, 3)) == [1, 2, 3]
    with pytest.raises(PermissionError, match="no"):
        next(found)


def test_only_the_keys_in_a_folder_are_found_where_those_below_are_not_wanted(
    s3: S3Server, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_listing, "PAGE", 2)
    found = {key.key for key in keys_in(s3.files(), full, "p/")}
    assert found == {name for name in NAMES if name.count("/") == 1}
    assert [key.key for key in keys_in(s3.files(), full, "p/a")] == ["p/a.jpg"]


def test_keys_with_empty_parts_are_found(s3: S3Server, proxied: ProxiedBucket) -> None:
    s3.files().pipe({f"{proxied.bucket}/{key}": b"x" for key in ("q/a.jpg", "q/b/c.jpg")})

    def doubled(exchange: Exchange) -> None:
        if exchange.answer:  # SeaweedFS keeps no such key
            exchange.answer.body = exchange.answer.body.replace(b"q/b/c.jpg", b"q/b//c.jpg")
            exchange.answer.length = len(exchange.answer.body)

    proxied.spoil = doubled
    found = [key.key for key in keys_below(proxied.server.files(), proxied.bucket, "q/")]
    assert found == ["q/a.jpg", "q/b//c.jpg"]


def test_keys_that_begin_with_a_slash_are_found(s3: S3Server, proxied: ProxiedBucket) -> None:
    s3.files().pipe_file(f"{proxied.bucket}/a.jpg", b"x")

    def slashed(exchange: Exchange) -> None:
        if exchange.answer and "list-type" in exchange.query:  # SeaweedFS takes the slash off
            there = b"<Contents><Key>/a.jpg</Key><Size>1</Size><ETag>&quot;e&quot;</ETag></Contents>"
            there += b"<IsTruncated>%s</IsTruncated>" % (
                b"true" if "delimiter=%2F" in exchange.query else b"false"
            )
            exchange.answer.body = b"<ListBucketResult>%s</ListBucketResult>" % there
            exchange.answer.length = len(exchange.answer.body)

    proxied.spoil = slashed
    assert list(keys_below(proxied.server.files(), proxied.bucket, "")) == [Key("/a.jpg", 1, '"e"')]


def test_a_page_that_does_not_come_is_asked_for_again(
    s3: S3Server, proxied: ProxiedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_listing, "PAGE", 2)
    names = [f"pages/{number}.jpg" for number in range(7)]
    s3.files().pipe({f"{proxied.bucket}/{name}": b"x" for name in names})
    refused = []

    def twice(exchange: Exchange) -> None:
        if "list-type" in exchange.query and len(proxied.gets) in (2, 4):
            refused.append(exchange)
            refuse(503, "SlowDown", exchange)

    proxied.spoil = twice
    assert [key.key for key in keys_below(proxied.server.files(), proxied.bucket, "pages/")] == names
    assert len(refused) == 2


def test_what_is_wrong_with_a_bucket_is_said_as_s3fs_has_it(s3: S3Server, proxied: ProxiedBucket) -> None:
    with pytest.raises(FileNotFoundError):
        list(keys_below(s3.files(), "there-is-no-such-bucket", "p/"))
    proxied.spoil = lambda exchange: refuse(403, "AccessDenied", exchange)
    with pytest.raises(PermissionError, match=r"No\."):
        list(keys_below(proxied.server.files(), proxied.bucket, "p/"))
