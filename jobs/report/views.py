"""What a report shows of its values: names, words and pictures for the template."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from markupsafe import Markup

from jobs.report.charts import cut
from jobs.report.examples import Example
from jobs.report.facts import Facts
from jobs.report.found import Found
from jobs.report.pictures import Picture
from jobs.results.draw import class_colour
from jobs.results.images import ImageRow
from jobs.results.plain import dump_json
from jobs.results.text import scored, short_uris
from schemas.identity import settings_of_rows
from schemas.ledger import RunRecord
from schemas.models import ResolvedModel
from schemas.words import counted
from workers.printable import one_line

NAME_WIDTH, MAX_LETTERS = 28, 60
"""Letters of a file's name below its picture, and at most of the name of a label or class there."""

MAX_CLASSES = 6
"""Classes of objects that are named below a picture, the most frequent first."""

MAX_FILES = 5
"""Files of the manifest that are named one by one."""


def not_shown_in_words(reasons: Mapping[str, int], pictures: int) -> str:
    """How many of so many pictures are not there, and why; "" where all are."""
    if not reasons:
        return ""
    why = "; ".join(f"{number:,}: {one_line(reason)}" for reason, number in reasons.items())
    return f"{sum(reasons.values()):,} of {counted(pictures, 'picture')} not shown ({why})"


def tiles(found: Found) -> Iterator[tuple[str, str, str]]:
    """The sums: number, noun and CSS class."""
    summary = found.facts.summary
    yield *_tile(summary.labelled + summary.failed, "image"), ""
    yield f"{summary.labelled:,}", "labelled", ""
    yield f"{summary.failed:,}", "failed", "bad" if summary.failed else ""
    if summary.objects is not None:
        yield *_tile(summary.objects, "object"), ""
    if found.facts.taggers:
        yield *_tile(found.facts.tags, "tag"), ""
    if summary.embeddings:
        yield *_tile(summary.embeddings, "embedding"), ""
    if summary.object_embeddings:
        number, _ = _tile(summary.object_embeddings, "embedding")
        yield number, "embeddings of objects", ""


def _tile(number: int, noun: str) -> tuple[str, str]:
    text = counted(number, noun).split(" ")
    return text[0], text[1]


def files(facts: Facts) -> str:
    """The files of the labelled images in a line; "" where there are none."""
    if not facts.files.formats:
        return ""
    formats = ", ".join(f"{number:,} {name}" for name, number in facts.files.formats)
    return f"{formats}; {format_bytes(facts.files.size)}, {format_pixels(facts.files.pixels)}"


def format_bytes(size: int) -> str:
    """A size with the unit that suits it: "1.9 MB"."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} bytes"


def format_pixels(pixels: int) -> str:
    """A number of pixels in a unit that suits it, with at least two digits: "0.31 megapixels"."""
    if pixels < 10_000:
        return counted(pixels, "pixel")
    millions = pixels / 1e6
    return f"{millions:,.0f} megapixels" if millions >= 9.95 else f"{millions:.2g} megapixels"


def breakable(text: str) -> Markup:
    """A name or a value that a line may end in before a word of it: behind a dot, "_", "/" or "="."""
    return Markup("<wbr>").join(re.split(r"(?<=[._/])(?=[A-Za-z])|(?<==)", one_line(text)))


def took(seconds: float | None) -> str:
    """A duration as hours, minutes and seconds; under a minute with tenths."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


