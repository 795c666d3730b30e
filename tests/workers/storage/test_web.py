"""Files of web servers with odd manners, through `fetch` where that is what asks."""

import gzip
import resource
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError, ManifestError, RaylabelError, StorageError
from schemas.spec import FetchSpec, ManifestSpec, StorageOptions, reached_by
from tests.image_server import (
    Asked,
    ImageServer,
    Manner,
    Reply,
    encoded,
    endless,
    plain,
    refusing_long_ranges,
    serving,
    silent,
    without_ranges,
)
from workers.fetch.fetch import fetch
from workers.fetch.locate import locate, read_image
from workers.fetch.ranges import open_exactly
from workers.manifest.find import find_sources
from workers.manifest.formats.text_files import open_text
from workers.manifest.read_errors import read_errors
from workers.manifest.reader import open_parquet
from workers.storage.filesystem import file_system, open_file
from workers.storage.options import configure_storage
from workers.storage.store import Store

SPEC = FetchSpec(attempts=2, timeout_s=20, throttle_timeout_s=0, max_bytes=10_000)
IMPATIENT = SPEC.model_copy(update={"timeout_s": 0.5})
DATA = bytes(n * n % 251 for n in range(5_000))


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield
    configure_storage({})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImageServer]:
    (tmp_path / "a.jpg").write_bytes(DATA)
    with serving(tmp_path) as server:
        server.manner = plain
        yield server


def failure(uri: str, spec: FetchSpec = SPEC) -> ImageError:
    with pytest.raises(ImageError) as raised:
        read_image(locate(uri, ""), spec)
    return raised.value


@pytest.mark.parametrize("manner", [plain, without_ranges, refusing_long_ranges])
def test_an_image_is_read_by_one_request_whatever_its_server_knows_of_ranges(
    server: ImageServer, manner: Manner
) -> None:
    server.manner = manner
    assert fetch(server.url("a.jpg"), SPEC) == DATA
    assert server.requests == {"/a.jpg": 1}


def test_a_range_that_its_server_refuses_is_asked_for_again_without_one(server: ImageServer) -> None:
    server.manner = lambda asked: Reply(416) if asked.span else plain(asked)
    assert fetch(server.url("a.jpg"), SPEC, 0, 100) == DATA[:100]
    assert [asked.headers.get("range") for asked in server.asked] == ["bytes=0-99", None]


def test_a_part_that_is_not_the_one_asked_for_is_refused(server: ImageServer) -> None:
    server.manner = lambda asked: Reply(206, asked.data[:10], {"Content-Range": "bytes 0-9/5000"})
    with pytest.raises(ImageError, match="its server sent the bytes from 0 on") as refused:
        fetch(server.url("a.jpg"), SPEC, 100, 10)
    assert refused.value.code is ErrorCode.UNSUPPORTED


def test_a_body_without_an_end_is_too_large_and_takes_no_memory(server: ImageServer) -> None:
    server.manner = endless
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = failure(server.url("a.jpg"))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (error.code, error.attempts) == (ErrorCode.TOO_LARGE, 1)
    assert error.message.endswith("a.jpg has more bytes than fetch.max_bytes = 10,000")
    assert grown < 100_000, "kilobytes"
    with pytest.raises(ImageError, match="does not support range requests"):
        fetch(server.url("a.jpg"), SPEC, 100, 10)
    assert fetch(server.url("a.jpg"), SPEC, 0, 10) == bytes(10)  # so much and no more


def test_a_file_that_is_announced_too_large_is_not_read(server: ImageServer) -> None:
    server.manner = lambda _: Reply(200, b"", {"Content-Length": str(2**40)})
    assert failure(server.url("a.jpg")).code is ErrorCode.TOO_LARGE


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("gzip", gzip.compress(DATA, mtime=0)),
        ("x-gzip", gzip.compress(DATA, mtime=0)),
        ("deflate", zlib.compress(DATA)),
        ("br", pa.compress(DATA, "brotli", asbytes=True)),
        ("zstd", pa.compress(DATA, "zstd", asbytes=True)),
        ("gzip", DATA),  # it only says so
    ],
)
def test_an_image_is_decoded_however_its_server_encodes_it(
    server: ImageServer, name: str, body: bytes
) -> None:
    server.manner = encoded(name, body)
    assert fetch(server.url("a.jpg"), SPEC) == DATA
    assert server.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (gzip.compress(bytes(2**26), mtime=0), ErrorCode.TOO_LARGE),
        (gzip.compress(DATA, mtime=0)[:-20], ErrorCode.TRUNCATED),
        (gzip.compress(DATA, mtime=0)[:20] + bytes(100), ErrorCode.UNSUPPORTED),
        (gzip.compress(b"", mtime=0), ErrorCode.EMPTY),
    ],
)
def test_what_cannot_be_decoded_within_bounds_is_a_failed_row(
    server: ImageServer, body: bytes, code: ErrorCode
) -> None:
    server.manner = encoded("gzip", body)
    error = failure(server.url("a.jpg"), SPEC.model_copy(update={"max_bytes": 100_000}))
    assert (error.code, error.attempts) == (code, 1)


