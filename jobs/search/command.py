"""`raylabel search`: what a query finds in a run, for a person or a program."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.results.plain import dump_json
from jobs.results.query import save_result
from jobs.results.status import unfinished
from jobs.results.text import short_uris, shorten
from jobs.search.hits import Hit, Hits, Match
from jobs.search.searcher import Searcher
from schemas.exceptions import SpecError
from schemas.words import counted
from workers.printable import one_line, printable
from workers.process.streams import print_error

LIMIT = 20
"""Images that are shown, by default."""

_NAME_CELLS, _VALUE_CELLS = 14, 20
"""Cells of a terminal that the name of a column and a value that is asked about take, at most."""

_URI_CELLS = 20
"""And at least those of where an image is."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How a search is answered.

    Attributes:
        like: the row or URI of an image of the run, or a photo: see `Searcher.like`.
        sort: see `jobs.search.compiler.compile_order`; None: best first, or most alike.
        limit: images; None: `LIMIT` of them, but all for URIs and files where nothing has to be alike.
        facets: whether to count classes, labels and values of columns.
        as_json: print an object for a program: docs/json.md.
        uris: print the URIs alone, a line each.
        file: write the hits into this file, Parquet or CSV.
        index: the index; None: that beside the tables.
        text: what the images are to look like, in words; see `Searcher.similar_to_text`.
    """

    like: str | None = None
    sort: str | None = None
    limit: int | None = None
    facets: bool = False
    as_json: bool = False
    uris: bool = False
    file: Path | None = None
    index: Path | None = None
    text: str | None = None


def search_run(output: str, query: str, options: SearchOptions) -> None:
    """Answers a query over a run.

    Args:
        output: the run directory.
        query: see docs/search.md.
        options: how.

    Raises:
        SpecError: the query or an option is none.
        ModelError: the run's embedder cannot be built as it was, or has no half for texts.
        StorageError: there is no run, or no index that can be read, or the file cannot be written.
        OutputConflictError: the index is older than the run's tables.
    """
    file = options.file
    _assert_one_way(options)
    with Searcher(output, options.index) as searcher, searcher.search(query) as hits:
        if note := unfinished(searcher.run):
            print_error(f"note: {note}")
        for advice in searcher.advice(query, hits):
            print_error(f"note: {advice.text}")
        if options.like is not None:
            hits.narrow(searcher.similar(hits, options.like, options.limit or LIMIT))
        elif options.text is not None:
            hits.narrow(searcher.similar_to_text(hits, options.text, options.limit or LIMIT))
        if file:
            save_result(
                file,
                [searcher.run.record],
                partial(hits.save, sort=options.sort, limit=options.limit),
                partial(hits.all, options.sort, options.limit),
            )
            print_error(f"written: {file}")
        elif options.uris:
            _print_uris(hits, options)
        elif options.as_json:
            facets = hits.facets() if options.facets else None
            print(dump_json(hits.to_dict(query, _first(hits, options), facets)))
        else:
            _print(hits, options, Console(highlight=False))


def _assert_one_way(options: SearchOptions) -> None:
    """Refuses options of which only one could be heeded."""
    ways = {"-o": options.file, "--uris": options.uris, "--json": options.as_json}
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise SpecError(f"found {' and '.join(given)}; allowed is one of them")
    if options.like is not None and options.text is not None:
        raise SpecError("found --like and --text; allowed is one of them")
    if options.facets and given and given != ["--json"]:
        raise SpecError(f"--facets counts for a person or for --json; found it with {given[0]}")


def _print_uris(hits: Hits, options: SearchOptions) -> None:
    """The URIs, a line each: what would be a line break, or act on a terminal, is escaped, and said."""
    escaped = 0
    for row in hits.all(options.sort, options.limit):
        shown = printable(row[1]).replace("\n", "\\n")
        escaped += shown != row[1]
        print(shown)
    if escaped:
        uris = counted(escaped, "URI has", "URIs have")
        print_error(f"note: {uris} characters that are escaped here; --json and -o give them as they are")


def _first(hits: Hits, options: SearchOptions) -> list[Hit]:
    """The hits that are shown."""
    return hits.first(LIMIT if options.limit is None else options.limit, sort=options.sort)


def _print(hits: Hits, options: SearchOptions, console: Console) -> None:
    """The first hits as a table that fits the terminal, and the facets."""
    first = _first(hits, options)
    if first:
        console.print(_table(first, hits, console.width))
    if options.facets:
        for name, values in hits.facets().items():
            shown = ", ".join(f"{value.value or '(empty)'} {value.images:,}" for value in values)
            console.print(printable(f"{name}: {shown}"), markup=False, soft_wrap=True)
    found = f"{counted(hits.total, 'image')} of {hits.out_of:,}"
    if hits.compared is not None:
        found = f"the {hits.total:,} most alike of {counted(hits.out_of, 'image')}"
    elif hits.total > len(first):
        found += f"; the first {len(first):,} are shown, --limit shows more"
    console.print(found, markup=False, soft_wrap=True)


def _table(hits: Sequence[Hit], found: Hits, width: int) -> Table:
    """Rows, what they have of the words and of what else is asked about, and where they are.

    Without words it is the best label and the number of objects. What does not fit beside a URI is left out.
    """
    columns: list[tuple[str, list[str]]] = [
        (found.name_of("manifest_index"), [str(hit.manifest_index) for hit in hits])
    ]
    if hits[0].similarity is not None:
        columns.append(("alike", [f"{hit.similarity:.3f}" for hit in hits]))
    columns += [(word.name, [_match(hit.matches.get(word.name)) for hit in hits]) for word in found.words]
    if not found.words:
        columns.append(("label", [_label(hit) for hit in hits]))
        objects = [str(hit.columns["object_count"] or "") for hit in hits]
        columns.append((found.name_of("object_count"), objects))
    if any(hit.error for hit in hits):
        columns.append(("error", [hit.error or "" for hit in hits]))
    there = [name for name, _ in columns] + ([] if found.words else ["score"])
    for name in hits[0].values:
        cells = [shorten(hit.values[name], _VALUE_CELLS) for hit in hits]
        if name not in there and _cells([*columns, (name, cells)]) + _URI_CELLS <= width:
            columns.append((name, cells))
    table = Table(box=box.SIMPLE_HEAD)
    table.show_edge = table.pad_edge = False
    for name in (*(name for name, _ in columns), "uri"):
        table.add_column(Text(shorten(name, _NAME_CELLS)), no_wrap=True)
    names = short_uris([hit.uri for hit in hits], max(width - _cells(columns), _URI_CELLS))
    for number, name in enumerate(names):
        table.add_row(*(Text(cells[number]) for _, cells in columns), Text(one_line(name)))
    return table


def _cells(columns: Sequence[tuple[str, Sequence[str]]]) -> int:
    """The width of columns, and of what is between them."""
    return sum(max(map(cell_len, [shorten(name, _NAME_CELLS), *cells])) + 3 for name, cells in columns)


def _match(match: Match | None) -> str:
    if match is None:
        return ""
    return f"{match.score:.2f}" if match.count is None else f"{match.count} · {match.score:.2f}"


def _label(hit: Hit) -> str:
    label, score = hit.columns["label"], hit.columns["score"]
    return "" if label is None else f"{shorten(str(label), 24)} {score:.2f}"
