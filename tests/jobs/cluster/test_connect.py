import socket
import time
from concurrent import futures

import grpc
import pytest

from jobs.cluster import connect
from jobs.cluster.connect import assert_reachable


@pytest.mark.parametrize("kind", ["", "ray://"])
def test_an_address_that_accepts_and_says_nothing_is_refused_in_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
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
        assert_reachable(f"{kind}127.0.0.1:{silent.getsockname()[1]}")
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
