"""Prints the summary of a run as tables on a terminal."""

from collections.abc import Iterable

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from jobs.results.images import ImageRow, Tag
from jobs.results.summary import Summary
from jobs.results.text import scored, short_uris, shorten
from schemas.words import counted
from workers.printable import one_line

_GAP = 3
"""Cells between two columns of a table."""


def render(summary: Summary, console: Console) -> None:
    """Prints a summary as tables that fit the console's width."""
    console.print(_headline(summary), no_wrap=True, overflow="ellipsis", soft_wrap=False)
    which = "" if summary.is_choice else "the first "
    images = _first("Images", len(summary.images), summary.labelled, which)
    failures = _first("Images that failed", len(summary.failures), summary.failed)
    labels = _title("Labels", len(summary.labels), summary.distinct_labels)
    classes = _title("Objects", len(summary.classes), summary.distinct_classes)
    tags = _title("Tags", len(summary.tags), summary.distinct_tags)
    tables = {
        images: _image_table(summary, console.width),
        labels: _label_table(summary, console.width),
        classes: _class_table(summary, console.width),
        tags: _tag_table(summary, console.width),
        "Failed": _error_table(summary),
        failures: _failure_table(summary, console.width),
    }
    for title, table in tables.items():
        if table.row_count:
            console.print(Text(f"\n{title}", "bold"))
            console.print(table)


def fitting(items: Iterable[str], width: int) -> str:
    """Items joined by commas, as many as fit into `width` cells; "+3 more" stands for the rest.

    If not one fits whole, the first is shortened; without room for that they are only counted, or the text is
    empty.
    """
    items = [one_line(item) for item in items]
    rest = ""
    for kept in range(len(items), 0, -1):
        rest = f", +{len(items) - kept} more" if kept < len(items) else ""
        line = ", ".join(items[:kept]) + rest
        if cell_len(line) <= width:
            return line
    if not items:
        return ""
    room, count = width - len(rest), f"+{len(items)} more"
    return shorten(items[0], room) + rest if room >= 10 else count if len(count) <= width else ""


def _headline(summary: Summary) -> Text:
    parts = [f"{counted(summary.labelled, 'image')} labelled"]
    if summary.of is not None:
        parts = [f"{summary.labelled:,} of {counted(summary.of, 'image')} meet the condition"]
    if summary.objects is not None:
        parts.append(counted(summary.objects, "object"))
    if summary.tag_rows:
        parts.append(counted(summary.tag_rows, "tag"))
    if summary.embeddings:
        parts.append(counted(summary.embeddings, "embedding"))
    if summary.object_embeddings:
        parts.append(counted(summary.object_embeddings, "embedding of objects", "embeddings of objects"))
    if summary.of is None:  # of images that failed nothing is asked
        parts.append(f"{summary.failed:,} failed")
    text = Text(f"{one_line(summary.output)}\n")
    for i, part in enumerate(parts):
        number, _, noun = part.partition(" ")
        text.append(", " if i else "").append(number, "bold").append(f" {noun}")
    return text


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table; columns in `right` hold numbers."""
    table = Table(box=box.SIMPLE_HEAD)
    table.show_edge = table.pad_edge = False
    for column in columns:
        side: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, justify=side, no_wrap=True, overflow="ellipsis")
    return table


def _image_table(summary: Summary, width: int) -> Table:
    """Two lines per image: its label with the runners-up, and its objects."""
    table = _table("row", "image", "size", "found", right=("row", "size"))
    rows = [str(image.manifest_index) for image in summary.images]
    sizes = [f"{image.width}x{image.height}" for image in summary.images]
    room = width - max(map(len, ["row", *rows])) - max(map(len, ["size", *sizes])) - 3 * _GAP
    names = short_uris((image.uri for image in summary.images), max(room * 2 // 5, 8))
    room = max(room - max(map(cell_len, ["image", *names])), 16)
    for row, name, size, image in zip(rows, names, sizes, summary.images, strict=True):
        table.add_row(row, Text(name), size, _findings(image, room))
    return table


def _findings(image: ImageRow, width: int) -> Text:
    """The label with its runners-up on one line, the objects on the next, then tags, of objects last."""
    lines = []
    if image.topk:
        best, *others = (scored(*entry) for entry in image.topk)
        best = shorten(best, width - len(f"  +{len(others)} more" if others else ""))
        runners_up = fitting(others, width - cell_len(best) - 2)
        lines.append(Text("  " if runners_up else "").join([Text(best, "bold"), Text(runners_up, "dim")]))
    if image.objects is not None:
        objects = [f"{name} x{n}" for name, n in image.objects]
        line = fitting(objects, width) or shorten(next(iter(objects), "no objects"), width)
        lines.append(Text(line, style="cyan" if objects else "dim"))
    if tags := [f"{tag.tagger}: {scored(tag.label, tag.score)}" for tag in image.own_tags]:
        lines.append(Text(fitting(tags, width), style="magenta"))
    if tags := [_of_object(tag) for tag in image.best_tags]:
        lines.append(Text(fitting(tags, width), style="magenta"))
    return Text("\n").join(lines)


def _of_object(tag: Tag) -> str:
    return f"{tag.tagger} of object {tag.object_index}: {scored(tag.label, tag.score)}"


def _label_table(summary: Summary, width: int) -> Table:
    table = _table("label", "images", "share", right=("images", "share"))
    for count in summary.labels:
        share = f"{count.images / summary.labelled:.1%}"
        table.add_row(Text(shorten(count.label, width - 22)), f"{count.images:,}", share)
    return table


def _class_table(summary: Summary, width: int) -> Table:
    table = _table("class", "objects", "images", right=("objects", "images"))
    for count in summary.classes:
        name = Text(shorten(count.class_name, width - 22))
        table.add_row(name, f"{count.objects:,}", f"{count.images:,}")
    return table


def _tag_table(summary: Summary, width: int) -> Table:
    table = _table("tagger", "tag", "images", right=("images",))
    for count in summary.tags:
        tagger = shorten(count.tagger, width // 3)
        table.add_row(tagger, Text(shorten(count.label, width // 3)), f"{count.images:,}")
    return table


def _first(title: str, shown: int, images: int, which: str = "the first ") -> str:
    """A table's title, with the number of images where it does not show all."""
    return title if shown == images else f"{title}, {which}{shown:,} of {images:,}"


def _title(title: str, shown: int, distinct: int) -> str:
    """A table's title, with the number of rows where it does not show all."""
    return title if shown == distinct else f"{title}, the {shown} most frequent of {distinct:,}"


def _error_table(summary: Summary) -> Table:
    table = _table("stage", "code", "images", "for example", right=("images",))
    table.columns[-1].no_wrap = False  # a message wraps at its spaces; a word that is too long is cut
    for error in summary.errors:
        table.add_row(error.stage, error.code, f"{error.images:,}", Text(one_line(error.message)))
    return table


def _failure_table(summary: Summary, width: int) -> Table:
    """One line per image that failed; what does not fit is cut from its name and message."""
    table = _table("row", "image", "code", "message", right=("row",))
    rows = [str(image.manifest_index) for image in summary.failures]
    codes = [one_line(image.code) for image in summary.failures]
    room = width - sum(max(map(len, [title, *cells])) for title, cells in (("row", rows), ("code", codes)))
    names = short_uris((image.uri for image in summary.failures), max((room - 3 * _GAP) // 2, 8))
    room -= max(map(cell_len, ["image", *names])) + 3 * _GAP
    for row, name, code, image in zip(rows, names, codes, summary.failures, strict=True):
        table.add_row(row, Text(name), code, Text(shorten(image.message, max(room, 8))))
    return table
