import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from tests.s3 import S3Server
from tests.workers.storage.proxied import IMPATIENT, SPEC, failure
from workers.fetch.fetch import fetch


@dataclass
class WebServer:
    """A real web server that answers each path with the statuses it was told, the last one for ever."""

    url: str
    answers: dict[str, list[int]] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def web() -> Iterator[WebServer]:
    state = WebServer("")
    hold = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            count = state.requests[path] = state.requests.get(path, 0) + 1
            statuses = state.answers[path]
            status = statuses[min(count, len(statuses)) - 1]
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


@pytest.mark.parametrize("scheme", ["s3", "s3a"])
def test_a_slash_at_the_end_of_a_key_is_a_part_of_it(s3: S3Server, bucket: str, scheme: str) -> None:
    store = s3.files()
    store.pipe_file(f"{bucket}/photo.jpg", b"photo")
    assert failure(f"{scheme}://{bucket}/photo.jpg/").code is ErrorCode.NOT_FOUND
    store.call_s3("put_object", Bucket=bucket, Key="folder/", Body=b"")
    assert failure(f"{scheme}://{bucket}/folder/").code is ErrorCode.EMPTY


def test_a_slash_at_the_end_of_another_stores_name_is_not_passed_over() -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/photos/photo.jpg", b"photo")
    try:
        assert fetch("memory://photos/photo.jpg", SPEC) == b"photo"
        assert failure("memory://photos/photo.jpg/").code is ErrorCode.NOT_FOUND
    finally:
        store.rm("/photos", recursive=True)


def test_a_web_address_is_read(web: WebServer) -> None:
    web.answers = {"/a.jpg": [200]}
    assert fetch(f"{web.url}/a.jpg?signature=secret", SPEC) == b"image bytes"


def test_two_colons_in_a_web_address_are_no_chain(web: WebServer) -> None:
    web.answers = {"/a::b.jpg": [200]}
    assert fetch(f"{web.url}/a::b.jpg", SPEC) == b"image bytes"
    assert failure("http://[::1]:1/a.jpg").code is ErrorCode.NETWORK
    assert failure("http://[no address/a.jpg").code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("gone.jpg", ErrorCode.NOT_FOUND),
        ("folder", ErrorCode.NOT_AN_IMAGE),
        ("file/below.jpg", ErrorCode.NOT_FOUND),
        (f"{'x' * 300}.jpg", ErrorCode.NOT_FOUND),
        ("circle/a.jpg", ErrorCode.NOT_FOUND),
    ],
)
def test_a_local_path_without_a_file_is_told_apart(tmp_path: Path, name: str, code: ErrorCode) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    error = failure(str(tmp_path / name))
    assert (error.code, error.attempts) == (code, 1)


def test_a_web_address_without_its_scheme_is_no_file_that_is_not_found(tmp_path: Path) -> None:
    error = failure("//host/a.jpg")
    assert (error.code, error.attempts) == (ErrorCode.UNSUPPORTED, 1)
    assert "a web address needs its scheme: https://" in error.message
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    assert fetch(f"/{tmp_path}/a.jpg", SPEC) == b"bytes"


def test_the_content_of_a_data_uri_is_read() -> None:
    assert fetch("data:image/jpeg;base64,Ynl0ZXM=", SPEC) == b"bytes"
    assert failure("data:image/jpeg;base64,Ynl0Z").code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("hdfs://nowhere/a.jpg", "Install one with libhdfs on every node"),
        ("dbfs:/a.jpg", "the files are below /dbfs/"),
        ("wasbs://c@a.blob.core.windows.net/x.jpg", "Write az://CONTAINER/PATH"),
        ("s3:/bucket/a.jpg", "Write s3://"),
        ("file://host/a.jpg", "Write file:///"),
    ],
)
def test_a_url_that_nothing_reads_is_unsupported_with_what_to_write(uri: str, hint: str) -> None:
    error = failure(uri)
    assert (error.code, error.attempts) == (ErrorCode.UNSUPPORTED, 1)
    assert hint in error.message


def test_a_message_is_text_whatever_bytes_a_name_has() -> None:
    error = failure("/caf\udce9.jpg")
    assert error.code is ErrorCode.NOT_FOUND
    assert error.message.startswith("file:///caf%E9.jpg: FileNotFoundError")
    assert error.message.isprintable()


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
    assert (error.code, error.attempts, web.requests["/a.jpg"]) == (code, attempts, attempts)
    assert "secret" not in str(error)


def test_a_fault_that_passes_costs_only_a_retry(web: WebServer) -> None:
    web.answers = {"/a.jpg": [503, 500, 200]}
    assert fetch(f"{web.url}/a.jpg", SPEC) == b"image bytes"
    assert web.requests == {"/a.jpg": 3}


def test_a_server_that_is_not_there_is_a_network_fault() -> None:
    error = failure("http://127.0.0.1:9/a.jpg")
    assert (error.code, error.attempts) == (ErrorCode.NETWORK, 3)


def test_a_web_server_that_sends_all_where_a_part_is_asked_for_is_unsupported(web: WebServer) -> None:
    web.answers = {"/a.jpg": [200]}
    with pytest.raises(
        ImageError, match=r"a\.jpg \(5 bytes from 2 on\): .*its server does not support range"
    ) as all_:
        fetch(f"{web.url}/a.jpg?signature=secret", SPEC, 2, 5)
    assert all_.value.code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize("location", ["nonsense://a/b.jpg", "/a\0b.jpg"])
def test_a_location_that_nothing_reads_is_unsupported(location: str) -> None:
    assert failure(location).code is ErrorCode.UNSUPPORTED
