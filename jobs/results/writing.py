"""Files and folders for a user that are there whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.exceptions import StorageError
from workers.printable import message_of
from workers.process.leftovers import temporary_folder


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A new name next to a file, whose content gets that name when the block ends without an exception.

    Raises:
        StorageError: there is no such folder, it cannot be written into, or something else has the name.
    """
    with _storage_errors(file):
        target = Path(os.path.realpath(file))  # a link stays one
        if not target.parent.is_dir():
            raise StorageError(f"cannot write {file}: there is no folder {target.parent}")
        if target.exists() and not target.is_file():
            raise StorageError(f"cannot write {file}: it exists, and is no file")
        with temporary_folder(f".{target.name[:100]}.", target.parent) as folder:
            yield folder / "file"
            os.replace(folder / "file", target)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new empty folder, which gets the name of another when the block ends without an exception.

    Raises:
        StorageError: there is something at that name other than an empty folder, or it cannot be written.
    """
    with _storage_errors(folder):
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(f"{folder} exists; name a folder that does not, or an empty one")
        target = Path(os.path.realpath(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(f".{target.name[:100]}.", target.parent) as work:
            (work / "folder").mkdir()
            yield work / "folder"
            os.replace(work / "folder", target)


@contextmanager
def _storage_errors(name: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {name}: {message_of(error)}") from error
