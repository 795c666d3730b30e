import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.spec import FetchSpec
from tests.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from tests.s3_proxy import Exchange, Hook, proxying
from workers import objects
from workers.fetch import fetch

SPEC = FetchSpec(attempts=3, timeout_s=20, max_bytes=1000)
IMPATIENT = SPEC.model_copy(update={"timeout_s": 2})
OBJECT = b"0123456789" * 50


@dataclass
class WebServer:
    """A real web server that answers each path with the statuses it was told, the last one for ever."""

    url: str
    answers: dict[str, list[int]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def web() -> Iterator[WebServer]:
    state = WebServer("")
    hold = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked = state.asked[path] = state.asked.get(path, 0) + 1
            statuses = state.answers[path]
            status = statuses[min(asked, len(statuses)) - 1]
            if status == 0:  # says nothing
                hold.wait(20)
                return
            body = b"image bytes" if status == 200 else b"sorry"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Way:
    """The way to the S3 server, on which answers can be spoilt, and what went along it."""

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


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    """A bucket with OBJECT as a.jpg."""
    bucket = s3.new_bucket()
    s3.files().pipe_file(f"{bucket}/a.jpg", OBJECT)
    return bucket


@pytest.fixture
def way(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """The way to the bucket, which the usual AWS variables lead to."""
    state = Way(s3, bucket)

    def after(exchange: Exchange) -> None:
        state.seen.append(exchange)
        state.spoil(exchange)

    with proxying(s3, after=after) as state.server:
        for name, value in state.server.environment.items():
            monkeypatch.setenv(name, value)
        objects.forget()
        yield state
    objects.forget()


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


def test_a_local_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a b%2F+ü.jpg").write_bytes(b"bytes")
    assert fetch(str(tmp_path / "a b%2F+ü.jpg"), SPEC) == b"bytes"
    assert fetch(f"file://{tmp_path}/a b%2F+ü.jpg", SPEC) == b"bytes"


@pytest.mark.parametrize(
    "key",
    [
        "a b+c%2F?ü.jpg",
        "100%/%25/a&b=c:d@e,f;g$h!i'j(k)l[m]n{o}p|q^r`s\"t<u>v#w~x*y\\z.jpg",
        "日本/😀/e\u0301.jpg",
        "/b.jpg",  # obstore would read b.jpg, and refuses the next ones
        "a//b.jpg",
        "a\tb.jpg",
        "a\u0085b.jpg",
    ],
)
def test_an_object_of_a_bucket_is_read_whatever_its_key(s3: S3Server, bucket: str, key: str) -> None:
    s3.files().pipe_file(f"{bucket}/{key}", key.encode())
    assert fetch(f"s3://{bucket}/{key}", SPEC) == key.encode()
    assert fetch(f"s3a://{bucket}/{key}", SPEC) == key.encode()


def test_a_web_address_is_read(web: WebServer) -> None:
    web.answers = {"/a.jpg": [200]}
    assert fetch(f"{web.url}/a.jpg?signature=secret", SPEC) == b"image bytes"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("gone.jpg", ErrorCode.NOT_FOUND),
        ("folder", ErrorCode.NOT_AN_IMAGE),
        ("file/below.jpg", ErrorCode.NOT_FOUND),
    ],
)
def test_a_local_path_without_a_file_is_told_apart(tmp_path: Path, name: str, code: ErrorCode) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    error = failure(str(tmp_path / name))
    assert (error.code, error.attempts) == (code, 1)


def test_an_empty_file_is_empty_wherever_it_is(tmp_path: Path, s3: Any) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    bucket = s3.new_bucket()
    s3.files().pipe_file(f"{bucket}/a.jpg", b"")
    assert [failure(str(tmp_path / "a.jpg")).code, failure(f"s3://{bucket}/a.jpg").code] == [
        ErrorCode.EMPTY
    ] * 2


def test_a_file_over_the_limit_is_too_large(tmp_path: Path, s3: Any) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 1000)
    (tmp_path / "b.jpg").write_bytes(b"x" * 1001)
    bucket = s3.new_bucket()
    s3.files().pipe_file(f"{bucket}/b.jpg", b"x" * 5000)
    assert len(fetch(str(tmp_path / "a.jpg"), SPEC)) == 1000
    codes = [failure(str(tmp_path / "b.jpg")).code, failure(f"s3://{bucket}/b.jpg").code]
    assert codes == [ErrorCode.TOO_LARGE] * 2


def test_a_missing_object_and_a_missing_bucket_are_not_found(s3: Any) -> None:
    bucket = s3.new_bucket()
    errors = [failure(f"s3://{bucket}/gone.jpg"), failure(f"s3://{bucket}-not/a.jpg")]
    assert [(e.code, e.attempts) for e in errors] == [(ErrorCode.NOT_FOUND, 1)] * 2


