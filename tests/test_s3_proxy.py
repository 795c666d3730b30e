"""The proxy itself: what goes through it arrives, and whom it kills is dead at that moment."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from tests.s3 import S3Server
from tests.s3_proxy import Exchange, proxying

WRITER = """
import sys
from workers.storage.store import Store
store = Store(sys.argv[1])
store.write("first", b"1" * 100_000)
store.write("second", b"2" * 100_000)
store.write("third", b"3" * 100_000)
"""


def write_three(server: S3Server, url: str) -> int:
    """Another process that writes three objects; its exit code."""
    command = [sys.executable, "-c", WRITER, url]
    return subprocess.run(command, env={**os.environ, **server.environment}, check=False).returncode


def at(key: str) -> Callable[[Exchange], None]:
    """A hook that kills whoever puts a key."""

    def hook(exchange: Exchange) -> None:
        if exchange.method == "PUT" and exchange.path.endswith(f"/{key}"):
            exchange.kill_client()

    return hook


def test_what_goes_through_the_proxy_arrives(s3: S3Server) -> None:
    seen: list[tuple[str, list[str], int | None]] = []

    def after(exchange: Exchange) -> None:
        seen.append((exchange.method, exchange.paths, exchange.status))

    with proxying(s3, after=after) as proxied:
        files, bucket = proxied.files(), proxied.new_bucket()
        data = os.urandom(3_000_000)
        files.pipe_file(f"{bucket}/a b/ü+%.bin", data)
        files.pipe_file(f"{bucket}/a b/empty", b"")
        assert files.cat_file(f"{bucket}/a b/ü+%.bin") == data
        assert files.cat_file(f"{bucket}/a b/ü+%.bin", start=10, end=20) == data[10:20]
        assert files.find(bucket) == [f"{bucket}/a b/empty", f"{bucket}/a b/ü+%.bin"]
        assert files.size(f"{bucket}/a b/ü+%.bin") == len(data)
        assert not files.exists(f"{bucket}/nothing")
        files.pipe_file(f"{bucket}/once", b"1", mode="create")
        with pytest.raises(OSError, match=r"PreconditionFailed|pre-conditions"):
            files.pipe_file(f"{bucket}/once", b"2", mode="create")
        assert files.cat_file(f"{bucket}/once") == b"1"
        files.rm([f"{bucket}/once", f"{bucket}/a b/empty"])
        assert s3.files().find(bucket) == [f"{bucket}/a b/ü+%.bin"]
    assert ("PUT", [f"{bucket}/once"], 412) in seen
    deleted = [path for method, paths, _ in seen if method in ("POST", "DELETE") for path in paths]
    assert sorted(deleted) == [f"{bucket}/a b/empty", f"{bucket}/once"]


def test_many_connections_are_served_at_once_and_none_is_left(s3: S3Server) -> None:
    before = threading.active_count()
    together = threading.Barrier(12, timeout=60)

    def meet(exchange: Exchange) -> None:
        if exchange.method == "PUT" and "together" in exchange.path:
            together.wait()

    with proxying(s3, before=meet) as proxied:
        bucket = proxied.new_bucket()
        files = [proxied.files() for _ in range(12)]
        threads = [
            threading.Thread(target=each.pipe_file, args=(f"{bucket}/together/{n}", b"x"))
            for n, each in enumerate(files)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(s3.files().find(bucket)) == 12
    assert threading.active_count() <= before + 1  # fsspec's own


@pytest.mark.parametrize(
    ("moment", "there"), [("before", ["first"]), ("halfway", ["first"]), ("after", ["first", "second"])]
)
def test_a_client_is_killed_before_amid_and_after_its_request(
    s3: S3Server, moment: str, there: list[str]
) -> None:
    bucket = s3.new_bucket()
    hooks = {moment: at("second")}
    with proxying(s3, **hooks) as proxied:
        assert write_three(proxied, f"s3://{bucket}") == -signal.SIGKILL
    files = s3.files()
    assert files.find(bucket) == [f"{bucket}/{key}" for key in there]
    assert {files.size(path) for path in files.find(bucket)} == {100_000}


def test_a_client_whose_answer_was_lost_asks_again(s3: S3Server) -> None:
    bucket, lost = s3.new_bucket(), list[Exchange]()

    def lose(exchange: Exchange) -> None:
        if exchange.method == "PUT" and exchange.path.endswith("/second") and not lost:
            lost.append(exchange)
            exchange.drop()

    with proxying(s3, after=lose) as proxied:
        assert write_three(proxied, f"s3://{bucket}") == 0
    assert len(lost) == 1
    assert len(s3.files().find(bucket)) == 3
