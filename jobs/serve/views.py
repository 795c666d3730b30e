"""What the pages show of their values: names, words, addresses and boxes for the templates."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment

from jobs.results.pages import page_environment
from jobs.results.text import as_path, scored, short_uris, shorten
from jobs.search.advice import Advice
from jobs.search.compiler import Word
from jobs.search.hits import FacetValue, Hit, Match
from jobs.search.language import quoted
from jobs.serve.asked import PAGE, Asked, narrowed
from jobs.serve.images import Known, Object
from jobs.serve.runs import ServedRun
from schemas.exceptions import QueryError

NAME_WIDTH, WORD_WIDTH = 34, 28
"""Letters of the name of a file and of a label below its picture."""

MAX_NAMES = 6
"""Names of boxes on a picture, the best scores first."""

SORTED_COLUMNS = 20
"""Columns that the page offers to sort by."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box on a photo, in the photo's pixels; `text` is where its name is written, None: it is not."""

    name: str
    title: str
    colour: str
    x: float
    y: float
    width: float
    height: float
    text: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Card:
    """A hit on the page.

    Attributes:
        row: in the manifest.
        href: the page of the image.
        photo: the address of its photo; "" of a failed image.
        alt: the photo in words.
        title: its best label.
        matches: how alike it is, and what it has of what is asked about and sorted by.
        name: of its file, short.
        uri: of it.
        error: the code, of a failed image.
        width: pixels across.
        height: pixels down.
        boxes: on the photo, the best score last.
        letter: the size of letters on the photo, in its pixels.
    """

    row: int
    href: str
    photo: str
    alt: str
    title: str
    matches: tuple[str, ...]
    name: str
    uri: str
    error: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    letter: float


@dataclass(frozen=True, slots=True)
class Link:
    """A way on from a page."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Found:
    """A part of the hits.

    Attributes:
        total: all hits.
        of: images that they are out of.
        cards: of the part.
        asked: the search.
        sorts: orders that there are, and what they are called.
        advice: what to say of the query, and the search that may be meant; no address: there is none.
    """

    total: int
    of: int
    cards: tuple[Card, ...]
    asked: Asked
    sorts: dict[str, str] = field(default_factory=dict)
    advice: tuple[Link, ...] = ()

    @property
    def first(self) -> int:
        """The number of the first hit on the page, from 1."""
        return self.asked.offset + 1

    @property
    def last(self) -> int:
        """The number of the last one."""
        return self.asked.offset + len(self.cards)

    @property
    def pages(self) -> int:
        """Pages that the hits are on."""
        return max(1, -(-self.total // PAGE))


def cards(
    run: ServedRun, asked: Asked, hits: Sequence[Hit], objects: Mapping[int, list[Object]]
) -> tuple[Card, ...]:
    """The hits of a page."""
    made = []
    names = short_uris([hit.uri for hit in hits], NAME_WIDTH)
    for place, (hit, name) in enumerate(zip(hits, names, strict=True), asked.offset):
        row = hit.manifest_index
        href = asked.href(f"/image/{row}", page=1, at=str(place))
        photo = "" if hit.error else photo_href(run, asked, row, "small")
        made.append(_card(run, hit, name, (href, photo), objects[row]))
    return tuple(made)


def _card(run: ServedRun, hit: Hit, name: str, hrefs: tuple[str, str], objects: Sequence[Object]) -> Card:
    """A hit; `hrefs` are the addresses of its page and its photo."""
    label, score = hit.columns["label"], hit.columns["score"]
    title = "" if label is None else scored(shorten(str(label), WORD_WIDTH), score)
    width, height = hit.columns["width"] or 4, hit.columns["height"] or 3
    letter = letter_of(width, height)
    return Card(
        row=hit.manifest_index,
        href=hrefs[0],
        photo=hrefs[1],
        alt=alt_of(name, title, objects),
        title=title,
        matches=tuple(matches_of(hit)),
        name=name,
        uri=hit.uri,
        error=hit.error or "",
        width=width,
        height=height,
        boxes=tuple(boxes_of(run, objects, width, letter)),
        letter=letter,
    )


def photo_href(run: ServedRun, asked: Asked, row: int, size: str) -> str:
    """The address of a photo; it is another one once the run's tables are others."""
    return Asked(asked.run).href(f"/photo/{row}", size=size, v=run.version)


def alt_of(name: str, title: str, objects: Sequence[Object]) -> str:
    """A photo in words."""
    counts: dict[str, int] = {}
    for one in objects:
        counts[one.name] = counts.get(one.name, 0) + 1
    seen = ", ".join(f"{number} {what}" for what, number in counts.items())
    what = "; ".join(part for part in (title, seen) if part)
    return f"{name}: {what}" if what else name


def matches_of(hit: Hit) -> Iterator[str]:
    """What a hit has of what is asked; its best label stands above that anyway."""
    if hit.similarity is not None:
        yield f"alike {hit.similarity:.3f}"
    yield from (match_of(word, match) for word, match in hit.matches.items())
    shown = {name: value for name, value in hit.values.items() if value and name not in ("label", "score")}
    yield from (f"{shorten(name, WORD_WIDTH)} {shorten(value, WORD_WIDTH)}" for name, value in shown.items())


def match_of(word: str, match: Match) -> str:
    """What an image has of a word: number of objects and best score."""
    number = "" if match.count is None else f" x{match.count}"
    return f"{shorten(word, WORD_WIDTH)}{number} {match.score:.2f}"


def letter_of(width: int, height: int) -> float:
    """The size of letters on a photo that is shown in a frame of 4:3, in the photo's pixels."""
    return 0.06 * max(width, height * 4 / 3)


