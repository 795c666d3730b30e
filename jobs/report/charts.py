"""Charts as SVG in a page: pure functions of values, for a width of 360 CSS pixels.

Colours come from the page's classes, so that they follow its light and dark colours. Every text is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from workers.printable import one_line

WIDTH = 360
"""Units of a chart from left to right; each is a CSS pixel on a phone."""

LETTER = 6.6
"""Width of a letter of 12 units, about; wide ones are cut a little late."""

_PLOT_HEIGHT, _LEFT, _RIGHT, _TOP = 150, 46, 18, 30
_ROW, _BAR = 32, 7


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a bar chart.

    Attributes:
        name: what it stands for.
        value: decides its length; not negative.
        text: the value in words.
    """

    name: str
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Column:
    """A bin of a histogram.

    Attributes:
        value: decides its height; not negative.
        text: bin and value in words.
    """

    value: float
    text: str


def bars(rows: Sequence[Bar], kind: str) -> Markup:
    """Horizontal bars, each below its name and value.

    Args:
        rows: from top to bottom; at least one.
        kind: CSS class of the bars.
    """
    longest = max(row.value for row in rows) or 1
    return _svg(
        _ROW * len(rows),
        "bars",
        None,
        [_bar(row, _ROW * place, row.value / longest, kind) for place, row in enumerate(rows)],
    )


def _bar(row: Bar, top: int, share: float, kind: str) -> Markup:
    room = int((WIDTH - 12 - LETTER * len(row.text)) / LETTER)
    return Markup(
        '<g><title>{}: {}</title><text x="0" y="{}">{}</text><text class="value" x="{}" y="{}">{}</text>'
        '<rect class="track" x="0" y="{}" width="{}" height="{}" rx="3"/>'
        '<rect class="{}" x="0" y="{}" width="{:.1f}" height="{}" rx="3"/></g>'
    ).format(
        *(one_line(row.name), row.text, top + 14, cut(row.name, room), WIDTH, top + 14, row.text),
        *(top + 19, WIDTH, _BAR, kind, top + 19, max(WIDTH * share, 2 if row.value else 0), _BAR),
    )


