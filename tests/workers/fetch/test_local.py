"""Local files that no reader may wait for."""

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from schemas.spec import FetchSpec
from workers.fetch.locate import locate, read_image
from workers.fetch.patience import within

SPEC = FetchSpec(attempts=1, timeout_s=20, max_bytes=1000)


def failure(uri: str) -> ImageError:
    """The error of an image that has to come in time."""
    with pytest.raises(ImageError) as failed:
        within(10, lambda: read_image(locate(uri, ""), SPEC))
    return failed.value


def a_pipe(path: Path, _: ExitStack) -> str:
    os.mkfifo(path)
    return str(path)


def a_link_to_a_pipe(path: Path, _: ExitStack) -> str:
    os.mkfifo(path.with_suffix(".pipe"))
    path.symlink_to(path.with_suffix(".pipe"))
    return str(path)


def a_socket(path: Path, ended: ExitStack) -> str:
    listener = ended.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(path))
    return str(path)


def a_terminal(_: Path, ended: ExitStack) -> str:
    for descriptor in (ends := os.openpty()):
        ended.callback(os.close, descriptor)
    return os.ttyname(ends[1])


@pytest.mark.parametrize("kind", [a_pipe, a_link_to_a_pipe, a_socket, a_terminal])
@pytest.mark.parametrize(
    "uri", ["{}", "file://{}", "tar://a.jpg::{}", "zip://a.jpg::{}", "parquet://image/0::{}"]
)
def test_what_another_program_has_to_write_first_is_refused(
    tmp_path: Path, kind: Callable[[Path, ExitStack], str], uri: str
) -> None:
    with ExitStack() as ended:
        path = kind(tmp_path / "a.tar", ended)
        assert failure(uri.format(path)).code is ErrorCode.UNSUPPORTED


def test_the_message_says_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert failure(f"{tmp_path}/a.jpg").message == f"{tmp_path}/a.jpg: ValueError: it is a pipe, not a file"


@pytest.mark.parametrize(
    ("device", "code"), [("/dev/zero", ErrorCode.TOO_LARGE), ("/dev/null", ErrorCode.EMPTY)]
)
def test_a_device_is_read_within_bounds(device: str, code: ErrorCode) -> None:
    assert failure(device).code is code


@pytest.mark.parametrize("uri", ["zip://a.jpg::/dev/zero", "parquet://image/0::/dev/zero"])
def test_a_device_is_no_archive(uri: str) -> None:
    assert failure(uri).code is ErrorCode.UNSUPPORTED
