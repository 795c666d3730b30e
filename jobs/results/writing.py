"""Files and folders for a user that are there whole, or not at all, and never in place of a run's own."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from schemas.exceptions import SpecError, StorageError
from schemas.ledger import RUN, SUCCESS, WORK, RunRecord
from schemas.tables import TABLES
from workers.printable import message_of
from workers.process.leftovers import delete_abandoned, temporary_folder

OWN = (RUN, SUCCESS, WORK, *TABLES)
"""What a run directory has of its own: nothing else is written there."""

_NEW = ".new."
"""What the name of a folder with new files begins with."""


@contextmanager
def whole_file(
    file: Path, endings: Sequence[str] = (), read: Iterable[RunRecord] = (), *, make_folder: bool = False
) -> Iterator[Path]:
    """A new name next to a file, whose content gets that name when the block ends without an exception.

    A file that has the name is replaced.

    Args:
        file: the name.
        endings: that a name may have, which is what tells an earlier result from other files; empty: any.
        read: records of the runs that the content is made of: files of their manifests are not replaced.
        make_folder: whether a folder that is missing is made.

    Raises:
        SpecError: the name has none of the endings.
        StorageError: there is no such folder, it cannot be written into, something else has the name, or a
            run keeps its own files there.
    """
    if endings and file.suffix.lower() not in endings:
        raise SpecError(f"cannot write {file}: allowed are files that end in {' or '.join(endings)}")
    with _storage_errors(file):
        _assert_not_of_a_run(file)
        _assert_no_manifest(file, read)
        target = Path(os.path.realpath(file))  # a link stays one
        if make_folder:
            target.parent.mkdir(parents=True, exist_ok=True)
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
        StorageError: there is something at that name other than an empty folder, it cannot be written, or a
            run keeps its own files there.
    """
    with _storage_errors(folder):
        _assert_not_of_a_run(folder)
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(f"{folder} exists; name a folder that does not, or an empty one")
        target = Path(os.path.realpath(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(f".{target.name[:100]}.", target.parent) as work:
            (work / "folder").mkdir()
            yield work / "folder"
            os.replace(work / "folder", target)


@contextmanager
def new_files(folder: Path, is_earlier: Callable[[Collection[str]], bool]) -> Iterator[Path]:
    """A new empty folder, whose files take the place of those in another when the block ends well.

    Args:
        folder: the other, made where it is missing.
        is_earlier: whether names in it are those of an earlier result; those of nothing else are replaced.

    Raises:
        StorageError: the folder holds something else, it cannot be written, or a run keeps its own files
            there.
    """
    with _storage_errors(folder):
        _assert_not_of_a_run(folder)
        folder.mkdir(parents=True, exist_ok=True)
        delete_abandoned(_NEW, folder)
        before = os.listdir(folder)
        if before and not is_earlier(before):
            raise StorageError(
                f"{folder} holds other files, such as {min(before)}; name a folder that does not exist, an "
                "empty one, or one with an earlier result"
            )
        with temporary_folder(_NEW, folder) as work:
            yield work
            for name in before:
                (folder / name).unlink()
            for file in list(work.iterdir()):
                os.replace(file, folder / file.name)


def _assert_not_of_a_run(name: Path) -> None:
    """Refuses a name among the files that a run keeps, of whichever run."""
    for path in (Path(os.path.abspath(name)), Path(os.path.realpath(name))):
        for folder in path.parents:
            own = path.relative_to(folder).parts[0]
            if own in OWN and (folder / RUN).exists():
                raise StorageError(
                    f"cannot write {name}: {own} is a part of the run at {folder}; name a place outside of it"
                )


def _assert_no_manifest(file: Path, runs: Iterable[RunRecord]) -> None:
    """Refuses a file that a manifest was made of."""
    target = os.path.realpath(file)
    for run in runs:
        if any(target == os.path.realpath(source.uri) for source in run.manifest):
            raise StorageError(f"cannot write {file}: it is a manifest of the run; name another file")


@contextmanager
def _storage_errors(name: Path) -> Iterator[None]:
    """Makes a StorageError of what writing at a name raises."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {name}: {message_of(error)}") from error
