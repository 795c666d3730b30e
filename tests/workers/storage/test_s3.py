import gzip
import itertools
import json
import logging
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from tests.s3 import ACCESS_KEY, SECRET_KEY
from tests.s3_proxy import Exchange, Hook
from tests.workers.storage.proxied import (
    IMPATIENT,
    OBJECT,
    SPEC,
    ProxiedBucket,
    cut,
    failure,
    of_images,
    refuse,
    shorten,
)
from workers.fetch.fetch import fetch
from workers.fetch.throttle import AdaptiveLimiter
from workers.storage import s3


def test_an_object_takes_one_request_and_its_bucket_one_more(proxied: ProxiedBucket) -> None:
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda _: fetch(f"s3://{proxied.bucket}/a.jpg", SPEC), range(24)))
    assert read == [OBJECT] * 24
    assert sorted(proxied.asked) == ["GET a.jpg"] * 24 + ["HEAD"]


def test_no_more_of_an_object_is_read_than_is_allowed(proxied: ProxiedBucket) -> None:
    proxied.server.files().pipe_file(f"{proxied.bucket}/b.jpg", b"x" * 5000)
    assert failure(f"s3://{proxied.bucket}/b.jpg").code is ErrorCode.TOO_LARGE
    assert [len(get.answer.body) for get in proxied.gets if get.answer] == [SPEC.max_bytes + 1]


def with_encoding(name: str) -> Hook:
    """Says that an object is stored in an encoding."""

    def say(exchange: Exchange) -> None:
        assert exchange.answer
        exchange.answer.headers["Content-Encoding"] = name

    return of_images(say)


def test_an_object_that_is_stored_encoded_is_decoded_within_bounds(proxied: ProxiedBucket) -> None:
    stored = {
        "gzip": gzip.compress(OBJECT),
        "aws-chunked,br": pa.compress(OBJECT, "brotli", asbytes=True),
        "zstd": pa.compress(OBJECT, "zstd", asbytes=True),
        "aws-chunked": OBJECT,
        "bomb": gzip.compress(bytes(500_000)),
    }
    for key, data in stored.items():
        proxied.server.files().pipe_file(f"{proxied.bucket}/{key}.jpg", data)
    for key in list(stored)[:-1]:
        proxied.spoil = with_encoding(key)
        assert fetch(f"s3://{proxied.bucket}/{key}.jpg", SPEC) == OBJECT
    proxied.spoil = with_encoding("gzip")
    assert failure(f"s3://{proxied.bucket}/bomb.jpg").code is ErrorCode.TOO_LARGE
    assert fetch(f"s3://{proxied.bucket}/gzip.jpg", SPEC, 2, 5) == stored["gzip"][2:7]  # a part is as stored


def test_a_store_that_refuses_a_long_range_is_asked_again_without_one(proxied: ProxiedBucket) -> None:
    proxied.spoil = of_images(
        lambda exchange: exchange.refuse(416, "InvalidRange") if "range" in exchange.headers else None
    )
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT
    assert [get.headers.get("range") for get in proxied.gets] == ["bytes=0-1000", None]


def test_no_more_is_kept_than_an_answer_announces(proxied: ProxiedBucket) -> None:
    def send_more(exchange: Exchange) -> None:
        assert exchange.answer
        exchange.answer.headers |= {"Content-Range": "bytes 0-9/10", "ETag": ""}

    proxied.spoil = of_images(send_more)
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT[:10]


