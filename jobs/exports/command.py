"""`raylabel export`: a run's results as files of other tools."""

import csv
import importlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from jobs.exports.base import PARTS, Export, Format, Sample
from jobs.exports.classes import Classes, classes_of, read_class_map, split_names
from jobs.exports.photos import copy_photos
from jobs.exports.registry import FORMATS, format_of
from jobs.results.datasets import open_table
from jobs.results.images import ATTACHED, NESTED, Selection, assert_answers, read_images
from jobs.results.plain import dump_json
from jobs.results.show import photo_reader
from jobs.results.sql import Database
from jobs.results.status import unfinished
from jobs.results.writing import whole_file, whole_folder
from schemas.exceptions import SpecError, StorageError
from schemas.tables import LABELS
from schemas.tasks import OBJECT_EMBEDDINGS
from schemas.words import counted
from workers.ledger.directory import RunDirectory
from workers.printable import printable
from workers.process.streams import print_error
from workers.storage.uris import scheme_of

PROGRESS_S = 10
"""Seconds between two lines of progress."""

MAX_LEFT_OUT = 5
"""Images that were left out of which each is said why."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is exported of a run.

    Attributes:
        where: a condition in SQL on a row of `labels`; None: all images.
        limit: the first so many images; None: all.
        min_score: the least score of a box; None: all boxes.
        classes: names of the detector's classes whose boxes are exported, with commas between or one by one;
            empty: all.
        class_map: a file with new names of classes; see `read_class_map`.
        copy_images: whether photos are copied next to the annotations.
    """

    where: str | None = None
    limit: int | None = None
    min_score: float | None = None
    classes: tuple[str, ...] = ()
    class_map: Path | None = None
    copy_images: bool = False


_LEFT_OUT = "left out: "
"""How a note begins on an image that is not in the export."""

EVERYTHING = ExportOptions()


@dataclass(slots=True)
class Exported:
    """What was written.

    Attributes:
        format: its name.
        into: the folder or the file.
        images: in it.
        objects: boxes in it.
        classes: of objects, in the order of their ids.
        left_out: images of the selection that are not in it, as their photos could not be copied.
        notes: what is to be known of it.
    """

    format: str
    into: str
    images: int = 0
    objects: int = 0
    classes: tuple[str, ...] = ()
    left_out: int = 0
    notes: list[str] = field(default_factory=list)


def list_formats(*, as_json: bool = False) -> None:
    """Prints the formats, a line each."""
    if as_json:
        keys = ("name", "about", "keeps")
        print(dump_json([{key: _plain(getattr(it, key)) for key in keys} for it in FORMATS.values()]))
        return
    for format_ in FORMATS.values():
        print(f"{format_.name:<13} {format_.about}")


def _plain(value: str | frozenset[str]) -> str | list[str]:
    return value if isinstance(value, str) else [part for part in PARTS if part in value]


def export_command(
    output: str, format_: str, into: Path, options: ExportOptions, *, as_json: bool = False
) -> None:
    """Exports a run, and says what was written and what was not; raises as `export_run` does."""
    done = export_run(output, format_, into, options)
    if as_json:
        print(dump_json(asdict(done)))
        return
    for note in done.notes:
        print_error(f"note: {note}")
    objects = f", {counted(done.objects, 'object')}" if done.classes else ""
    print(printable(f"{counted(done.images, 'image')}{objects} exported: {done.into}"))


