"""Temporary folders that are gone when this process has ended, also where it ends at once.

Where it is killed they stay. Their names say whose they are: who makes such a folder next deletes them.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from workers.machine import started_at, this_machine

_folders: set[Path] = set()
"""Those that are there now."""


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Makes a folder for the length of a block; see also `delete_abandoned`.

    Args:
        prefix: what its name begins with.
        parent: the folder to make it in; None: that for temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    delete_abandoned(prefix, parent)
    pid = os.getpid()
    owner = f"{_machine()}-{pid}-{started_at(pid)}"
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{owner}.", dir=parent))
    _folders.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _folders.discard(folder)


def delete_abandoned(prefix: str, parent: Path) -> None:
    """Deletes the folders of processes that were killed on this machine; those of others stay.

    Args:
        prefix: what their names begin with.
        parent: the folder that they are in; it may not be there.
    """
    names = os.listdir(parent) if parent.is_dir() else []
    for name in names:
        owner = re.fullmatch(rf"{re.escape(prefix)}(\w+)-(\d+)-(\d+)\.\w+", name)
        if owner and owner[1] == _machine() and started_at(int(owner[2])) != int(owner[3]):
            shutil.rmtree(parent / name, ignore_errors=True)


def delete_leftovers() -> None:
    """Deletes the folders of blocks that will not end: called right before `os._exit`."""
    for folder in list(_folders):
        shutil.rmtree(folder, ignore_errors=True)


def _machine() -> str:
    return sha256(this_machine().encode()).hexdigest()[:8]