@pytest.mark.parametrize(
    ("status", "s3_code", "code", "attempts"),
    [
        (404, "NoSuchKey", ErrorCode.NOT_FOUND, 1),
        (404, "NoSuchBucket", ErrorCode.NOT_FOUND, 1),
        (403, "AccessDenied", ErrorCode.DENIED, 1),
        (401, "Unauthorized", ErrorCode.DENIED, 1),
        (400, "ExpiredToken", ErrorCode.EXPIRED, 3),
        (503, "SlowDown", ErrorCode.THROTTLED, 3),
        (429, "TooManyRequests", ErrorCode.THROTTLED, 3),
        (500, "InternalError", ErrorCode.NETWORK, 3),
    ],
)
def test_an_answer_of_s3_has_its_code_and_is_asked_for_once_a_try(
    proxied: ProxiedBucket, status: int, s3_code: str, code: ErrorCode, attempts: int
) -> None:
    proxied.spoil = of_images(partial(refuse, status, s3_code))
    error = failure(f"s3://{proxied.bucket}/a.jpg")
    assert (error.code, error.attempts, len(proxied.gets)) == (code, attempts, attempts)
    assert str(error).endswith(f"s3://{proxied.bucket}/a.jpg: ObjectError: status {status} {s3_code} No.")


@pytest.mark.parametrize("spoil", [Exchange.drop, cut, shorten])
def test_an_object_that_does_not_come_whole_is_a_network_fault(proxied: ProxiedBucket, spoil: Hook) -> None:
    proxied.spoil = of_images(spoil)
    error = failure(f"s3://{proxied.bucket}/a.jpg")
    assert (error.code, error.attempts, len(proxied.gets)) == (ErrorCode.NETWORK, 3, 3)


def test_a_part_of_an_object_takes_one_request_for_that_part(proxied: ProxiedBucket) -> None:
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC, 13, 20) == OBJECT[13:33]
    assert [get.headers["range"] for get in proxied.gets] == ["bytes=13-32"]


@pytest.mark.parametrize("start", [490, 500, 9999])
def test_a_part_that_is_not_all_in_its_object_is_truncated(proxied: ProxiedBucket, start: int) -> None:
    with pytest.raises(ImageError, match=r"\(20 bytes from .* on\): the file ends after \d+ of") as cut_short:
        fetch(f"s3://{proxied.bucket}/a.jpg", SPEC, start, 20)
    assert (cut_short.value.code, len(proxied.gets)) == (ErrorCode.TRUNCATED, 1)


FLIPPED = itertools.count()


def flip(exchange: Exchange) -> None:
    """Another byte than the last time."""
    assert exchange.answer
    at = next(FLIPPED) % len(exchange.answer.body)
    body = bytearray(exchange.answer.body)
    body[at] ^= 1
    exchange.answer.body = bytes(body)


def test_bytes_that_change_on_the_way_are_corrupt(proxied: ProxiedBucket) -> None:
    proxied.spoil = of_images(flip)
    error = failure(f"s3://{proxied.bucket}/a.jpg")
    assert (error.code, error.attempts) == (ErrorCode.CORRUPT, 3)


def test_a_byte_that_changes_once_costs_one_more_request(proxied: ProxiedBucket) -> None:
    faults: list[Hook] = [flip]
    proxied.spoil = of_images(lambda exchange: faults.pop()(exchange) if faults else None)
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT
    assert len(proxied.gets) == 2


def test_etags_that_are_no_md5_are_found_out_by_reading_one_object_twice(proxied: ProxiedBucket) -> None:
    def encrypted(exchange: Exchange) -> None:
        assert exchange.answer
        exchange.answer.headers = {
            name: "0" * 32 if name.lower() == "etag" else value
            for name, value in exchange.answer.headers.items()
        }

    proxied.spoil = of_images(encrypted)
    assert [fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) for _ in range(3)] == [OBJECT] * 3
    assert len(proxied.gets) == 4


def test_an_object_that_is_replaced_while_it_is_read_comes_whole(proxied: ProxiedBucket) -> None:
    versions = [bytes([n]) * 900 for n in range(1, 9)]
    files = proxied.server.files()
    files.pipe_file(f"{proxied.bucket}/b.jpg", versions[0])
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            for version in versions:
                files.pipe_file(f"{proxied.bucket}/b.jpg", version)

    with ThreadPoolExecutor(1) as pool:
        replacing = pool.submit(replace)
        found = {fetch(f"s3://{proxied.bucket}/b.jpg", SPEC) for _ in range(100)}
        done.set()
        replacing.result()
    assert found <= set(versions)
    assert len(found) > 1, "the object must have been replaced between two reads at least"