def boxes_of(run: ServedRun, objects: Sequence[Object], width: int, letter: float) -> Iterator[Box]:
    """Boxes on a photo, the best score last, so that it is on top.

    A name that would cover another is left out.

    Args:
        run: of the photo.
        objects: the best score first.
        width: of the photo.
        letter: the size of letters, in pixels of the photo.
    """
    taken: list[tuple[float, float, float]] = []
    made = []
    for one in objects:
        name = shorten(": ".join([one.name, *(tag.name for tag in one.tags[:1])]), WORD_WIDTH)
        long = letter * 0.66 * len(name)
        left, bottom = max(min(one.x1, width - long), 0), max(one.y1 - letter * 0.3, letter)
        clear = (
            all(abs(bottom - other) >= letter or left + long < x1 or x2 < left for x1, x2, other in taken)
            and len(taken) < MAX_NAMES
        )
        if clear:
            taken.append((left, left + long, bottom))
        made.append(
            Box(
                *(name, scored(one.name, one.score), run.colours.get(one.name, "#ff3377")),
                *(one.x1, one.y1, one.x2 - one.x1, one.y2 - one.y1),
                (left, bottom) if clear else None,
            )
        )
    yield from reversed(made)


def advice_of(asked: Asked, advice: Sequence[Advice]) -> tuple[Link, ...]:
    """What to say of a query, with the address of what may be meant."""
    return tuple(Link(one.text, asked.href(q=one.query, page=1) if one.query else "") for one in advice)


def sorts_of(run: ServedRun, words: Sequence[Word], asked: Asked) -> dict[str, str]:
    """Orders that the page offers: what the address has, and what a person reads."""
    sorts = {"": "most alike" if asked.compares else "best match", "row": "manifest order"}
    for word in words:
        name = word.query
        if any(term.kind == "class" for term in word.terms):
            sorts |= {name: f"most {word.name}", f"{name}.area": f"largest {word.name}"}
        sorts[f"{name}.score"] = f"surest {word.name}"
    carried = set(run.searcher.about.carried)
    offered = ("score", "object_count", "width", "height", "byte_size", "taken_at", *sorted(carried))
    columns = [column.name for column in run.searcher.vocabulary.columns if column.name in offered]
    for column in columns[:SORTED_COLUMNS]:
        name, shown = quoted(column), run.searcher.vocabulary.short_of(column)
        sorts |= {name: f"{shown}, lowest first", f"-{name}": f"{shown}, highest first"}
    return sorts if asked.sort in sorts else {**sorts, asked.sort: asked.sort}


@dataclass(frozen=True, slots=True)
class Facet:
    """A value of a facet on the page: `href` is the search with it, or without where it `is_on`."""

    value: str
    images: int
    href: str
    is_on: bool


def facets_of(asked: Asked, facets: Mapping[str, Sequence[FacetValue]]) -> dict[str, list[Facet]]:
    """Facets with the addresses of what they lead to."""
    shown: dict[str, list[Facet]] = {}
    for name, values in facets.items():
        facet = [_facet_of(asked, value) for value in values]
        around = [_facet_of(asked, value) for value in _around(values)]
        shown[name] = [one for one in around if one.is_on] + facet
    return shown


def _facet_of(asked: Asked, value: FacetValue) -> Facet:
    query, is_on = narrowed(asked.q, value.query)
    return Facet(value.value, value.images, asked.href(q=query, page=1), is_on)


def _around(values: Sequence[FacetValue]) -> list[FacetValue]:
    """The year, and the month, that all values of a facet are in: what was chosen can be taken away there."""
    first, images = values[0], sum(value.images for value in values)
    if not re.fullmatch(r"\d{4}(-\d{2}){1,2}", first.value):
        return []
    ends = range(len("2024"), len(first.value), len("-05"))
    return [
        FacetValue(first.value[:end], images, first.query.removesuffix(first.value[end:])) for end in ends
    ]


def marked(query: str, error: Exception) -> tuple[str, str, str, str]:
    """What is wrong with a query, and the query before, at and after the place; "" where there is none."""
    message = str(error).partition("\n")[0]
    if not isinstance(error, QueryError):
        return message, "", "", ""
    end = max(error.end, error.start + 1)
    return message, query[: error.start], query[error.start : end] or "⌷", query[end:]


def ways_on(run: ServedRun, asked: Asked, known: Known) -> list[Link]:
    """Links from an image to others: those that look like it, all with its label, its classes, its error."""
    label = known.columns.get("label")
    classes = dict.fromkeys(one.name for one in known.objects[:MAX_NAMES])
    ways = {f"all {label}": f"label:{quoted(str(label))}"} if label is not None else {}
    ways |= {f"all with {name}": f"class:{quoted(name)}" for name in classes}
    ways |= {f"all that failed by {known.error}": f"error:{known.error}"} if known.error else {}
    links = [
        Link(shorten(text, WORD_WIDTH + 12), asked.href(q=query, sort="", page=1, like="", text=""))
        for text, query in ways.items()
    ]
    if known.error or "embeddings" not in run.searcher.run.tables.names:
        return links
    return [
        Link("what looks like it", asked.href(q="", sort="", page=1, like=str(known.row), text="")),
        *links,
    ]


def file_name(uri: str) -> str:
    """The name of an image's file."""
    return as_path(uri).rstrip("/").rsplit("/", 1)[-1]


def environment() -> Environment:
    """The templates of the page."""
    made = page_environment("jobs.serve")
    made.filters |= {"number": lambda number: f"{number:,}", "scored": scored}
    return made
