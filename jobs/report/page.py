"""The report of a run: one self-contained HTML page."""

from html import escape

from jobs.results.images import ImageRow
from jobs.results.summary import OBJECT_BINS, Summary
from jobs.results.text import scored, short_uris
from schemas.words import counted
from workers.storage.store import Store

REPORT = "report.html"
"""The report's key in the run's store."""

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f4f5f7; --ink: #1b1f24; --faint: #5d6673;
  --line: #d9dde3; --label: #3b7ddd; --object: #1f9d78; --bad: #c8372d; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --card: #1f242a; --ink: #e8eaed;
  --faint: #9aa3af; --line: #353c45; --label: #6ea3f0; --object: #44c29b; --bad: #f0776e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 0 0 .75rem; }
p { margin: .25rem 0; }
.faint { color: var(--faint); }
.path { overflow-wrap: anywhere; }
.numbers { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0; }
.numbers div, section { background: var(--card); border-radius: .6rem; padding: 1rem 1.25rem; }
.numbers div { flex: 1 1 9rem; }
.numbers b { display: block; font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); gap: .75rem; }
section { margin: 0; overflow-x: auto; }
.wide { margin-top: .75rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; overflow-wrap: break-word;
  border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--faint); font-weight: 500; }
td:last-child { overflow-wrap: anywhere; padding-right: 0; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.bars { table-layout: fixed; }
.bars td { border: 0; padding-block: .1rem; }
.bars th:first-child { width: 36%; }
.bars th:last-child { width: 32%; padding-right: 0; }
.bars i, .columns i { display: block; border-radius: .2rem; background: var(--label); }
.bars i { height: .8rem; min-width: 2px; margin-top: .35rem; }
.objects i { background: var(--object); }
.columns { display: flex; align-items: flex-end; gap: 3px; height: 10rem; }
.columns div { flex: 1; display: flex; flex-direction: column; justify-content: flex-end; height: 100%; }
.ticks { display: flex; gap: 3px; border-top: 1px solid var(--line); color: var(--faint); font-size: .8rem; }
.ticks span { flex: 1; text-align: center; white-space: nowrap; }
.ticks.edges { justify-content: space-between; }
.ticks.edges span { flex: none; }
.bad { color: var(--bad); }
"""


def write_report(summary: Summary, facts: dict[str, str]) -> str:
    """Writes OUT/report.html of a run.

    Args:
        summary: of its tables.
        facts: name and value of the lines about the run: manifest, models, times, rates.

    Returns:
        The report's path or URL.
    """
    store = Store(summary.output)
    store.write(REPORT, render_html(summary, facts).encode())
    return f"{store.url}/{REPORT}"


def render_html(summary: Summary, facts: dict[str, str]) -> str:
    """The HTML of a report. It loads nothing, runs no script, and escapes all values."""
    scores = _columns(summary.scores, ["0", "0.25", "0.5", "0.75", "1"], "edges")
    last = OBJECT_BINS - 1
    objects = _columns(summary.objects_per_image, [*map(str, range(last)), f"{last}+"], "objects")
    cards = [
        _card(_title("Labels", len(summary.labels), summary.distinct_labels), _label_bars(summary)),
        _card(_title("Objects", len(summary.classes), summary.distinct_classes), _class_bars(summary)),
        _card(_title("Tags", len(summary.tags), summary.distinct_tags), _tag_bars(summary)),
        _card("Images by the score of their label", scores),
        _card("Images by their number of objects", objects),
    ]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>raylabel: {escape(summary.output)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f'<h1>Results</h1>\n<p class="faint path">{escape(summary.output)}</p>',
            _numbers(summary),
            f'<div class="grid">{"".join(cards)}</div>',
            _card("Failed", _errors(summary), wide=True),
            _card(
                _title("Images", len(summary.images), summary.labelled), _images(summary.images), wide=True
            ),
            _card("The run", _table((), [_row(name, value) for name, value in facts.items()]), wide=True),
            "</body>\n</html>\n",
        ]
    )


def _numbers(summary: Summary) -> str:
    images = counted(summary.labelled + summary.failed, "image")
    numbers = [images, f"{summary.labelled:,} labelled", f"{summary.failed:,} failed"]
    if summary.objects is not None:
        numbers.append(counted(summary.objects, "object"))
    if summary.embeddings:
        numbers.append(counted(summary.embeddings, "embedding"))
    bad = ' class="bad"' if summary.failed else ""
    pairs = (text.split(" ") for text in numbers)
    cells = (f"<div><b{bad if noun == 'failed' else ''}>{n}</b>{noun}</div>" for n, noun in pairs)
    return f'<div class="numbers">{"".join(cells)}</div>'


def _card(title: str, content: str, wide: bool = False) -> str:
    """A box with a title; empty where it has no content."""
    if not content:
        return ""
    kind = ' class="wide"' if wide else ""
    return f"<section{kind}>\n<h2>{escape(title)}</h2>\n{content}\n</section>\n"


def _title(title: str, shown: int, total: int) -> str:
    """A card's title, with the number of rows where it does not show all."""
    return title if shown == total else f"{title}: {shown:,} of {total:,}"


def _label_bars(summary: Summary) -> str:
    rows = [(count.label, count.images, f"{count.images:,}") for count in summary.labels]
    return _bars(("label", "images"), rows, "labels")


def _class_bars(summary: Summary) -> str:
    rows = [(c.class_name, c.objects, f"{c.objects:,} in {c.images:,}") for c in summary.classes]
    return _bars(("class", "objects in images"), rows, "objects")


def _tag_bars(summary: Summary) -> str:
    rows = [(f"{c.tagger}: {c.label}", c.images, f"{c.images:,}") for c in summary.tags]
    return _bars(("tag", "images"), rows, "labels")


def _bars(heads: tuple[str, str], rows: list[tuple[str, int, str]], kind: str) -> str:
    """A table of names with bars as long as their counts; empty without rows."""
    longest = max((count for _, count, _ in rows), default=0)
    lines = "\n".join(
        f'<tr><td>{escape(name)}</td><td><i style="width:{count / longest:.1%}"></i></td>'
        f'<td class="number">{text}</td></tr>'
        for name, count, text in rows
    )
    head = f'<thead><tr><th>{heads[0]}</th><th></th><th class="number">{heads[1]}</th></tr></thead>'
    return f'<table class="bars {kind}">{head}\n{lines}\n</table>' if rows else ""


def _columns(counts: tuple[int, ...], ticks: list[str], kind: str) -> str:
    """A histogram with the counts as tooltips; empty without counts."""
    if not counts:
        return ""
    bars = (f'<div title="{n:,}"><i style="height:{n / max(*counts, 1):.1%}"></i></div>' for n in counts)
    labels = (f"<span>{tick}</span>" for tick in ticks)
    return (
        f'<div class="columns {kind}">{"".join(bars)}</div><div class="ticks {kind}">{"".join(labels)}</div>'
    )


def _errors(summary: Summary) -> str:
    rows = [
        _row(error.stage, error.code, error.images, f"{error.uri}: {error.message}")
        for error in summary.errors
    ]
    return _table(("stage", "code", "images", "for example"), rows)


def _images(images: tuple[ImageRow, ...]) -> str:
    rows = []
    for image, name in zip(images, short_uris((image.uri for image in images), 40), strict=True):
        label, *others = [scored(*found) for found in image.topk] or [""]
        objects = ", ".join(f"{name} x{n}" for name, n in image.objects or ())
        size = f"{image.width}x{image.height}"
        rows.append(_row(image.manifest_index, name, size, label, ", ".join(others), objects))
    return _table(("row", "image", "size", "label", "runners-up", "objects"), rows)


def _table(heads: tuple[str, ...], rows: list[str]) -> str:
    """A table; empty without rows."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "\n".join(rows)
    return f"<table><thead><tr>{head}</tr></thead>\n{body}\n</table>" if rows else ""


def _row(*cells: str | int) -> str:
    """A table row; numbers are aligned to the right."""
    columns = (
        f'<td class="number">{cell:,}</td>' if isinstance(cell, int) else f"<td>{escape(cell)}</td>"
        for cell in cells
    )
    return f"<tr>{''.join(columns)}</tr>"
