"""Temporary folders that are gone when this process has ended, also where it ends at once."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_folders: set[Path] = set()
"""Those that are there now."""


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Makes a folder for the length of a block.

    Args:
        prefix: what its name begins with.
        parent: the folder to make it in; None: that for temporary files.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _folders.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _folders.discard(folder)


def delete_leftovers() -> None:
    """Deletes the folders of blocks that will not end: called right before `os._exit`."""
    for folder in list(_folders):
        shutil.rmtree(folder, ignore_errors=True)
