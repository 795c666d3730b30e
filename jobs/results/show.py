"""`raylabel show`: a run's labels, objects and errors, and its photos with boxes drawn."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from jobs.results.draw import PICTURE, Drawn, contact_sheet, draw_images
from jobs.results.images import Selection, read_images
from jobs.results.sql import Database
from jobs.results.status import unfinished
from jobs.results.summary import summary_of
from jobs.results.terminal import render
from jobs.results.writing import new_files
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

SHEET = "contact-sheet.jpg"
"""The overview of pictures in their folder."""

MAX_NOTES = 5
"""Photos that could not be drawn of which each is said why."""


def show_run(output: str, selection: Selection, draw: Path | None = None, *, as_json: bool = False) -> None:
    """Prints a run's results; optionally draws its photos with boxes and labels.

    Args:
        output: the run directory.
        selection: the images to show.
        draw: folder for the pictures; None: draw none. See `draw_photos`.
        as_json: print an object for a program: docs/json.md.

    Raises:
        StorageError: there is no run at `output`, or the folder cannot be written.
        DamagedFileError: a file of the run is damaged.
        SpecError: the selection's condition is none that DuckDB understands.
    """
    directory = find_run(output)
    for error in read_shards(directory.newest())[1].values():
        raise error
    with Database({"": output}) as database:
        # drawn before anything is printed: who reads that may stop reading, as `head` does
        drawn = draw_photos(database, selection, draw) if draw else None
        summary = summary_of(database, selection)
    if as_json:
        print(summary.to_json(drawn.pictures if drawn else []))
        return
    console = Console(highlight=False)
    render(summary, console)
    notes = [f"note: {note}"] if (note := unfinished(directory)) else []
    notes += [f"note: {stray}" for stray in stray_tables(directory)]
    if drawn:
        notes += [*not_drawn(drawn), f"{counted(len(drawn.pictures), 'picture')} drawn: {draw}"]
    for note in notes:
        console.print(printable(note), markup=False, soft_wrap=True)


def draw_photos(database: Database, selection: Selection, folder: Path) -> Drawn:
    """Draws photos of a run and their overview, `SHEET`, into a folder; replaces an earlier drawing there.

    Sets the storage options of this process to those that the run keeps.

    Args:
        database: with the run, unnamed.
        selection: the images to draw.
        folder: for the pictures; made where it is missing.

    Raises:
        StorageError: the folder cannot be written, or holds anything but an earlier drawing.
        DamagedFileError: the run's record has a spec that is not one of this version.
        SpecError: the selection's condition is none that DuckDB understands.
    """
    images, read = read_images(database, selection, ["boxes", "tags"]), photo_reader(database.runs[""])
    with new_files(folder, _are_of_a_drawing) as work:
        drawn = draw_images(images, work, read)
        if drawn.pictures:
            contact_sheet(drawn.pictures, work / SHEET)
    return replace(drawn, pictures=[folder / picture.name for picture in drawn.pictures])


def _are_of_a_drawing(names: Collection[str]) -> bool:
    """Whether files of these names are what `draw_photos` writes, and nothing else."""
    return SHEET in names and all(name == SHEET or PICTURE.fullmatch(name) for name in names)


def photo_reader(directory: RunDirectory) -> Callable[[str], bytes]:
    """What reads the photos of a run by their URIs in its tables, as the run did.

    Sets the storage options of this process to those that the run keeps.

    Raises:
        DamagedFileError: the run's record has a spec that is not one of this version.
    """
    run = directory.record
    try:
        fetch, storage = FetchSpec.model_validate(run.spec["fetch"]), run.storage
    except ValidationError:
        raise damaged(RunRecord, directory.store, RUN, "its spec is not one of this version") from None
    configure_storage(storage)
    return lambda uri: _read(uri, fetch)


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
