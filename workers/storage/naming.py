"""Giving a finished file on a local disk its name only where the name is free, in one step."""

import ctypes
import errno
import functools
import os
import tempfile
from pathlib import Path
from typing import Any

AT_FDCWD, RENAME_NOREPLACE = -100, 1
"""Arguments of `renameat2` (Linux): paths are from the current folder; a name that is taken is refused."""


def name_new(temporary: str, path: str) -> bool:
    """Gives a finished file a name; False if the name is taken.

    By a hard link, or where the disk has none (FAT, SMB, buckets mounted by FUSE, some binds of Docker) by a
    rename that refuses. A plain rename would overwrite.

    Raises:
        OSError: the disk can do neither, or the file cannot get that name for another reason.
    """
    try:
        _link(temporary, path)
    except FileExistsError:
        return False
    return True


def names_once(folder: str) -> bool:
    """Whether `name_new` works in a folder, tried with two files that are gone afterwards.

    Raises:
        OSError: nothing can be written there.
    """
    with tempfile.TemporaryDirectory(prefix=".raylabel-", dir=folder) as inner:
        one, two, name = (f"{inner}/{file}" for file in ("one", "two", "name"))
        for file in (one, two):
            Path(file).touch()
        try:
            return name_new(one, name) and not name_new(two, name)
        except OSError:
            return False


def _link(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOSPC, errno.EROFS, errno.EACCES):
            raise
        _rename(temporary, path)


def _rename(temporary: str, path: str) -> None:
    """Renames a file unless the name is taken.

    Raises:
        OSError: the name is taken, or the disk cannot.
    """
    if _renameat2()(AT_FDCWD, os.fsencode(temporary), AT_FDCWD, os.fsencode(path), RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


@functools.cache
def _renameat2() -> Any:
    """The C library's function (glibc 2.28 and later, musl 1.2.5)."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function
