"""The analyses of docs/analytics.md, each against the same thing counted in Python."""

import re
import shutil
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.results.plain import plain
from jobs.results.sql import Database
from tests.benchmarks.large_run import write_large_run
from tests.conftest import ROOT
from tests.jobs.results.test_datasets import begun, publish

PAGE = (ROOT / "docs" / "analytics.md").read_text(encoding="utf-8")
QUERIES = {
    (section.partition("\n")[0], number): query
    for section in PAGE.split("\n## ")[1:]
    for number, query in enumerate(re.findall(r"```sql\n(.*?)```", section, re.DOTALL))
}
URI = "s3://photos/2026/0000000/0000000012.jpg"
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two complete runs over the same images."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {name: str(folder / name) for name in ("before", "after")}
    for seed, output in enumerate(runs.values()):
        write_large_run(output, 3000, seed=seed, width=8)
    return runs


@pytest.fixture(scope="module")
def of_csv(outputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The first run as it is with a CSV manifest: its columns are text, and some of it is missing."""
    output = tmp_path_factory.mktemp("csv") / "run"
    shutil.copytree(outputs["before"], output)
    for file in (output / "labels").iterdir():
        table = pq.read_table(file)
        for name in ("taken", "photographer", "truth"):
            texts = table[name].cast(pa.string()).fill_null("").to_pylist()
            texts = ["" if number % 7 == 3 else text for number, text in enumerate(texts)]
            table = table.set_column(table.column_names.index(name), name, pa.array(texts, pa.string()))
        pq.write_table(table, file)
    return {"before": str(output), "after": outputs["after"]}


@pytest.fixture(scope="module")
def tables(outputs: dict[str, str]) -> dict[str, Rows]:
    """The tables of the first run, and the labels of the second."""
    with Database({"": outputs["before"], "after": outputs["after"]}) as database:
        names = ("labels", "boxes", "errors", "objects", "embeddings", "after.labels")
        return {name: list(database.rows(f"FROM {name}")) for name in names}


def answer(outputs: dict[str, str], title: str, number: int = 0, uri: str = URI) -> list[tuple[Any, ...]]:
    """The rows of a query of the page, of another image than the page's where a URI is given."""
    query = QUERIES[title, number].replace(URI, uri)
    with Database(outputs if "before." in query else {"": outputs["before"]}) as database:
        return [tuple(plain(value) for value in row.values()) for row in database.rows(query)]


def test_every_query_of_the_page_is_tested_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert len({title for title, _ in QUERIES}) == 12
    for title, number in QUERIES:
        assert f'"{title}", {number}' in source if number else f'"{title}"' in source


def test_classes_that_occur_together(outputs: dict[str, str], tables: dict[str, Rows]) -> None:
    classes = defaultdict(set)
    for box in tables["boxes"]:
        classes[box["manifest_index"]].add(box["class_name"])
    alone = Counter(name for names in classes.values() for name in names)
    both = Counter(frozenset(pair) for names in classes.values() for pair in combinations(names, 2))
    together = {name: both[frozenset(("person", name))] for name in alone if name != "person"}
    images = len(tables["labels"])
    expected = [
        (name, n, pytest.approx(n * images / (alone[name] * alone["person"])))
        for name, n in sorted(together.items(), key=lambda it: (-it[1], it[0]))[:10]
    ]
    assert answer(outputs, "Classes that occur together") == expected


def test_objects_by_month(outputs: dict[str, str], tables: dict[str, Rows]) -> None:
    taken = {row["manifest_index"]: f"{row['taken']:%Y-%m}" for row in tables["labels"]}
    counts = Counter(
        (taken[box["manifest_index"]], box["class_name"])
        for box in tables["boxes"]
        if box["class_name"] in ("dog", "cat")
    )
    assert answer(outputs, "Objects by month") == [(*key, n) for key, n in sorted(counts.items())]


def test_objects_by_month_where_dates_are_text(of_csv: dict[str, str], tables: dict[str, Rows]) -> None:
    found = answer(of_csv, "Objects by month")
    missing = [row for row in found if row[0] is None]
    assert {name for _, name, _ in missing} == {"dog", "cat"}
    animals = [box for box in tables["boxes"] if box["class_name"] in ("dog", "cat")]
    assert sum(number for *_, number in found) == len(animals)
    assert all(re.fullmatch(r"20\d\d-\d\d", month) for month, *_ in found if month)


@pytest.mark.parametrize(("title", "number"), [query for query in QUERIES if "tags" not in query[0]])
def test_every_query_is_answered_where_columns_are_text(
    of_csv: dict[str, str], title: str, number: int
) -> None:
    answer(of_csv, title, number)


def test_images_for_annotators(outputs: dict[str, str], tables: dict[str, Rows]) -> None:
    rows = sorted(tables["labels"], key=lambda row: row["topk"][0]["score"] - row["topk"][1]["score"])[:100]
    found = answer(outputs, "Images for annotators")
    assert [row[:2] for row in found] == [(row["uri"], row["label"]) for row in rows]
    assert [row[3] for row in found] == [row["topk"][1]["label"] for row in rows]


def test_drift_between_two_runs(outputs: dict[str, str], tables: dict[str, Rows]) -> None:
    before, after = (Counter(row["label"] for row in tables[name]) for name in ("labels", "after.labels"))
    changes = [(name, before[name], after[name], after[name] - before[name]) for name in before | after]
    expected = sorted(changes, key=lambda it: (-abs(it[3]), it[0]))[:10]
    assert answer(outputs, "Drift between two runs") == expected
    other = {row["key"]: row["label"] for row in tables["after.labels"]}
    moves = defaultdict(list)
    for row in tables["labels"]:
        if other[row["key"]] != row["label"]:
            moves[row["label"], other[row["key"]]].append(row["uri"])
    ranked = sorted(moves.items(), key=lambda it: (-len(it[1]), it[0]))[:10]
    found = answer(outputs, "Drift between two runs", 1)
    assert found == [(*move, len(uris), min(uris)) for move, uris in ranked]


def test_the_biggest_objects(outputs: dict[str, str], tables: dict[str, Rows]) -> None:
    dogs = [row for row in tables["objects"] if row["class_name"] == "dog"]
    rows = sorted(dogs, key=lambda row: -row["area"])[:10]
    areas = [(r["x2"] - r["x1"]) * (r["y2"] - r["y1"]) / (r["width"] * r["height"]) for r in rows]
    found = answer(outputs, "The biggest objects")
    assert [row[0] for row in found] == [row["uri"] for row in rows]
    assert [row[3] for row in found] == pytest.approx([100 * area for area in areas], abs=0.06)


def test_exact_duplicates(outputs: dict[str, str], tables: dict[str, Rows]) -> None:
    files = defaultdict(list)
    for row in tables["labels"]:
        files[row["sha256"]].append(row["uri"])
    copies = sorted((uris[0], uris[1:]) for uris in files.values() if len(uris) > 1)
    assert len(copies) == 58
    assert answer(outputs, "Exact duplicates") == [(2, first, others) for first, others in copies]


def test_images_that_look_alike(outputs: dict[str, str], tables: dict[str, Rows]) -> None:
    rows = tables["embeddings"]
    vectors = np.array([row["embedding"] for row in rows])
    cosines = vectors[:10] @ vectors.T
    np.fill_diagonal(cosines, -1)
    best = np.argsort(-cosines, axis=None)[:20]
    expected = [(rows[i // len(rows)]["uri"], rows[i % len(rows)]["uri"]) for i in best.tolist()]
    found = answer(outputs, "Images that look alike")
    assert [row[:2] for row in found] == expected
    assert [row[2] for row in found] == pytest.approx(
        np.sort(cosines, axis=None)[::-1][:20].tolist(), abs=1e-5
    )


def test_images_by_their_tags(tmp_path: Path) -> None:
    publish(begun(str(tmp_path)), 0)
    found = answer({"before": str(tmp_path)}, "Images by their tags")
    both = [n for n in range(24) if n % 4 != 3 and n % 3 == 2]
    assert [row[0] for row in found] == [f"s3://bucket/{n}.jpg" for n in both]
    scene = ["scene: indoors", "scene: outdoors"]
    own = ["scene: indoors", "classifier: palace", "scene: outdoors"]
    assert [row[1] for row in found] == [own if n % 2 == 0 else scene for n in both]


def test_images_without_any_object(outputs: dict[str, str], tables: dict[str, Rows]) -> None:
    crowded = {box["manifest_index"] for box in tables["boxes"]}
    rows = [row for row in tables["labels"] if row["manifest_index"] not in crowded]
    rows.sort(key=lambda row: -row["score"])
    assert [row[0] for row in answer(outputs, "Images without any object")] == [
        row["uri"] for row in rows[:100]
    ]


def test_images_without_a_class(outputs: dict[str, str], tables: dict[str, Rows]) -> None:
    people = {box["manifest_index"] for box in tables["boxes"] if box["class_name"] == "person"}
    images = Counter(row["photographer"] for row in tables["labels"])
    nobody = Counter(row["photographer"] for row in tables["labels"] if row["manifest_index"] not in people)
    expected = [(name, images[name], nobody[name]) for name in ("Ann", "Bo", "Cleo")]
    assert answer(outputs, "Images without a class") == expected


def test_a_class_is_not_counted_where_no_detector_ran(outputs: dict[str, str]) -> None:
    query = "SELECT class_count(NULL::MAP(VARCHAR, INT), 'x') AS a, class_count(MAP {'y': 2}, 'x') AS b, "
    query += "class_count(MAP {'y': 2}, 'y') AS c"
    with Database({"": outputs["before"]}) as database:
        assert database.row(query) == {"a": None, "b": 0, "c": 2}


def test_scores_that_are_right(outputs: dict[str, str], tables: dict[str, Rows]) -> None:
    bins = defaultdict(list)
    for row in tables["labels"]:
        bins[min(int(row["score"] * 10), 9)].append(row["label"] == row["truth"])
    found = answer(outputs, "Are the scores right?")
    assert [row[:2] for row in found] == [(b / 10, len(rights)) for b, rights in sorted(bins.items())]
    assert [row[3] for row in found] == pytest.approx([sum(r) / len(r) for _, r in sorted(bins.items())])
    assert all(abs(right - mean) < 0.15 for _, images, mean, right in found if images > 100)  # as it was made


def test_scores_of_images_without_a_truth_are_neither_right_nor_wrong(
    of_csv: dict[str, str], tables: dict[str, Rows]
) -> None:
    rows = [row for number, row in enumerate(tables["labels"]) if number % 7 != 3]
    found = answer(of_csv, "Are the scores right?")
    assert sum(images for _, images, *_ in found) == len(rows)
    right = sum(images * share for _, images, _, share in found)
    assert right == pytest.approx(sum(row["label"] == row["truth"] for row in rows))


@pytest.mark.parametrize("row", [12, 99])
def test_everything_about_one_image(outputs: dict[str, str], tables: dict[str, Rows], row: int) -> None:
    uri = f"s3://photos/2026/0000000/{row:010d}.jpg"
    found = answer(outputs, "Everything about one image", uri=uri)
    if row == 99:
        assert found == [("error", "NOT_FOUND: no such object", None, None)]
        return
    (labels,) = ([entry["label"] for entry in it["topk"]] for it in tables["labels"] if it["uri"] == uri)
    boxes = [box for box in tables["boxes"] if box["uri"] == uri]
    assert [(what, name) for what, name, *_ in found] == [
        *(("label", label) for label in labels),
        *(("object", box["class_name"]) for box in boxes),
    ]
    corners = [box for *_, box in found if box]
    assert corners == [[pytest.approx(box[name]) for name in ("x1", "y1", "x2", "y2")] for box in boxes]
