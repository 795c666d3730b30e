"""Files and folders for a user that are there whole, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.exceptions import StorageError
from workers.printable import message_of


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A new name next to a file, whose content gets that name when the block ends without an exception.

    Raises:
        StorageError: there is no such folder, or it cannot be written into.
    """
    if not file.parent.is_dir():
        raise StorageError(f"cannot write {file}: there is no folder {file.parent}")
    with _storage_errors(file), _work_folder(file) as folder:
        yield folder / "file"
        os.replace(folder / "file", file)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new empty folder, which gets the name of another when the block ends without an exception.

    Raises:
        StorageError: there is something at that name other than an empty folder, or it cannot be written.
    """
    with _storage_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(f"{folder} exists; name a folder that does not, or an empty one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _work_folder(folder) as work:
            (work / "folder").mkdir()
            yield work / "folder"
            os.replace(work / "folder", folder)


@contextmanager
def _work_folder(name: Path) -> Iterator[Path]:
    """A folder on the same disk as a name, deleted when the block ends."""
    work = Path(tempfile.mkdtemp(prefix=f".{name.name[:100]}.", dir=name.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _storage_errors(name: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {name}: {message_of(error)}") from error
