"""What the index of a run knows of images beside what a search gives: boxes, labels, tags, failures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.results.duck import Session
from jobs.results.plain import shortest
from jobs.search.vocabulary import ERROR
from jobs.serve.runs import ServedRun
from schemas.errors import reason_of

MAX_BOXES = 40
"""Boxes on a photo among others, the best scores first."""

_CORNERS = "x1, y1, x2, y2"


@dataclass(frozen=True, slots=True)
class Scored:
    """A label, or a tag of a tagger; `tagger` is "" of a label."""

    tagger: str
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Object:
    """An object in an image: class, score, corners in pixels of the upright image, and tags of its own."""

    name: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float
    tags: tuple[Scored, ...] = ()


@dataclass(frozen=True, slots=True)
class Photo:
    """A labelled image as far as it is needed to show it."""

    row: int
    uri: str
    width: int
    height: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of an image.

    Attributes:
        row: in the manifest.
        uri: absolute, without credentials and query.
        error: the code, of a failed image; None of a labelled one.
        columns: the others of the index, by name: facts, best label and score, the manifest's own.
        carried: the names of the manifest's own.
        scored: labels and tags of the whole image, the best first.
        objects: the best score first.
        stage: where it failed; "" of a labelled image.
        message: why it failed, as the errors table has it; "" of a labelled image.
    """

    row: int
    uri: str
    error: str | None
    columns: dict[str, Any]
    carried: tuple[str, ...]
    scored: tuple[Scored, ...]
    objects: tuple[Object, ...]
    stage: str = ""
    message: str = ""

    @property
    def reason(self) -> str:
        """Why it failed, in words."""
        return reason_of(self.error or "", self.message)


def objects_of(run: ServedRun, rows: Sequence[int], most: int = MAX_BOXES) -> dict[int, list[Object]]:
    """The objects of images by their rows, of each the best ones."""
    found: dict[int, list[Object]] = {row: [] for row in rows}
    if rows:
        these = f"(VALUES {', '.join(f'({int(row)})' for row in rows)}) AS these (number)"
        with run.searcher.session() as session:
            for row, *values in session.result(
                f"SELECT image, term, score, {_CORNERS} FROM {these} JOIN objects ON image = number "
                "ORDER BY image, score DESC, x1, y1"
            ):
                if len(found[row]) < most:
                    found[row].append(_object(run, values))
    return found


def failures_of(run: ServedRun, rows: Sequence[int]) -> dict[int, str]:
    """Why images failed, in words, by their rows."""
    if not rows:
        return {}
    with run.searcher.session() as session:
        found = session.result(
            f"SELECT image, {ERROR}, message FROM failures JOIN images ON image = manifest_index "
            f"WHERE image IN ({', '.join(map(str, rows))})"
        )
        return {row: reason_of(code, message) for row, code, message in found}


def photo_of(run: ServedRun, row: int) -> Photo | None:
    """A labelled image by its row; None: there is none."""
    if not 0 <= row < run.rows:
        return None
    with run.searcher.session() as session:
        found = session.result(
            "SELECT manifest_index, uri, width, height, byte_size FROM images "
            f"WHERE manifest_index = ? AND {ERROR} IS NULL",
            [row],
        )
        return next((Photo(*values) for values in found), None)


def known_of(run: ServedRun, row: int) -> Known | None:
    """All that is known of an image by its row; None: there is none."""
    if not 0 <= row < run.rows:
        return None
    with run.searcher.session() as session:
        images = session.result("SELECT * FROM images WHERE manifest_index = ?", [row])
        names, rows = images.names, list(images.plain_rows())
        if not rows:
            return None
        columns = dict(zip(names, rows[0], strict=True))
        objects = session.result(
            f"SELECT term, score, {_CORNERS}, tags FROM objects WHERE image = ? ORDER BY score DESC, x1, y1",
            [row],
        )
        boxes = tuple(_object(run, values, tags) for *values, tags in objects)
        scored = tuple(_scored(run, session, row))
        failures = list(session.result("SELECT stage, message FROM failures WHERE image = ?", [row]))
    index, uri, error = (columns.pop(name) for name in ("manifest_index", "uri", ERROR))
    stage, message = failures[0] if failures else ("", "")
    carried = run.searcher.about.carried
    return Known(index, uri, error, columns, carried, scored, boxes, stage, message)


def _scored(run: ServedRun, session: Session, row: int) -> list[Scored]:
    found = session.result("SELECT term, score FROM found WHERE image = ? ORDER BY score DESC, term", [row])
    terms = ((run.terms[term], shortest(score)) for term, score in found)
    of_objects = run.searcher.run.record.taggers_of_boxes
    return [
        Scored(term.tagger, term.name, score)
        for term, score in terms
        if term.kind != "class" and term.tagger not in of_objects
    ]


def _object(run: ServedRun, values: Sequence[Any], tags: Sequence[dict[str, Any]] | None = None) -> Object:
    term, *numbers = values
    score, x1, y1, x2, y2 = map(shortest, numbers)
    found = ((run.terms[tag["term"]], shortest(tag["score"])) for tag in tags or ())
    scored = [Scored(term.tagger, term.name, score) for term, score in found]
    best = sorted(scored, key=lambda one: -one.score)
    return Object(run.terms[term].name, score, x1, y1, x2, y2, tuple(best))
