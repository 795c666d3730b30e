"""Searches of a made-up run: the index beside SQLite's FTS5 and scans of the Parquet files.

    python -m tests.benchmarks.search [--images 1000000] [--folder FOLDER] [--vectors 1280]

The folder keeps the run and what is made of it, for the next time. Each query is asked `ROUNDS` times, the
engines in turn, with the first 50 hits and their number; figures are medians.
"""

import argparse
import resource
import sqlite3
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import duckdb
import numpy as np

from jobs.exports.command import export_run
from jobs.results.sql import Database
from jobs.search.build import make_index, make_vectors
from jobs.search.index import vectors_of
from jobs.search.searcher import Searcher
from jobs.search.similar import embedding_of_row, embeddings, nearest
from jobs.search.vectors import Vectors
from tests.benchmarks.large_run import write_large_run

MOST_FOR_FTS = 1_000_000
ROUNDS = 7
FIRST = 50

QUERIES = {
    "dog person>=2 car.score>0.6 -cat": (
        "class_counts['dog'] > 0 AND class_counts['person'] >= 2 AND coalesce(class_counts['cat'], 0) = 0 "
        "AND manifest_index IN (SELECT manifest_index FROM boxes WHERE class_name = 'car' AND score > 0.6)",
        'classes: "dog" AND classes: "person" AND classes: "car" NOT classes: "cat"',
    ),
    "person": ("class_counts['person'] > 0", 'classes: "person"'),
    '"class 20"': ("class_counts['class 20'] > 0", 'classes: "class 20"'),
    '"label 3"': ("list_contains([entry.label FOR entry IN topk], 'label 3')", 'labels: "label 3"'),
    '"label 3" person': (
        "list_contains([entry.label FOR entry IN topk], 'label 3') AND class_counts['person'] > 0",
        'labels: "label 3" AND classes: "person"',
    ),
    "dog OR cat": ("class_counts['dog'] > 0 OR class_counts['cat'] > 0", 'classes: "dog" OR classes: "cat"'),
    "person<2": ("coalesce(class_counts['person'], 0) < 2", None),
    "photographer=Ann dog": ("lower(photographer) = 'ann' AND class_counts['dog'] > 0", None),
    "taken>=2023 taken<2023-07 cat": (
        "taken >= DATE '2023-01-01' AND taken < DATE '2023-07-01' AND class_counts['cat'] > 0",
        None,
    ),
    "uri~00991": ("contains(uri, '00991')", None),
    "score<0.3": ("score < 0.3", None),
    "error:*": (None, None),
}
"""Each as a condition for a scan of the labels table, and for SQLite's FTS5 as far as that can say it."""


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--vectors", type=int, help="width of embeddings; without it there are none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        output = folder / f"run-{options.images}-{options.vectors or 0}"
        if not (output / "_SUCCESS").exists():
            write_large_run(str(output), options.images, options.vectors)
        _measure_index(str(output), options.images)
        # the export of more takes longer than all the rest
        fts = folder / f"fts-{options.images}.sqlite" if options.images <= MOST_FOR_FTS else None
        _measure_queries(str(output), fts)
        if options.vectors:
            _measure_vectors(str(output))


def _measure_index(output: str, images: int) -> None:
    began = time.monotonic()
    _, file = make_index(output)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = Path(file).stat().st_size / 1e6
    print(f"index: {images / seconds:,.0f} images/s, {seconds:.1f} s, {size:,.0f} MB, peak {peak:,.0f} MB")


class Engines:
    """What answers a query: the first hits, and their number.

    Args:
        output: the run, with its index.
        fts: the run as an export for SQLite; None: there is none.
    """

    def __init__(self, output: str, fts: Path | None) -> None:
        self.searcher = Searcher(output)
        self._sqlite = sqlite3.connect(fts or ":memory:")
        self._scans = duckdb.connect()
        for table in ("labels", "boxes"):
            self._scans.execute(f"CREATE VIEW {table} AS FROM '{output}/{table}/*.parquet'")

    def index(self, query: str) -> int:
        """By the index."""
        with self.searcher.search(query) as hits:
            hits.first(FIRST)
            return hits.total

    def facets(self, query: str) -> int:
        """The index, counting facets."""
        with self.searcher.search(query) as hits:
            return len(hits.facets())

    def fts(self, words: str) -> int:
        """By SQLite's FTS5."""
        found = "SELECT {} FROM search WHERE search MATCH ?"
        ((count,),) = self._sqlite.execute(found.format("count(*)"), [words]).fetchall()
        rows = f"SELECT * FROM images WHERE id IN ({found.format('rowid')} LIMIT {FIRST})"
        self._sqlite.execute(rows, [words]).fetchall()
        return int(count)

    def scan(self, where: str) -> int:
        """By DuckDB on the Parquet files."""
        ((count,),) = self._scans.execute(f"SELECT count(*) FROM labels WHERE {where}").fetchall()
        self._scans.execute(f"FROM labels WHERE {where} ORDER BY score DESC LIMIT {FIRST}").fetchall()
        return int(count)


def _measure_queries(output: str, fts: Path | None) -> None:
    if fts and not fts.exists():
        export_run(output, "sqlite", fts)
    engines = Engines(output, fts)
    print(f"{'query':36} {'hits':>9} {'index ms':>9} {'facets':>8} {'FTS5':>8} {'Parquet':>8}")
    medians = []
    for query, (where, words) in QUERIES.items():
        asked = {"index": partial(engines.index, query), "facets": partial(engines.facets, query)}
        asked |= {"fts": partial(engines.fts, words)} if words and fts else {}
        asked |= {"scan": partial(engines.scan, where)} if where else {}
        times: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(ROUNDS):
            for name, ask in asked.items():
                began = time.perf_counter()
                ask()
                times[name].append(1e3 * (time.perf_counter() - began))
        shown = {name: f"{statistics.median(values):.0f}" for name, values in times.items()}
        medians.append(statistics.median(times["index"]))
        others = " ".join(f"{shown.get(name, ''):>8}" for name in ("facets", "fts", "scan"))
        print(f"{query:36} {engines.index(query):9,} {shown['index']:>9} {others}", flush=True)
    print(f"median of the queries' medians: {statistics.median(medians):.0f} ms")


def _measure_vectors(output: str) -> None:
    """Recall of the ten nearest, and milliseconds; the vectors are made up, around a thousand centres."""
    began = time.monotonic()
    with Searcher(output) as searcher:
        state = searcher.about.state
    folder = vectors_of(Path(output, "search.duckdb"))
    rows = make_vectors(output, folder, state)
    print(f"vectors: {rows:,} in {time.monotonic() - began:.0f} s")
    opened = Vectors(folder, state, "")
    asked = np.random.default_rng(5).choice(rows, 20, replace=False)
    right, times, exact_times = 0, [], []
    with Database({"": output}) as database:
        first = next(embeddings(output))[0]
        for row in [int(first[one % len(first)]) for one in asked]:
            vector = embedding_of_row(database, row)
            began = time.perf_counter()
            found = opened.nearest(vector, 10, without=row) or []
            times.append(1e3 * (time.perf_counter() - began))
            began = time.perf_counter()
            exact = nearest(output, vector, 10, without=row)
            exact_times.append(1e3 * (time.perf_counter() - began))
            right += len({each.row for each in found} & {each.row for each in exact})
    print(
        f"recall@10 {right / 10 / len(asked):.3f}; median {statistics.median(times):.1f} ms, "
        f"exact {statistics.median(exact_times):,.0f} ms"
    )


if __name__ == "__main__":
    main()