def test_text_is_decoded_as_it_is_read_and_parquet_is_refused_with_what_to_do(server: ImageServer) -> None:
    server.manner = encoded("gzip", gzip.compress(b"uri\na.jpg\n" * 1000))
    with open_text(server.url("list.csv")) as file:
        assert list(file) == ["uri\n", "a.jpg\n"] * 1000
    server.manner = encoded("gzip", gzip.compress(b"uri\n" * 9999)[:-9])
    with (
        pytest.raises(ManifestError, match=r"cannot read http.*/list\.csv: .*no gzip data: Truncated"),
        open_text(server.url("list.csv")) as file,
    ):
        list(file)
    with open_file(server.url("list.parquet")) as file, pytest.raises(OSError, match="Download it and name"):
        file.seek(0, 2)


def test_the_sender_is_named_and_headers_of_ones_own_are_sent(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(server.url("a.jpg"), SPEC)
    assert server.asked[-1].headers["user-agent"].startswith("raylabel/0.")
    monkeypatch.setenv("TOKEN", "secret")
    configure_storage(
        reached_by(
            {server.url(""): StorageOptions(headers={"accept": "image/*"})},
            {"User-Agent": "Mozilla/5.0", "Authorization": "Bearer env:TOKEN", "Accept": "text/html"},
        )
    )
    fetch(server.url("a.jpg"), SPEC)
    sent = server.asked[-1].headers
    assert (sent["user-agent"], sent["authorization"], sent["accept"]) == (
        *("Mozilla/5.0", "Bearer secret", "image/*"),
    )


def test_a_secret_goes_to_the_server_that_was_named_and_to_no_other(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    configure_storage(reached_by({}, {"User-Agent": "me", "X-Key": "env:TOKEN"}))
    with serving(tmp_path) as other:
        other.manner = plain
        server.manner = lambda _: Reply(302, b"", {"Location": other.url("a.jpg?signature=hidden")})
        assert fetch(server.url("b.jpg"), SPEC) == DATA
        assert server.asked[0].headers["x-key"] == "secret"
        assert (other.asked[0].headers["user-agent"], "x-key" in other.asked[0].headers) == ("me", False)
        other.manner = lambda _: Reply(403)
        message = str(failure(server.url("b.jpg")))
        assert "403" in message
        assert "hidden" not in message
    server.manner = lambda asked: (
        Reply(302, b"", {"Location": "/a.jpg"}) if "b" in asked.path else plain(asked)
    )
    assert fetch(server.url("b.jpg"), SPEC) == DATA
    assert server.asked[-1].headers["x-key"] == "secret"


def test_a_redirect_that_leads_nowhere_is_a_failed_row(server: ImageServer) -> None:
    server.manner = lambda asked: Reply(302, b"", {"Location": asked.path})
    assert failure(server.url("a.jpg")).code is ErrorCode.NETWORK
    server.manner = lambda _: Reply(302, b"", {"Location": "file:///etc/passwd"})
    assert failure(server.url("a.jpg")).code is ErrorCode.UNSUPPORTED


def test_a_server_is_asked_again_when_it_wants_to_be(server: ImageServer) -> None:
    server.manner = lambda asked: plain(asked) if asked.before else Reply(429, b"", {"Retry-After": "1"})
    assert fetch(server.url("a.jpg"), SPEC) == DATA
    server.manner = lambda asked: (
        plain(asked) if asked.before > 3 else Reply(503, b"", {"Retry-After": "99999"})
    )
    assert fetch(server.url("a.jpg"), SPEC.model_copy(update={"throttle_timeout_s": 20})) == DATA


def test_requests_go_through_the_proxy_that_a_variable_names(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url("").replace("http://", "http://me:secret@"))
    assert fetch("http://nowhere.example/a.jpg", SPEC) == DATA
    assert server.asked[0].path == "http://nowhere.example/a.jpg"
    assert server.asked[0].headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    error = failure(server.url("a.jpg"))
    assert (error.code, "secret" in str(error)) == (ErrorCode.NETWORK, False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert fetch(server.url("a.jpg"), SPEC) == DATA


def test_a_proxy_that_refuses_to_connect_is_told_in_our_words(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", server.url("").replace("http://", "http://me:secret@"))
    error = failure("https://nowhere.example/a.jpg?signature=secret")
    assert (error.code, error.message) == (
        ErrorCode.NETWORK,
        "https://nowhere.example/a.jpg: WebError: status 501 Unsupported method ('CONNECT') (by the proxy)",
    )


def read_in_parts(url: str) -> object:
    return open_exactly(url, SPEC)


def a_manifest(url: str) -> object:
    return find_sources(ManifestSpec(uri=f"{url}.csv"))


def a_manifests_text(url: str) -> object:
    with read_errors(url), open_text(url) as file:
        return file.read()


def an_output(url: str) -> object:
    return Store(url).read("run.json")


def an_image(url: str) -> object:
    return fetch(url, SPEC)


@pytest.mark.parametrize("use", [an_image, read_in_parts, a_manifest, a_manifests_text, an_output])
@pytest.mark.parametrize("proxy", ["http://me:secret@127.0.0.1:{}", "http://me:secret@127.0.0.1:port{}"])
def test_no_message_has_the_password_of_a_proxy(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch, use: Callable[[str], object], proxy: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy.format(server.server_port))
    with pytest.raises(RaylabelError) as failed:
        use("https://nowhere.example/a.jpg")
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("status", [201, 300, 302, 304])
def test_an_answer_that_is_not_the_file_is_none(server: ImageServer, status: int) -> None:
    server.manner = lambda asked: Reply(status, b"" if status == 304 else asked.data)
    error = failure(server.url("a.jpg"))
    assert (error.code, f"status {status}" in error.message) == (ErrorCode.NETWORK, True)


def test_an_answer_without_content_is_an_empty_file(server: ImageServer) -> None:
    server.manner = lambda _: Reply(204)
    assert failure(server.url("a.jpg")).code is ErrorCode.EMPTY


def test_no_cookie_is_kept(server: ImageServer) -> None:
    server.manner = lambda asked: Reply(200, asked.data, {"Set-Cookie": "session=1; Path=/"})
    # a cookie of an address is never kept, one of a name is
    url = server.url("a.jpg").replace("127.0.0.1", "localhost")
    assert [fetch(url, SPEC), fetch(url, SPEC)] == [DATA, DATA]
    assert [asked.headers.get("cookie") for asked in server.asked] == [None, None]


@pytest.mark.parametrize("folder", ["a b", "fötos", "a%7Eb", "x/../y"])
def test_a_prefix_counts_however_its_signs_are_written(server: ImageServer, folder: str) -> None:
    prefix = server.url(folder).replace("http://127.0.0.1", "HTTP://LocalHost")
    configure_storage({prefix: StorageOptions(headers={"Referer": "me"})})
    assert fetch(f"{prefix}/a.jpg", SPEC) == DATA
    assert [asked.headers.get("referer") for asked in server.asked] == ["me"]


@pytest.mark.parametrize(
    "uri",
    [
        "{}",
        "simplecache::{}",
        "zip://a.jpg::{}",
        "tar://a.jpg::{}.tar",
        "tar://a.jpg::{}.tar.gz",
        "parquet://image/0::{}",
    ],
)
def test_a_silent_server_costs_the_timeout_and_no_more(server: ImageServer, uri: str) -> None:
    server.manner = silent
    error = failure(uri.format(server.url("a")), IMPATIENT)
    assert error.code is ErrorCode.TIMEOUT
    assert sum(server.requests.values()) <= 2 * IMPATIENT.attempts


def test_a_container_that_does_not_answer_is_not_asked_for_each_of_its_images(server: ImageServer) -> None:
    server.manner = silent
    for row in range(20):
        assert failure(f"parquet://image/{row}::{server.url('b')}", IMPATIENT).code is ErrorCode.TIMEOUT
    assert server.requests["/b"] <= IMPATIENT.attempts


def test_what_a_server_knows_of_a_file_is_told_without_reading_it(server: ImageServer) -> None:
    fs, path = file_system(server.url("a.jpg"))
    info = fs.info(path)
    assert (info["size"], info["partial"]) == (5_000, True)
    server.manner = without_ranges
    assert (fs.info(path)["size"], fs.info(path)["partial"]) == (5_000, False)
    server.manner = lambda _: Reply(404)
    assert not fs.exists(path)
    server.manner = lambda _: Reply(403)
    with pytest.raises(ConnectionError, match="status 403 Forbidden"):
        fs.exists(path)


def test_an_image_in_an_archive_on_a_server_is_read(server: ImageServer, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", DATA)
    for uri in (f"zip://a.jpg::{server.url('a.zip')}", f"simplecache::{server.url('a.jpg')}"):
        assert read_image(locate(uri, ""), SPEC) == DATA


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz", "list.csv.gz?signature=1"])
@pytest.mark.parametrize("header", ["", "gzip"])
def test_compressed_text_is_read_whatever_its_name_and_its_server_say(
    server: ImageServer, name: str, header: str
) -> None:
    body = gzip.compress(b"uri\na.jpg\n")
    server.manner = lambda asked: (
        encoded("gzip", body)(asked) if header else plain(Asked(asked.path, 0, asked.headers, body))
    )
    with open_text(server.url(name)) as file:
        assert list(file) == ["uri\n", "a.jpg\n"]


def test_a_manifest_that_a_server_does_not_send_is_not_called_damaged(server: ImageServer) -> None:
    server.manner = lambda _: Reply(404)
    with (
        pytest.raises(ManifestError, match=r"^cannot read http.*/gone\.csv: status 404"),
        open_text(server.url("gone.csv")),
    ):
        pass


def test_a_parquet_file_that_its_server_sends_compressed_is_refused_with_the_cause_and_what_to_do(
    server: ImageServer,
) -> None:
    server.manner = encoded("gzip", gzip.compress(DATA))
    with pytest.raises(
        ManifestError,
        match=r"^cannot read http.*/list\.parquet: .*sends it compressed \(Content-Encoding\), so not in "
        r"parts\. Download it and name the copy$",
    ):
        open_parquet(server.url("list.parquet"))


@pytest.mark.parametrize("copy", ["simplecache", "filecache", "blockcache", "filecache::simplecache"])
def test_a_copy_is_the_file_itself_read_within_bounds(server: ImageServer, copy: str) -> None:
    assert read_image(locate(f"{copy}::{server.url('a.jpg')}", ""), SPEC) == DATA
    server.manner = endless
    assert failure(f"{copy}::{server.url('a.jpg')}").code is ErrorCode.TOO_LARGE
    server.manner = encoded("gzip", gzip.compress(bytes(2**26)))
    assert failure(f"{copy}::{server.url('a.jpg')}").code is ErrorCode.TOO_LARGE
    with pytest.raises(StorageError, match=r"cannot use nowhere://a\.jpg"):
        file_system(f"{copy}::nowhere://a.jpg")


def test_an_encoded_body_without_an_end_takes_no_more_than_may_come(server: ImageServer) -> None:
    sent: list[int] = []

    def pieces() -> Iterator[bytes]:
        piece = gzip.compress(b"", mtime=0) * 500
        while True:
            sent.append(len(piece))
            yield piece

    server.manner = lambda _: Reply(200, pieces(), {"Content-Encoding": "gzip"})
    error = failure(server.url("a.jpg"), SPEC.model_copy(update={"max_bytes": 10**6}))
    assert (error.code, error.attempts) == (ErrorCode.TOO_LARGE, 1)


def test_a_server_that_falls_silent_within_an_encoded_body_costs_the_timeout(server: ImageServer) -> None:
    stopped = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield gzip.compress(DATA)[:100]
        stopped.wait(20)

    server.manner = lambda _: Reply(200, pieces(), {"Content-Encoding": "gzip"})
    try:
        assert failure(server.url("a.jpg"), IMPATIENT).code is ErrorCode.TIMEOUT
    finally:
        stopped.set()


def test_the_slash_at_the_end_of_an_address_is_kept(server: ImageServer) -> None:
    server.manner = lambda _: Reply(200, DATA)
    fetch(f"{server.url('a.jpg')}/", SPEC)
    assert server.asked[-1].path.endswith("a.jpg/")