def export_run(output: str, format_: str, into: Path, options: ExportOptions = EVERYTHING) -> Exported:
    """Writes a run's results in a format.

    Args:
        output: the run directory; a path or any fsspec URL.
        format_: the name of the format.
        into: the folder to write, or the file of a format that is one; nothing, or an empty folder, may be
            there.
        options: what of the run.

    Raises:
        SpecError: the format or an option is none, or does not fit the run.
        StorageError: there is no run, or `into` exists or cannot be written.
        DamagedFileError: a file of the run is damaged.
    """
    form = format_of(format_)
    _assert_installed(form)
    if scheme_of(str(into)):
        raise SpecError(f"--into {into}: allowed is a name on a disk of this machine; copy it from there")
    with Database({"": output}) as database, ExitStack() as stack:
        run = database.runs[""]
        _assert_fits(form, run, options)
        classes = _classes(run, options)
        selection = Selection(where=options.where, limit=options.limit)
        assert_answers(database, selection)
        done = Exported(form.name, str(into), classes=classes.names)
        total = _count(database, selection, "count(*)")
        done.notes += _notes(form, database, selection, options)
        if options.where and not total:
            images = counted(_count(database, Selection(), "count(*)"), "image")
            done.notes.append(f"the condition is true for none of {images}")
        path = stack.enter_context(_new_file(into) if form.is_file else whole_folder(into))
        samples = _samples(form, database, selection, options, classes)
        if options.copy_images:
            samples = _copied(samples, run, path, form, done)
        if form.names_files:
            samples = _listed(samples, path)
        samples = _counted(samples, done, total)
        carried = _carried(output)
        form.write(Export(run, classes.names, samples, carried, into, options.copy_images), path)
        if done.left_out and not done.images:
            first = next(note for note in done.notes if note.startswith(_LEFT_OUT))
            raise StorageError(f"none of {counted(done.left_out, 'photo')} could be copied; {first}")
    return done


@contextmanager
def _new_file(file: Path) -> Iterator[Path]:
    """A new name for a file at whose own name nothing may be; see `whole_file`."""
    if file.exists():
        raise StorageError(f"{file} exists; --into names a new file")
    with whole_file(file, make_folder=True) as path:
        yield path


def _assert_installed(form: Format) -> None:
    """Refuses a format whose package is missing."""
    if form.needs is None:
        return
    package, advice = form.needs
    try:
        importlib.import_module(package)
    except ImportError:
        raise SpecError(f"--format {form.name} needs a package that is not installed: {advice}") from None


def _assert_fits(form: Format, run: RunDirectory, options: ExportOptions) -> None:
    """Refuses what would be wrong or empty."""
    if options.copy_images and form.photos is None:
        takers = ", ".join(it.name for it in FORMATS.values() if it.photos)
        raise SpecError(f"--format {form.name} takes no --copy-images; those that do: {takers}")
    if "detector" in run.record.models:
        return
    if form.needs_detector:
        others = ", ".join(it.name for it in FORMATS.values() if not it.needs_detector)
        raise SpecError(
            f"--format {form.name} is about objects, and the run had no detector; without one: {others}"
        )
    if options.classes or options.class_map or options.min_score is not None:
        raise SpecError(
            "--classes, --class-map and --min-score are about objects, and the run had no detector"
        )


def _classes(run: RunDirectory, options: ExportOptions) -> Classes:
    if "detector" not in run.record.models:
        return Classes((), {})
    categories = run.record.models["detector"].classes
    new_names = read_class_map(options.class_map) if options.class_map else None
    return classes_of(categories, split_names(options.classes, categories), new_names)


def _samples(
    form: Format, database: Database, selection: Selection, options: ExportOptions, classes: Classes
) -> Iterator[Sample]:
    """The images that are exported, with what the format keeps of them."""
    attached = [table for table in ATTACHED if table in form.keeps]
    boxes_where = "true" if options.min_score is None else f"score >= {options.min_score!r}::FLOAT"
    folder = form.photos if options.copy_images else None
    without = [column for column in NESTED if column == "class_counts" or "labels" not in form.keeps]
    for image in read_images(database, selection, attached, boxes_where, without):
        boxes = classes.renamed(image.boxes)
        objects = {None, *(box.object_index for box in boxes)}
        tags = tuple(tag for tag in image.tags if tag.object_index in objects)
        yield Sample(replace(image, boxes=boxes, tags=tags), folder)


def _copied(
    samples: Iterator[Sample], run: RunDirectory, path: Path, form: Format, done: Exported
) -> Iterator[Sample]:
    """The images whose photo was copied; says of the others why it was not."""

    def left_out(reason: str) -> None:
        done.left_out += 1
        if done.left_out <= MAX_LEFT_OUT:
            done.notes.append(f"{_LEFT_OUT}{reason}")

    (path / str(form.photos)).mkdir(parents=True)
    max_pixels = int(run.record.spec["decode"]["max_pixels"])
    yield from copy_photos(samples, path, photo_reader(run), max_pixels, left_out)
    if (more := done.left_out - MAX_LEFT_OUT) > 0:
        done.notes.append(f"{_LEFT_OUT}{more:,} more")