@dataclass(frozen=True, slots=True)
class Name:
    """A text on a picture, and where it begins: left end of its base line, in pixels of the picture."""

    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Shown:
    """An example on the page.

    Attributes:
        picture: None where there is none.
        missing: why there is none; "" where none was asked for.
        image: its row.
        name: its file's, short.
        title: the label with its score, or what the box is; "": there is none.
        runners_up: further labels.
        classes: classes of its objects: name, number, and colour where it is known.
        note: why it is shown.
    """

    picture: Picture | None
    missing: str
    image: ImageRow
    name: str
    title: str
    runners_up: str
    classes: tuple[tuple[str, int, str | None], ...]
    note: str

    @property
    def alt(self) -> str:
        """The picture in words."""
        objects = ", ".join(f"{number} {name}" for name, number, _ in self.classes)
        what = "; ".join(part for part in (self.title, objects) if part)
        return f"{self.name}: {what}" if what else self.name

    @property
    def letter(self) -> float:
        """The size of letters on the picture, in its pixels."""
        picture = self.picture
        return 0.065 * max(picture.width, picture.height * 4 / 3) if picture else 0

    @property
    def names(self) -> Iterator["Name"]:
        """Names of boxes as they are written on the picture; one that would cover another is left out."""
        picture, letter = self.picture, self.letter
        taken: list[tuple[float, float, float]] = []
        for box in reversed(picture.outlines if picture else ()):  # the best score comes first
            text = cut(box.name, 24)
            long = letter * 0.6 * len(text)
            left = max(min(box.x, (picture.width if picture else 0) - long), 0)
            bottom = max(box.y - letter * 0.3, letter)
            clear = (
                abs(bottom - other) >= letter or left + long < x1 or x2 < left for x1, x2, other in taken
            )
            if all(clear):
                taken.append((left, left + long, bottom))
                yield Name(text, left, bottom)


def galleries(found: Found) -> Iterator[dict[str, Any]]:
    """The galleries as the page shows them."""
    images = list(found.images.values())
    names = dict(zip(found.images, short_uris((image.uri for image in images), NAME_WIDTH), strict=True))
    for gallery in found.galleries:
        groups = [
            (group.title, [_shown(found, one, names[one.manifest_index]) for one in group.examples])
            for group in gallery.groups
        ]
        yield {"title": gallery.title, "about": gallery.about, "groups": groups}


def _shown(found: Found, example: Example, name: str) -> Shown:
    image, taken = found.images[example.manifest_index], found.taken[example]
    picture, missing = (taken, "") if isinstance(taken, Picture) else (None, taken)
    if example.object_index is not None:
        box = image.boxes[example.object_index]
        title = _scored(box.class_name, box.score)
        return Shown(picture, missing, image, name, title, "", (), example.note)
    title, *others = [_scored(*found) for found in image.topk[:3]] or [""]
    colours = {box.class_name: _colour(box.class_id) for box in image.boxes}
    classes = tuple(
        (cut(class_name, MAX_LETTERS), number, colours.get(class_name))
        for class_name, number in (image.objects or ())[:MAX_CLASSES]
    )
    return Shown(picture, missing, image, name, title, ", ".join(others), classes, example.note)


def _scored(name: str, score: float) -> str:
    return scored(cut(name, MAX_LETTERS), score)


def _colour(class_id: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*class_colour(class_id))


def model(model: ResolvedModel) -> Iterator[tuple[str, str]]:
    """What decides the answers of a model, and whose it is: names and values."""
    info = model.info
    yield "model", f"{info.name} ({info.source})"
    yield "fingerprint", model.fingerprint
    yield "weights", model.weights
    yield "weights sha256", model.weights_sha256 or "not kept: the library checks its own weights"
    yield "licence", info.licence
    yield "input", info.input_size
    yield "preprocessing", model.preprocessing
    if model.categories:
        yield "classes", f"{len(model.categories):,}"
    if model.names:
        yield "classes by the class map", f"{len(model.classes):,}"
    for name, value in model.settings.items():
        yield name, _value(value)
    yield "computed by", model.code
    for name, digest in model.parts.items():
        yield f"digest of {name}", digest
    yield "quality", info.quality
    for note in model.notes:
        yield "note", note


def settings(record: RunRecord) -> Iterator[tuple[str, str]]:
    """The settings beside those of the models that decide rows."""
    for name, value in settings_of_rows(record.spec).items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", _value(inner)) for key, inner in value.items())
        else:
            yield name, _value(value)


def _value(value: object) -> str:
    """A setting in words."""
    if value is None or value in ({}, [], ()):
        return "none"
    return value if isinstance(value, str) else dump_json(value)


def manifest(record: RunRecord) -> Iterator[tuple[str, str]]:
    """The files that the manifest was made of: size, and name with what it is known by."""
    for file in record.manifest[:MAX_FILES]:
        size = counted(file.size, "image") if file.format == "images" else format_bytes(file.size)
        yield size, f"{file.uri}, version {file.version}"
    if (more := len(record.manifest) - MAX_FILES) > 0:
        yield counted(more, "more file"), "see run.json"