FAULTS: list[Hook] = [
    Exchange.drop,
    cut,
    shorten,
    flip,
    partial(refuse, 500, "InternalError"),
    partial(refuse, 503, "SlowDown"),
    partial(refuse, 400, "ExpiredToken"),
]


@pytest.mark.parametrize("rate", [0.3, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (0.05, 0.6))])
def test_objects_come_whole_however_often_requests_fail(proxied: ProxiedBucket, rate: float) -> None:
    keys = [f"{n}.jpg" for n in range(20)]
    for key in keys:
        proxied.server.files().pipe_file(f"{proxied.bucket}/{key}", key.encode() * 100)
    chance = random.Random(7)
    proxied.spoil = of_images(
        lambda exchange: chance.choice(FAULTS)(exchange) if chance.random() < rate else None
    )
    spec = SPEC.model_copy(update={"attempts": 20})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda key: fetch(f"s3://{proxied.bucket}/{key}", spec), keys))
    assert found == [key.encode() * 100 for key in keys]
    assert len(proxied.gets) > len(keys)


def test_a_store_that_is_asked_too_much_is_asked_less_and_no_object_is_lost(proxied: ProxiedBucket) -> None:
    most, under_way, refused, lock = 4, 0, 0, threading.Lock()

    def busy(exchange: Exchange) -> None:
        nonlocal under_way, refused
        with lock:
            under_way += 1
            on_throttle = under_way > most
            refused += on_throttle
        if on_throttle:
            exchange.refuse(503, "SlowDown")
        else:
            time.sleep(0.02)
        with lock:
            under_way -= 1

    proxied.spoil = of_images(busy)
    spec, limiter = SPEC.model_copy(update={"throttle_timeout_s": 60, "attempts": 1}), AdaptiveLimiter(32)
    with ThreadPoolExecutor(32) as pool:
        found = list(
            pool.map(lambda _: fetch(f"s3://{proxied.bucket}/a.jpg", spec, limiter=limiter), range(300))
        )
    assert found == [OBJECT] * 300
    assert refused > 0
    assert limiter.limit < 32


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_stall_ends_when_its_time_is_over(proxied: ProxiedBucket, share: float) -> None:
    hold = threading.Event()

    def stall(exchange: Exchange) -> None:
        assert exchange.answer
        if not share:
            hold.wait(20)
        exchange.answer.body = exchange.answer.body[: int(len(exchange.answer.body) * share)]
        exchange.answer.hold = hold

    proxied.spoil = of_images(stall)
    began = time.monotonic()
    error = failure(f"s3://{proxied.bucket}/a.jpg", IMPATIENT)
    took = time.monotonic() - began
    hold.set()
    assert (error.code, error.attempts) == (ErrorCode.TIMEOUT, 3)
    assert took < 15  # three tries, the waits between them, and the bucket opened


def test_an_object_comes_whole_after_faults_that_pass(proxied: ProxiedBucket) -> None:
    faults: list[Hook] = [partial(refuse, 503, "SlowDown"), shorten]
    proxied.spoil = of_images(lambda exchange: faults.pop()(exchange) if faults else None)
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT
    assert len(proxied.gets) == 3