def _listed(samples: Iterator[Sample], folder: Path) -> Iterator[Sample]:
    """The images, whose files are listed in `images.csv` with what leads from their name to the photo."""
    with (folder / "images.csv").open("x", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file_name", "manifest_index", "image_id", "key", "uri"])
        for sample in samples:
            image = sample.image
            rows.writerow([sample.name, image.manifest_index, image.image_id, image.key, image.uri])
            yield sample


def _counted(samples: Iterator[Sample], done: Exported, total: int) -> Iterator[Sample]:
    """The images, counted; on long work with a line of progress now and then."""
    last = time.monotonic()
    for sample in samples:
        done.images += 1
        done.objects += len(sample.image.boxes)
        if time.monotonic() - last >= PROGRESS_S:
            last = time.monotonic()
            print(f"{done.images:,} of {counted(total, 'image')}", file=sys.stderr, flush=True)
        yield sample


def _count(database: Database, selection: Selection, what: str) -> int:
    """A count of the images of a selection."""
    query = selection.query()
    number = database.row(f"SELECT {what} AS n FROM labels JOIN ({query}) USING (manifest_index)")["n"]
    return int(number or 0)


def _carried(output: str) -> pa.Schema:
    """The manifest's own columns in the labels table, and those of `facts`; text as plain strings."""
    schema = open_table(output, "labels").schema
    own = [column for column in schema if column.name not in LABELS.names]
    return pa.schema(
        column.with_type(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in own
    )


def _notes(form: Format, database: Database, selection: Selection, options: ExportOptions) -> list[str]:
    """What is to be known of an export: what the format does not hold, above all."""
    run = database.runs[""]
    notes = [note] if (note := unfinished(run)) else []
    lost = [name for part, name in PARTS.items() if part in _parts(run) - form.keeps]
    if failed := database.row("SELECT count(*) AS n FROM errors")["n"]:
        lost.append(counted(failed, "failed image"))
    if lost:
        notes.append(f"not in {form.name}: {', '.join(lost)}")
    if form.note:
        notes.append(form.note)
    if form.names_files and not options.copy_images:
        notes.append(
            "photos are not copied: images.csv has the photo of each name; --copy-images copies them"
        )
    if form.reads_local and not options.copy_images:
        notes += _far(form, _count(database, selection, "count_if(NOT starts_with(uri, '/'))"))
    if {"boxes"} <= form.keeps & _parts(run) and not options.copy_images:
        notes += _turned(form, _count(database, selection, "count_if(exif_orientation != 1)"))
    if form.by_key and (twice := _count(database, selection, "count(*) - count(DISTINCT key)")):
        notes.append(
            f"{counted(twice, 'image has', 'images have')} the key of another one (the same URI): of those "
            "with one key the last stays"
        )
    return notes


def _far(form: Format, photos: int) -> list[str]:
    """What is to be known of photos that are not on a local disk, or within a file there, and not copied."""
    if not photos:
        return []
    are = counted(photos, "photo is no file", "photos are no files")
    return [f"{are} on a disk of this machine, and {form.name} reads no others; --copy-images copies them"]


def _turned(form: Format, photos: int) -> list[str]:
    """What is to be known of photos that have a turn and are not copied."""
    if not photos:
        return []
    advice = "; --copy-images writes it so" if form.photos else ""
    return [
        f"{counted(photos, 'photo has', 'photos have')} an EXIF turn: boxes are of the upright photo, and "
        f"wrong for a reader that ignores EXIF{advice}"
    ]


def _parts(run: RunDirectory) -> set[str]:
    """What a run has of an image; see `PARTS`."""
    models = Counter(name.partition(".")[0] for name in run.record.models)
    parts: set[str] = {name for name in ("tags", "embeddings", OBJECT_EMBEDDINGS) if name in run.tables.names}
    if models["detector"]:
        parts |= {"boxes", "scores"}
    if models["classifier"]:
        parts.add("labels")
    if run.record.manifest_columns or run.record.facts:
        parts.add("carried")
    return parts
