"""Commands that find images in a run: index, search, serve."""

import re
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import JsonOption, Output, QueryCommand, output_of, whole_or_nothing


class SearchCommand(QueryCommand):
    """A command with a query: what begins with one "-", as `-cat` does, is no option but for `-o`."""

    begins = re.compile(r"-(?!-|o$).")


IndexOption = Annotated[
    Path | None,
    typer.Option("--index", help="The index, where it is not beside the tables.", show_default=False),
]


def index(
    output: Output,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            help="File to write, instead of search.duckdb beside the tables; it ends in .duckdb.",
            show_default=False,
        ),
    ] = None,
    min_label_score: Annotated[
        float,
        typer.Option(min=0, max=1, help="Labels beside an image's best one are found from this score on."),
    ] = 0.1,
    vectors: Annotated[
        bool,
        typer.Option(
            "--vectors", help="Also index the embeddings, for millions of images; needs raylabel[lance]."
        ),
    ] = False,
) -> None:
    """Make the index of a run, which `raylabel search` answers from.

    For example: raylabel index OUT, and then raylabel search OUT 'dog person>=2 -cat'
    """
    from jobs.search.build import index_run

    with whole_or_nothing():
        index_run(output_of(output), into, min_label_score, vectors=vectors)


def search(
    output: Output,
    query: Annotated[
        str,
        typer.Argument(
            help="What to find; all images where it is empty. One that begins with - goes last, after --."
        ),
    ] = "",
    like: Annotated[
        str | None,
        typer.Option(
            metavar="PHOTO|URI|ROW",
            help="The images that look most like one of the run, or like another photo.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help="The images that look most like what words say; the embedder is a folder of CLIP or SigLIP.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Order: a column, class or label, car.score, car.area, best or row; -NAME is the reverse.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Images to give [default: 20; all with --uris and -o].", show_default=False),
    ] = None,
    facets: Annotated[
        bool, typer.Option("--facets", help="Also count the classes, labels and values of what is found.")
    ] = False,
    uris: Annotated[bool, typer.Option("--uris", help="Print the URIs alone, a line each.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "-o",
            help="Write what is found into a file that ends in .parquet or .csv; replaced where it exists.",
            show_default=False,
        ),
    ] = None,
    index_: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find images in a run by what they show; docs/search.md has the language.

    For example: raylabel search OUT 'dog person>=2 car.score>0.6 -cat' --facets
    """
    from jobs.search.command import SearchOptions, search_run

    options = SearchOptions(like, sort, limit, facets, as_json, uris, file, index_, text)
    search_run(output_of(output), query, options)


def serve(
    outputs: Annotated[list[str], typer.Argument(help="Run directories, or their job specs.")],
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
    ] = 8899,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; where others can reach it, a token is asked for."),
    ] = "127.0.0.1",
    index_: IndexOption = None,
) -> None:
    """Show a page in the browser that finds images in runs; docs/search-page.md describes it.

    For example: raylabel index OUT, and then raylabel serve OUT
    """
    from jobs.serve.command import serve_runs

    serve_runs([output_of(output) for output in outputs], host, port, index_)
