"""Files of this machine, opened so that none of them can hold up the job."""

import os
import stat
from io import BufferedReader


def open_local(path: str) -> BufferedReader:
    """Opens a file for reading; what another program has to write first is refused, not waited for.

    Raises:
        ValueError: it is a pipe, a socket or a terminal, or there is nothing and it looks like a web address.
        OSError: it cannot be opened.
    """
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - it is returned
    except FileNotFoundError:
        if path.startswith("//"):
            raise ValueError("there is no such file, and a web address needs its scheme: https://…") from None
        raise
    if kind := _kind_that_waits(file.fileno()):
        file.close()
        raise ValueError(f"it is {kind}, not a file")
    return file


def read_local(path: str, start: int, size: int) -> bytes:
    """Reads at most `size` bytes of a file.

    `read` allocates all the bytes it is asked for, so it is asked for no more than the file has, and one, in
    case that the file has grown.

    Raises:
        ValueError: as `open_local` does.
        OSError: it cannot be read.
    """
    with open_local(path) as file:
        file_size = os.fstat(file.fileno()).st_size  # 0 for a device
        if start:
            file.seek(start)
        data: bytes | None = file.read(min(size, max(file_size - start, 0) + 1) if file_size else size)
    if data is None:
        raise ValueError("it is a device that has nothing to read now, not a file")
    return data


def assert_file(path: str) -> None:
    """Refuses a pipe, a socket and a device, before a library opens them and waits, or reads without an end.

    Nothing is said of a path where nothing is: that is the library's.

    Raises:
        ValueError: it is one.
        OSError: it cannot be looked at.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ValueError("it is a pipe, a socket or a device, not a file")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _kind_that_waits(descriptor: int) -> str:
    """What an open file is, where reading it may wait for another program; "" of any other."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a terminal" if os.isatty(descriptor) else ""