def columns(
    values: Sequence[Column],
    ticks: Sequence[tuple[float, str]],
    titles: tuple[str, str],
    kind: str,
    name: str,
) -> Markup:
    """A histogram with axes.

    Args:
        values: from left to right; at least one.
        ticks: of the axis below: places from 0 (left) to 1 (right), and their texts.
        titles: what is counted upwards, and what the axis below shows, with units.
        kind: CSS class of the columns.
        name: what the chart says, for those who do not see it.
    """
    whole = all(float(column.value).is_integer() for column in values)
    highest, upward = scale(max(column.value for column in values), whole=whole)
    right, bottom = WIDTH - _RIGHT, _TOP + _PLOT_HEIGHT
    width = (right - _LEFT) / len(values)
    parts = [Markup('<text class="faint" x="0" y="12">{}</text>').format(titles[0])]
    for tick in upward:
        y = bottom - _PLOT_HEIGHT * tick / highest
        parts.append(
            Markup(
                '<path class="grid" d="M{} {:.1f}H{}"/><text class="faint end" x="{}" y="{:.1f}">{}</text>'
            ).format(_LEFT, y, right, _LEFT - 6, y + 4, short(tick))
        )
    for place, column in enumerate(values):
        height = max(_PLOT_HEIGHT * column.value / highest, 1 if column.value else 0)
        left, gap = _LEFT + width * place, min(1.0, width / 6)
        parts.append(
            Markup(
                '<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}">'
                "<title>{}</title></rect>"
            ).format(kind, left + gap / 2, bottom - height, width - gap, height, one_line(column.text))
        )
    parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(_LEFT, bottom, right))
    for place_, text in ticks:
        x = _LEFT + (right - _LEFT) * place_
        parts.append(
            Markup(
                '<path class="axis" d="M{:.1f} {}v4"/><text class="faint middle" x="{:.1f}" y="{}">{}</text>'
            ).format(x, bottom, x, bottom + 18, text)
        )
    middle = (_LEFT + right) / 2
    below = Markup('<text class="faint middle" x="{}" y="{}">{}</text>')
    parts.append(below.format(middle, bottom + 37, titles[1]))
    return _svg(bottom + 44, "columns", name, parts)


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]], name: str) -> Markup:
    """A square of cells, darker the higher their counts are.

    Args:
        names: of the rows, and of the columns.
        counts: of each row, from left to right.
        name: what the chart says, for those who do not see it.
    """
    left, top, right = 100, 74, 26  # names above the last cells lean over
    cell = (WIDTH - left - right) / len(names)
    height = min(cell, 40)
    highest = max(map(max, counts)) or 1
    parts = []
    for row, text in enumerate(names):
        label = Markup('<text class="end" x="{}" y="{:.1f}">{}<title>{}</title></text>')
        parts.append(label.format(left - 6, top + height * (row + 0.5) + 4, cut(text, 13), one_line(text)))
        x = left + cell * (row + 0.5)
        head = Markup(
            '<text transform="translate({:.1f} {}) rotate(-50)" x="0" y="0">{}<title>{}</title></text>'
        )
        parts.append(head.format(x, top - 6, cut(text, 13), one_line(text)))
        for column, count in enumerate(counts[row]):
            what = f"{one_line(text)} and {one_line(names[column])}" if row != column else one_line(text)
            square = Markup(
                '<g><title>{}: {:,}</title><rect class="cell" x="{:.1f}" y="{:.1f}" width="{:.1f}" '
                'height="{:.1f}" fill-opacity="{:.2f}"/>'
                '<text class="small middle" x="{:.1f}" y="{:.1f}">{}</text></g>'
            )
            parts.append(
                square.format(
                    *(what, count, left + cell * column + 1, top + height * row + 1, cell - 2, height - 2),
                    0.06 + 0.5 * math.sqrt(count / highest),
                    *(left + cell * (column + 0.5), top + height * (row + 0.5) + 4, short(count)),
                )
            )
    return _svg(math.ceil(top + height * len(names)) + 2, "matrix", name, parts)


def scale(highest: float, *, whole: bool) -> tuple[float, list[float]]:
    """The end of an axis from 0 on which a value fits, and its ticks: two to six round numbers.

    Args:
        highest: the value.
        whole: whether ticks are whole numbers, as of what is counted.
    """
    if highest <= 0:
        return 1, [0, 1]
    power = 10.0 ** math.floor(math.log10(highest / 3))
    step = next(power * factor for factor in (1, 2, 5, 10) if highest <= power * factor * 5)
    step = max(step, 1) if whole else step
    ticks = math.ceil(highest / step - 1e-9)
    return step * ticks, [step * tick for tick in range(ticks + 1)]


def short(number: float) -> str:
    """A number in at most five characters, as an axis has it: 950, 1.2k, 35k, 1.2M."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit * 0.9995:
            scaled = number / unit
            return f"{scaled:.1f}".removesuffix(".0") + suffix if scaled < 9.95 else f"{scaled:.0f}{suffix}"
    return f"{number:.3g}"


def cut(text: str, letters: int) -> str:
    """The beginning of a text in one line, with "…" where it is longer than so many letters."""
    text = one_line(text)
    return text if len(text) <= letters else f"{text[: max(letters - 1, 1)].rstrip()}…"


def _svg(height: int, kind: str, name: str | None, parts: Sequence[Markup]) -> Markup:
    """A chart; one with a name is a picture for those who do not see it, of another they read the texts."""
    named = Markup(' role="img" aria-label="{}"').format(one_line(name)) if name else Markup("")
    head = Markup('<svg class="chart {}" viewBox="0 0 {} {}"{}>').format(kind, WIDTH, height, named)
    return head + Markup("").join(parts) + Markup("</svg>")
