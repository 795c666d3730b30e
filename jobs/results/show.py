"""`raylabel show`: a run's labels, objects and errors, and its photos with boxes drawn."""

from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from jobs.results.draw import Drawn, contact_sheet, draw_run
from jobs.results.summary import summarize
from jobs.results.terminal import render
from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from schemas.ledger import RUN, RunRecord
from schemas.spec import FetchSpec
from schemas.words import counted
from workers.fetch.locate import location_of, read_image
from workers.ledger.damage import damaged
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import find_run
from workers.ledger.state import read_shards, stray_tables
from workers.printable import printable
from workers.storage.options import configure_storage

MAX_NOTES = 5
"""Photos that could not be drawn of which each is said why."""


def show_run(output: str, limit: int, draw: Path | None) -> None:
    """Prints a run's results; optionally draws its photos with boxes and labels.

    Args:
        output: the run directory.
        limit: images to show, in manifest order.
        draw: folder for the pictures and their overview `contact-sheet.jpg`; None: draw none.

    Raises:
        StorageError: there is no run at `output`.
        DamagedFileError: a file of the run is damaged.
    """
    directory = find_run(output)
    console = Console(highlight=False)
    for error in read_shards(directory.newest())[1].values():
        raise error
    # drawn before anything is printed: who reads that may stop reading, as `head` does
    notes = _draw(directory, output, limit, draw) if draw else []
    render(summarize(output, limit), console)
    notes = [f"note: {stray}" for stray in stray_tables(directory)] + notes
    for note in notes:
        console.print(printable(note), markup=False, soft_wrap=True)


def _draw(directory: RunDirectory, output: str, limit: int, folder: Path) -> list[str]:
    """Draws the photos of a run into a folder; returns what to tell of it, a line each."""
    drawn = draw_photos(directory, output, limit, folder)
    return [*not_drawn(drawn), f"{counted(len(drawn.pictures), 'picture')} drawn: {folder}"]


def draw_photos(directory: RunDirectory, output: str, limit: int | None, folder: Path) -> Drawn:
    """Draws the photos of a run and their overview, `contact-sheet.jpg`, into a folder.

    Sets the storage options of this process to those that the run keeps.

    Args:
        directory: of the run.
        output: the same as a path or URL.
        limit: number of images, in manifest order; None: all.
        folder: for the pictures; made where it is missing.

    Raises:
        DamagedFileError: the run's record has a spec that is not one of this version.
    """
    run = directory.record
    try:
        fetch, storage = FetchSpec.model_validate(run.spec["fetch"]), run.storage
    except ValidationError:
        raise damaged(RunRecord, directory.store, RUN, "its spec is not one of this version") from None
    configure_storage(storage)
    drawn = draw_run(output, folder, lambda uri: _read(uri, fetch), limit)
    if drawn.pictures:
        contact_sheet(drawn.pictures, folder / "contact-sheet.jpg")
    return drawn


def not_drawn(drawn: Drawn) -> list[str]:
    """What to tell of photos that could not be drawn, a line each."""
    lines = [f"not drawn: {note}" for note in drawn.skipped[:MAX_NOTES]]
    if (more := len(drawn.skipped) - MAX_NOTES) > 0:
        lines.append(f"not drawn: {more:,} more")
    return lines


def _read(uri: str, fetch: FetchSpec) -> bytes:
    """The bytes of an image of the tables.

    Raises:
        ImageError: it cannot be read.
        FileNotFoundError: it is gone.
    """
    try:
        return read_image(location_of(uri), fetch)
    except ImageError as error:
        if error.code is ErrorCode.NOT_FOUND:
            raise FileNotFoundError("it is not there any more") from None
        raise