@pytest.mark.parametrize(
    ("status", "code", "attempts"),
    [
        (404, ErrorCode.NOT_FOUND, 1),
        (410, ErrorCode.NOT_FOUND, 1),
        (403, ErrorCode.DENIED, 1),
        (401, ErrorCode.DENIED, 1),
        (429, ErrorCode.THROTTLED, 3),
        (503, ErrorCode.THROTTLED, 3),
        (500, ErrorCode.NETWORK, 3),
        (0, ErrorCode.TIMEOUT, 3),
    ],
)
def test_an_answer_has_its_code_and_what_may_pass_is_tried_again(
    web: WebServer, status: int, code: ErrorCode, attempts: int
) -> None:
    web.answers = {"/a.jpg": [status]}
    error = failure(f"{web.url}/a.jpg?signature=secret", SPEC if status else IMPATIENT)
    assert (error.code, error.attempts, web.asked["/a.jpg"]) == (code, attempts, attempts)
    assert "secret" not in str(error)


def test_a_fault_that_passes_costs_only_a_retry(web: WebServer) -> None:
    web.answers = {"/a.jpg": [503, 500, 200]}
    assert fetch(f"{web.url}/a.jpg", SPEC) == b"image bytes"
    assert web.asked == {"/a.jpg": 3}


def test_a_server_that_is_not_there_is_a_network_fault() -> None:
    error = failure("http://127.0.0.1:9/a.jpg")
    assert (error.code, error.attempts) == (ErrorCode.NETWORK, 3)


def test_a_web_server_that_sends_all_where_a_part_is_asked_for_is_unsupported(web: WebServer) -> None:
    web.answers = {"/a.jpg": [200]}
    with pytest.raises(ImageError, match=r"a\.jpg \(5 bytes from 2 on\): found 11 bytes; its server") as all_:
        fetch(f"{web.url}/a.jpg?signature=secret", SPEC, 2, 5)
    assert all_.value.code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize("location", ["nonsense://a/b.jpg", "/a\0b.jpg"])
def test_a_location_that_nothing_reads_is_unsupported(location: str) -> None:
    assert failure(location).code is ErrorCode.UNSUPPORTED


def test_an_object_takes_one_request_and_its_bucket_one_more(way: Way) -> None:
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda _: fetch(f"s3://{way.bucket}/a.jpg", SPEC), range(24)))
    assert read == [OBJECT] * 24
    assert sorted(way.asked) == ["GET a.jpg"] * 24 + ["HEAD"]


def test_no_more_of_an_object_is_read_than_is_allowed(way: Way) -> None:
    way.server.files().pipe_file(f"{way.bucket}/b.jpg", b"x" * 5000)
    assert failure(f"s3://{way.bucket}/b.jpg").code is ErrorCode.TOO_LARGE
    assert [len(get.answer.body) for get in way.gets if get.answer] == [SPEC.max_bytes + 1]


def test_a_part_of_an_object_takes_one_request_for_that_part(way: Way) -> None:
    assert fetch(f"s3://{way.bucket}/a.jpg", SPEC, 13, 20) == OBJECT[13:33]
    assert [get.headers["range"] for get in way.gets] == ["bytes=13-32"]


@pytest.mark.parametrize("start", [490, 500, 9999])
def test_a_part_that_is_not_all_in_its_object_is_truncated(way: Way, start: int) -> None:
    with pytest.raises(ImageError, match=r"\(20 bytes from .* on\): the file ends after \d+ of") as cut_short:
        fetch(f"s3://{way.bucket}/a.jpg", SPEC, start, 20)
    assert (cut_short.value.code, len(way.gets)) == (ErrorCode.TRUNCATED, 1)


@pytest.mark.parametrize(
    ("status", "s3_code", "code", "attempts"),
    [
        (404, "NoSuchKey", ErrorCode.NOT_FOUND, 1),
        (404, "NoSuchBucket", ErrorCode.NOT_FOUND, 1),
        (403, "AccessDenied", ErrorCode.DENIED, 1),
        (401, "Unauthorized", ErrorCode.DENIED, 1),
        (400, "ExpiredToken", ErrorCode.DENIED, 1),
        (503, "SlowDown", ErrorCode.THROTTLED, 3),
        (429, "TooManyRequests", ErrorCode.THROTTLED, 3),
        (500, "InternalError", ErrorCode.NETWORK, 3),
    ],
)
def test_an_answer_of_s3_has_its_code_and_is_asked_for_once_a_try(
    way: Way, status: int, s3_code: str, code: ErrorCode, attempts: int
) -> None:
    way.spoil = of_images(partial(refuse, status, s3_code))
    error = failure(f"s3://{way.bucket}/a.jpg")
    assert (error.code, error.attempts, len(way.gets)) == (code, attempts, attempts)
    assert str(error).endswith(f"s3://{way.bucket}/a.jpg: ObjectError: status {status} {s3_code} No.")


