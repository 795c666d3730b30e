import socket
import time
from concurrent import futures

import grpc
import pytest

from jobs.cluster import connect
from jobs.cluster.connect import assert_reachable
from schemas.exceptions import SpecError


def test_an_address_that_accepts_and_says_nothing_is_refused_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert connect.REACHABLE_TIMEOUT_S + connect.ANSWER_TIMEOUT_S <= 30
    monkeypatch.setattr(connect, "ANSWER_TIMEOUT_S", 1)
    begin = time.monotonic()
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(
            TimeoutError, match="it accepts connections, but nothing there answers as Ray does in 1 s"
        ),
    ):
        assert_reachable(f"127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - begin < 15


def test_a_server_of_something_else_is_refused_at_once() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(TimeoutError, match="nothing there answers as Ray does"):
            assert_reachable(f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(ConnectionRefusedError):
        assert_reachable(address)
    assert_reachable("local")  # nothing to reach


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("ray://head:10001", "found ray://head:10001, an address of Ray's client"),
        ("http://head:8265", "found http://head:8265, the address of a dashboard"),
        ("https://me:secret@head/ray?token=secret", "found https://head/ray, the address of a dashboard"),
        ("anyscale://head", "found anyscale://head, of no kind that is known here"),
    ],
)
def test_an_address_of_another_kind_is_refused_with_the_right_one(
    address: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SpecError) as raised, connect.connect(None):
        pass
    message = str(raised.value)
    assert found in message
    assert "allowed: head:6379" in message
    assert "`raylabel submit --address http://head:8265`" in message
    assert "secret" not in message