def test_an_s3_server_that_is_not_there_is_a_network_fault(
    proxied: ProxiedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    error = failure(f"s3://{proxied.bucket}/a.jpg")
    assert (error.code, error.attempts) == (ErrorCode.NETWORK, 3)


def test_a_bucket_is_read_in_the_region_that_it_is_in(proxied: ProxiedBucket) -> None:
    """As of AWS: who signs for another region is sent away; here the first answer about it is lost."""
    lost = [True]

    def spoil(exchange: Exchange) -> None:
        assert exchange.answer
        if exchange.method == "HEAD" and lost:
            exchange.refuse(503, str(lost.pop()))
        elif exchange.method == "HEAD":
            exchange.answer.headers["x-amz-bucket-region"] = "eu-west-3"
        elif "/eu-west-3/s3/" not in exchange.headers["authorization"]:
            exchange.refuse(301, "PermanentRedirect")

    proxied.spoil = spoil
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT
    assert proxied.asked == ["HEAD", "GET a.jpg"] * 2


def test_a_profile_of_the_aws_files_leads_to_the_objects(
    no_configuration: ProxiedBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied = no_configuration
    (tmp_path / "config").write_text(
        f"[profile tests]\nregion = eu-west-2\nendpoint_url = {proxied.server.endpoint}\n"
    )
    (tmp_path / "credentials").write_text(
        f"[tests]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "tests")
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT
    assert "/eu-west-2/s3/" in proxied.gets[0].headers["authorization"]


def test_the_variable_for_s3_goes_before_that_for_all_of_aws(
    proxied: ProxiedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxied.server.endpoint)
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT


def test_a_session_token_is_sent(proxied: ProxiedBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    assert failure(f"s3://{proxied.bucket}/a.jpg").code is ErrorCode.DENIED  # this server has no such user
    assert proxied.gets[0].headers["x-amz-security-token"] == "a-token"


def test_without_credentials_an_object_is_read_as_anybody(
    no_configuration: ProxiedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied = no_configuration
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxied.server.endpoint)
    assert failure(f"s3://{proxied.bucket}/a.jpg").code is ErrorCode.DENIED  # this server knows its users
    assert [get.headers.get("authorization") for get in proxied.gets] == [None]


def test_credentials_that_expired_leave_a_line_in_the_log_and_no_secret(
    proxied: ProxiedBucket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="workers.storage")
    refusals: list[Hook] = [partial(refuse, 400, "ExpiredToken")] * 2
    proxied.spoil = of_images(lambda exchange: refusals.pop()(exchange) if refusals else None)
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT
    refused = (
        f"s3://{proxied.bucket} refused the credentials (status 400 ExpiredToken No.); looking for new ones"
    )
    assert [record.getMessage() for record in caplog.records] == [refused] * 2
    assert SECRET_KEY not in caplog.text


def test_credentials_that_end_are_renewed(
    no_configuration: ProxiedBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied = no_configuration
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxied.server.endpoint)
    monkeypatch.setattr(s3, "CREDENTIALS_LIFETIME", timedelta(minutes=5))  # so obstore asks for each GET
    given = tmp_path / "given.json"
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {given}\n")

    def give(secret: str) -> None:
        ends = (datetime.now(UTC) + timedelta(minutes=11)).isoformat()  # botocore renews 15 minutes before
        keys = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": secret, "Expiration": ends}
        given.write_text(json.dumps({"Version": 1, **keys}))

    give("an old one")
    assert failure(f"s3://{proxied.bucket}/a.jpg").code is ErrorCode.DENIED
    give(SECRET_KEY)
    time.sleep(0.2)  # obstore does not ask again at once
    assert fetch(f"s3://{proxied.bucket}/a.jpg", SPEC) == OBJECT


FORKED = """
import os, sys
from schemas.spec import FetchSpec
from workers.fetch.fetch import fetch
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if fetch(sys.argv[1], FetchSpec()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def test_forks_of_a_process_that_only_imported_read_objects(proxied: ProxiedBucket) -> None:
    subprocess.run([sys.executable, "-c", FORKED, f"s3://{proxied.bucket}/a.jpg"], check=True, timeout=60)
    assert proxied.asked == ["HEAD", "GET a.jpg"] * 2
