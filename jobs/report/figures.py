"""The charts of a report, each with its values as a table."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from jobs.report.charts import Bar, Column, bars, columns, matrix
from jobs.report.facts import BINS_A_DECADE, SIZE_DECADES, Facts, Rate, Together
from jobs.results.summary import ClassCount
from schemas.words import counted

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with a title.

    Attributes:
        title: of it.
        about: a sentence below the title; "": none.
        svg: the chart.
        heads: of the columns of its values.
        values: rows as texts; empty where the chart itself has all of them as text.
    """

    title: str
    about: str
    svg: Markup
    heads: Row = ()
    values: tuple[Row, ...] = ()


def figures_of(facts: Facts) -> list[Figure]:
    """What the tables of a run come to, in charts; without those that have nothing to show."""
    return list(_figures(facts))


def rate_figure(rate: Rate) -> Figure | None:
    """The speed over time; None where all images were done within one step of it."""
    if len(rate.images) < 2:
        return None
    bins = [(_duration(rate.step_s * place), images) for place, images in enumerate(rate.images)]
    step = _span(rate.step_s)
    shown = [
        Column(images / rate.step_s, f"{_speed(images / rate.step_s)} images/s in the {step} from {start}")
        for start, images in bins
    ]
    number = len(rate.images)
    marks = range(0, number + 1, math.ceil(number / 5))
    ticks = [(mark / number, _duration(rate.step_s * mark)) for mark in marks]
    below = f"time since the first image; a column is {step}"
    name = f"Images a second over time: {_speed(max(rate.images) / rate.step_s)} at most"
    return Figure(
        "Speed over time",
        "Images labelled or failed a second, by the times in the tables; the last column may be cut short.",
        columns(shown, ticks, ("images/s", below), "object", name),
        ("from", "images", "images/s"),
        tuple((start, f"{images:,}", _speed(images / rate.step_s)) for start, images in bins),
    )


def _figures(facts: Facts) -> Iterator[Figure]:
    summary = facts.summary
    if summary.labels:
        rows = [(one.label, one.images) for one in summary.labels]
        title = _title("Labels", len(rows), summary.distinct_labels)
        yield _shares(title, "Images by their best label.", rows, summary.labelled, "label")
    if summary.classes:
        title = _title("Classes of objects", len(summary.classes), summary.distinct_classes)
        shown = [Bar(one.class_name, one.objects, _objects(one)) for one in summary.classes]
        yield Figure(title, "Objects, and the images that have any.", bars(shown, "object"))
    for tagger in facts.taggers:
        rows = [(one.label, one.images) for one in tagger.tags]
        title = _title(f"Tags of {tagger.tagger}", len(rows), tagger.distinct)
        yield _shares(title, "Images with the tag.", rows, summary.labelled, "tag")
    if summary.scores:
        yield _of_scores("Scores of labels", summary.scores, "images", "label")
    if facts.box_scores:
        yield _of_scores("Scores of boxes", facts.box_scores, "boxes", "object")
    if summary.objects_per_image:
        yield _of_objects(summary.objects_per_image)
    if facts.box_sizes:
        yield _of_sizes(facts.box_sizes)
    if facts.together:
        yield _of_pairs(facts.together)


def _title(title: str, shown: int, total: int) -> str:
    """A title with the number of rows where not all are shown."""
    return title if shown == total else f"{title}: {shown:,} of {total:,}"


def _shares(title: str, about: str, rows: Sequence[tuple[str, int]], images: int, kind: str) -> Figure:
    shown = [Bar(name, number, f"{number:,} · {_share(number, images)}") for name, number in rows]
    return Figure(title, about, bars(shown, kind))


def _share(number: int, of: int) -> str:
    """A part in per cent: "0.3%", "12%"."""
    share = 100 * number / max(of, 1)
    return f"{share:.0f}%" if share >= 9.95 else f"{share:.1f}%" if share >= 0.05 else "<0.1%"


def _objects(one: ClassCount) -> str:
    return f"{one.objects:,} in {counted(one.images, 'image')}"


def _of_scores(title: str, counts: Sequence[int], noun: str, kind: str) -> Figure:
    bins = len(counts)
    edges = [f"{place / bins:.2f}" for place in range(bins + 1)]
    rows = [(f"{edges[place]} to {edges[place + 1]}", number) for place, number in enumerate(counts)]
    ticks = [(place / 4, f"{place / 4:g}") for place in range(5)]
    return _histogram(title, rows, ticks, (noun, "score"), kind)


def _of_objects(counts: Sequence[int]) -> Figure:
    last = len(counts) - 1
    names = [*map(str, range(last)), f"{last}+"]
    ticks = [((place + 0.5) / len(counts), name) for place, name in enumerate(names)]
    rows = list(zip(names, counts, strict=True))
    return _histogram(
        "Objects per image",
        rows,
        ticks,
        ("images", "objects in the image"),
        "label",
    )


def _of_sizes(counts: Sequence[int]) -> Figure:
    edges = [f"{100 * 10 ** (place / BINS_A_DECADE - SIZE_DECADES):.2g}%" for place in range(len(counts) + 1)]
    edges[-1] = "100%"
    rows = [(f"{edges[place]} to {edges[place + 1]}", number) for place, number in enumerate(counts)]
    rows[0] = (f"under {edges[1]}", counts[0])
    decades = range(SIZE_DECADES + 1)
    ticks = [(decade / SIZE_DECADES, f"{100 * 10 ** (decade - SIZE_DECADES):g}%") for decade in decades]
    titles = ("boxes", "share of the image, logarithmic")
    return _histogram("Sizes of boxes", rows, ticks, titles, "object")


def _histogram(
    title: str,
    rows: Sequence[tuple[str, int]],
    ticks: Sequence[tuple[float, str]],
    titles: tuple[str, str],
    kind: str,
) -> Figure:
    noun = titles[0]
    top, most = max(rows, key=lambda row: row[1])
    shown = [Column(number, f"{name}: {number:,} {noun}") for name, number in rows]
    svg = columns(shown, ticks, titles, kind, f"{title}: most {noun}, {most:,}, at {top}")
    values = tuple((name, f"{number:,}") for name, number in rows)
    return Figure(title, "", svg, (titles[1].partition(",")[0], noun), values)


def _of_pairs(together: Together) -> Figure:
    names = together.names
    pairs = [(names[i], names[j], together.images[i][j]) for i in range(len(names)) for j in range(i)]
    pairs.sort(key=lambda pair: (-pair[2], pair[:2]))
    one, other, most = pairs[0]
    svg = matrix(
        names, together.images, f"Images with objects of two classes: most, {most:,}, with {one} and {other}"
    )
    return Figure(
        "Classes in one image",
        "Images that have objects of both classes; on the diagonal, of the one.",
        svg,
        ("class", "class", "images"),
        tuple((one, other, f"{number:,}") for one, other, number in pairs),
    )


def _speed(images_per_s: float) -> str:
    return f"{images_per_s:,.0f}" if images_per_s >= 9.95 else f"{images_per_s:.1f}"


def _span(seconds: int) -> str:
    """A length of time that is a round number of one unit: "30 s", "5 min", "2 h"."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def _duration(seconds: float) -> str:
    """A point of time after a beginning: "45 s", "3:20 min", "2:05 h", "1.5 d"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole else "0"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 2 * 86400:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{whole / 86400:.1f} d"
