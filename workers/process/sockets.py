"""Folders whose paths are short enough for sockets, which the kernel limits to 107 bytes."""

import os
import tempfile

MAX_PATH = 107
"""Bytes of a Unix socket's path (`sun_path`, less the byte that ends it)."""

SHORT = ("/tmp", "/var/tmp", "/dev/shm")
"""What is taken where the folder for temporary files has a long path, as on clusters and in CI."""


def short_folder(below: int, *wanted: str) -> str:
    """The first folder that can be written to and has room for a socket's path below it.

    Args:
        below: bytes of the path below the folder, its slash included.
        wanted: folders to prefer; none: the one for temporary files.

    Raises:
        OSError: there is none.
    """
    folders = [*(wanted or (tempfile.gettempdir(),)), *SHORT]
    for folder in folders:
        if len(os.fsencode(folder)) + below <= MAX_PATH and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise OSError(
        f"no folder for sockets: none of {', '.join(folders)} is short enough and can be written to"
    )
