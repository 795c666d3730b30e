"""`raylabel show`: a run's labels, objects and errors, and its photos with boxes drawn."""

from pathlib import Path

from rich.console import Console

from jobs.results.draw import contact_sheet, draw_run
from jobs.results.summary import summarize
from jobs.results.terminal import render
from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from schemas.spec import FetchSpec
from workers.fetch.locate import locate, read_image
from workers.ledger.runs import find_run
from workers.printable import printable
from workers.storage.options import configure_storage


def show_run(output: str, limit: int, draw: Path | None) -> None:
    """Prints a run's results; optionally draws its photos with boxes and labels.

    Args:
        output: the run directory.
        limit: images to show, in manifest order.
        draw: folder for the pictures and their overview `contact-sheet.jpg`; None: draw none.

    Raises:
        StorageError: there is no run at `output`.
    """
    run = find_run(output).record
    console = Console(highlight=False)
    render(summarize(output, limit), console)
    if draw:
        configure_storage(run.storage)
        folders = [file.uri.rpartition("/")[0] for file in run.manifest]
        bases = dict.fromkeys([run.spec["manifest"]["base"] or folders[0], *folders])
        fetch = FetchSpec.model_validate(run.spec["fetch"])
        drawn = draw_run(output, draw, lambda uri: _read(uri, list(bases), fetch), limit)
        for note in drawn.skipped:
            console.print(printable(f"not drawn: {note}"), markup=False, soft_wrap=True)
        if drawn.pictures:
            contact_sheet(drawn.pictures, draw / "contact-sheet.jpg")
        console.print(
            printable(f"{len(drawn.pictures)} pictures drawn: {draw}"), markup=False, soft_wrap=True
        )


def _read(uri: str, bases: list[str], fetch: FetchSpec) -> bytes:
    """The bytes of an image; a relative URI is tried from each base in turn.

    Raises:
        ImageError: it cannot be read.
        FileNotFoundError: it is at none of the bases.
    """
    for base in bases:
        try:
            return read_image(locate(uri, base), fetch)
        except ImageError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
    raise FileNotFoundError(uri)