@pytest.mark.parametrize("spoil", [Exchange.drop, cut, shorten])
def test_an_object_that_does_not_come_whole_is_a_network_fault(way: Way, spoil: Hook) -> None:
    way.spoil = of_images(spoil)
    error = failure(f"s3://{way.bucket}/a.jpg")
    assert (error.code, error.attempts, len(way.gets)) == (ErrorCode.NETWORK, 3, 3)


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_stall_ends_when_its_time_is_over(way: Way, share: float) -> None:
    hold = threading.Event()

    def stall(exchange: Exchange) -> None:
        assert exchange.answer
        if not share:
            hold.wait(20)
        exchange.answer.body = exchange.answer.body[: int(len(exchange.answer.body) * share)]
        exchange.answer.hold = hold

    way.spoil = of_images(stall)
    began = time.monotonic()
    error = failure(f"s3://{way.bucket}/a.jpg", IMPATIENT)
    took = time.monotonic() - began
    hold.set()
    assert (error.code, error.attempts) == (ErrorCode.TIMEOUT, 3)
    assert took < 15  # three tries, the waits between them, and the bucket opened


def test_an_object_comes_whole_after_faults_that_pass(way: Way) -> None:
    faults: list[Hook] = [partial(refuse, 503, "SlowDown"), shorten]
    way.spoil = of_images(lambda exchange: faults.pop()(exchange) if faults else None)
    assert fetch(f"s3://{way.bucket}/a.jpg", SPEC) == OBJECT
    assert len(way.gets) == 3


def test_an_s3_server_that_is_not_there_is_a_network_fault(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    error = failure(f"s3://{way.bucket}/a.jpg")
    assert (error.code, error.attempts) == (ErrorCode.NETWORK, 3)


def test_a_bucket_is_read_in_the_region_that_it_is_in(way: Way) -> None:
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

    way.spoil = spoil
    assert fetch(f"s3://{way.bucket}/a.jpg", SPEC) == OBJECT
    assert way.asked == ["HEAD", "GET a.jpg"] * 2


@pytest.fixture
def no_configuration(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Nothing that says where S3 is and who may read."""
    for name in way.server.environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return way


def test_a_profile_of_the_aws_files_leads_to_the_objects(
    no_configuration: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = no_configuration
    (tmp_path / "config").write_text(
        f"[profile tests]\nregion = eu-west-2\nendpoint_url = {way.server.endpoint}\n"
    )
    (tmp_path / "credentials").write_text(
        f"[tests]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "tests")
    assert fetch(f"s3://{way.bucket}/a.jpg", SPEC) == OBJECT
    assert "/eu-west-2/s3/" in way.gets[0].headers["authorization"]


def test_the_variable_for_s3_goes_before_that_for_all_of_aws(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", way.server.endpoint)
    assert fetch(f"s3://{way.bucket}/a.jpg", SPEC) == OBJECT


def test_a_session_token_is_sent(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    assert failure(f"s3://{way.bucket}/a.jpg").code is ErrorCode.DENIED  # this server has no such user
    assert way.gets[0].headers["x-amz-security-token"] == "a-token"


def test_without_credentials_an_object_is_read_as_anybody(
    no_configuration: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = no_configuration
    monkeypatch.setenv("AWS_ENDPOINT_URL", way.server.endpoint)
    assert failure(f"s3://{way.bucket}/a.jpg").code is ErrorCode.DENIED  # this server knows its users
    assert [get.headers.get("authorization") for get in way.gets] == [None]


def test_credentials_that_end_are_renewed(
    no_configuration: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = no_configuration
    monkeypatch.setenv("AWS_ENDPOINT_URL", way.server.endpoint)
    monkeypatch.setattr(objects, "CREDENTIALS_LIVE", timedelta(minutes=5))  # so obstore asks for each GET
    given = tmp_path / "given.json"
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {given}\n")

    def give(secret: str) -> None:
        ends = (datetime.now(UTC) + timedelta(minutes=11)).isoformat()  # botocore renews 15 minutes before
        keys = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": secret, "Expiration": ends}
        given.write_text(json.dumps({"Version": 1, **keys}))

    give("an old one")
    assert failure(f"s3://{way.bucket}/a.jpg").code is ErrorCode.DENIED
    give(SECRET_KEY)
    time.sleep(0.2)  # obstore does not ask again at once
    assert fetch(f"s3://{way.bucket}/a.jpg", SPEC) == OBJECT


FORKED = """
import os, sys
from schemas.spec import FetchSpec
from workers.fetch import fetch
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if fetch(sys.argv[1], FetchSpec()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def test_forks_of_a_process_that_only_imported_read_objects(way: Way) -> None:
    subprocess.run([sys.executable, "-c", FORKED, f"s3://{way.bucket}/a.jpg"], check=True, timeout=60)
    assert way.asked == ["HEAD", "GET a.jpg"] * 2
