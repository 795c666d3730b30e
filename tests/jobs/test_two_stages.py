"""Tags and vectors of objects in everything that reads a run: whose they are is never lost."""

import csv
import io
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import raylabel
from jobs.exports.command import ExportOptions, export_run
from jobs.report.facts import find_facts
from jobs.results.draw import _caption_of
from jobs.results.images import ImageRow, Selection, Tag, read_images
from jobs.results.sql import Database
from jobs.results.summary import TagCount, summarize
from jobs.results.terminal import render
from jobs.search.build import make_index
from jobs.search.searcher import Searcher
from jobs.search.similar import assert_embeddings
from jobs.verify.checks import check_file, check_order, check_rows, declared
from jobs.verify.reconcile import verify_run
from schemas.exceptions import SpecError
from schemas.ledger import StagedFile
from schemas.spec_file import build_spec, parse_yaml
from schemas.tables import TABLES
from schemas.tasks import BoxChoice, BoxesSpec, ModelSpec
from tests.conftest import ROOT
from tests.jobs.exports.made_run import BOXES, TWO_STAGES, write_run
from tests.jobs.serve.conftest import serving
from workers.ledger.runs import find_run
from workers.tables.parquet import parquet_bytes

KINDS = ("heron", "robin", "crane")
OBJECTS = {row: len(boxes) for row, boxes in BOXES.items()}
"""Objects by manifest row."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tags of images and of objects, vectors of objects; its index. Tests only read it."""
    output = write_run(tmp_path_factory.mktemp("two stages"), TWO_STAGES)
    make_index(output)
    return output


def kinds_of(number: int) -> list[Tag]:
    """The tags that an object has of the tagger of boxes."""
    first, second = number % 3, (number + 1) % 3
    best = Tag("kind", first, KINDS[first], 0.75 + number / 16, number)
    return [best, Tag("kind", second, KINDS[second], 0.25, number)]


def scenes_of(row: int) -> list[Tag]:
    """The tags of a whole image."""
    return [Tag("scene", n, ("indoors", "outdoors")[n], (0.9, 0.5)[n]) for n in range(row % 3)]


def images_of(run: str, selection: Selection) -> Iterator[ImageRow]:
    with Database({"": run}) as database:
        yield from read_images(database, selection, ["boxes", "tags"])


@pytest.mark.parametrize("sort", [None, "width DESC"])
def test_an_image_comes_with_its_own_tags_and_each_object_with_its(run: str, sort: str | None) -> None:
    images = list(images_of(run, Selection(sort=sort)))
    assert len(images) == 8
    for image in images:
        row = image.manifest_index
        assert list(image.own_tags) == scenes_of(row)
        assert [box.object_index for box in image.boxes] == list(range(OBJECTS.get(row, 0)))
        assert [list(image.tags_of(box)) for box in image.boxes] == [
            kinds_of(n) for n in range(OBJECTS.get(row, 0))
        ]
        assert len(image.tags) == row % 3 + 2 * OBJECTS.get(row, 0)


def test_a_run_counts_images_that_have_a_tag_or_an_object_with_it(run: str) -> None:
    summary = summarize(run)
    objects = sum(OBJECTS.values())
    assert (summary.embeddings, summary.object_embeddings) == (0, objects)
    assert summary.tag_rows == 7 + 2 * objects
    assert {(one.tagger, one.label): one.images for one in summary.tags} == {
        ("kind", "heron"): 6,  # not 7: one image has two herons
        ("kind", "robin"): 6,
        ("kind", "crane"): 1,
        ("scene", "indoors"): 5,
        ("scene", "outdoors"): 2,
    }
    with Database({"": run}) as database:
        facts = find_facts(database)
    (kind,) = [one for one in facts.taggers if one.tagger == "kind"]
    assert (kind.rows, kind.distinct) == (2 * objects, 3)
    assert kind.tags[0] == TagCount("kind", "heron", 6)
    assert facts.tags == summary.tag_rows


def test_the_terminal_says_of_which_object_a_tag_is(run: str) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    render(summarize(run), console)
    text = console.export_text()
    assert "kind of object 0: heron 0.75, kind of object 1: robin 0.81, kind of object 2: crane 0.88" in text
    assert "scene: indoors 0.90" in text
    assert "8 embeddings of objects" in text


def test_a_drawn_box_is_called_by_its_class_and_the_best_tag_of_each_tagger(run: str) -> None:
    (image,) = images_of(run, Selection(limit=1))
    assert [_caption_of(box, image) for box in image.boxes] == [
        'a "big" <cat> & dog 0.94, heron 0.75',
        "v1.5 cup 0.62, robin 0.81",
        "naïve, café 0.50, crane 0.88",
    ]


def test_sql_has_both_tables_and_joins_them_by_object(run: str) -> None:
    with Database({"": run}) as database:
        rows = database.rows(
            "SELECT o.manifest_index AS row, object_index AS n, label, e.embedding::FLOAT[] AS vector "
            "FROM objects AS o JOIN tags AS t USING (manifest_index, object_index) "
            "JOIN object_embeddings AS e USING (manifest_index, object_index) "
            "WHERE t.score > 0.5 ORDER BY ALL"
        )
        found = [tuple(row.values()) for row in rows]
        assert database.row("SELECT typeof(embedding) AS kind FROM object_embeddings LIMIT 1") == {
            "kind": "FLOAT[2]"
        }
        with pytest.raises(SpecError, match="embeddings is made by `embedder:` in the job spec"):
            database.row("SELECT 1 FROM embeddings")
    assert found == [
        (row, n, KINDS[n % 3], [row, n]) for row, count in sorted(OBJECTS.items()) for n in range(count)
    ]


def test_python_has_the_vectors_of_objects_and_none_of_images(run: str) -> None:
    opened = raylabel.open_run(run)
    table = opened.object_embeddings().to_table()
    assert table.schema.names == TABLES["object_embeddings"].schema.names
    assert table["object_index"].to_pylist() == [n for row in sorted(OBJECTS) for n in range(OBJECTS[row])]
    with pytest.raises(raylabel.SpecError, match="has no table embeddings"):
        opened.embeddings()


def test_what_looks_alike_is_not_asked_of_vectors_of_objects(run: str) -> None:
    with pytest.raises(
        SpecError, match=r"has embeddings of objects .*, none of whole images.*object_embeddings"
    ):
        assert_embeddings(find_run(run))
    with (
        Searcher(run) as searcher,
        searcher.search("") as hits,
        pytest.raises(SpecError, match="none of whole images"),
    ):
        searcher.similar(hits, "0", 3)


def test_a_search_finds_images_by_the_tags_of_their_objects(run: str) -> None:
    with Searcher(run) as searcher:
        for query, expected in {
            "tagger.kind:heron": sorted(OBJECTS),
            "tagger.kind:crane": [0],
            "tagger.kind:robin.score>0.8": [0],
            "tagger.kind:heron tagger.scene:indoors": [row for row in sorted(OBJECTS) if row % 3],
        }.items():
            with searcher.search(query) as hits:
                assert [hit.manifest_index for hit in hits.first(20, 0, "row")] == expected, query


def test_a_run_whose_embedder_alone_gets_boxes_is_indexed(tmp_path: Path) -> None:
    models = {name: TWO_STAGES[name] for name in ("detector", "embedder")}
    output = write_run(tmp_path, models)
    make_index(output)
    with Searcher(output) as searcher, searcher.search("person") as hits:
        assert [hit.manifest_index for hit in hits.first(20, 0, "row")] == [2, 3, 6]


def test_the_page_shows_tags_beside_their_objects(run: str) -> None:
    with serving(run) as address, httpx.Client(base_url=address, timeout=60) as client:
        image = client.get("/api/image/0").json()
        pages = [client.get(f"/image/{row}").text for row in (0, 3)]
    assert image["tags"] == []
    assert image["labels"]  # of the whole image, though the embedder gets boxes
    assert [one["tags"] for one in image["objects"]] == [
        [{"tagger": "kind", "name": tag.label, "score": tag.score} for tag in kinds_of(n)] for n in range(3)
    ]
    assert '<span class="faint">kind</span> heron 0.75' in pages[0]
    assert "person: heron" in pages[1]  # on the photo


def test_exports_keep_tags_with_their_boxes_and_vectors_of_objects_are_told_as_left_out(
    run: str, tmp_path: Path
) -> None:
    done = export_run(run, "hf", tmp_path / "hf")
    assert "not in hf: embeddings of objects, 1 failed image" in done.notes
    row = pq.read_table(tmp_path / "hf" / "metadata.parquet").to_pylist()[0]
    assert row["tags"] == []
    assert row["objects"]["tags"] == [[tag.label for tag in kinds_of(n)] for n in range(3)]
    assert row["objects"]["tag_scores"] == [[tag.score for tag in kinds_of(n)] for n in range(3)]
    assert "embedding" not in row
    export_run(run, "labelstudio", tmp_path / "tasks")
    (file,) = (tmp_path / "tasks").glob("tasks-*.json")
    task = json.loads(file.read_text())[0]
    assert task["data"]["tags"] == []
    regions = [region["meta"]["text"] for region in task["predictions"][0]["result"]]
    assert regions[0] == ["kind: heron 0.75", "kind: robin 0.25"]
    export_run(run, "opensearch", tmp_path / "documents")
    body = json.loads((tmp_path / "documents" / "index.json").read_text())
    assert "embedding" not in body["mappings"]["properties"]
    (bulk,) = (tmp_path / "documents").glob("bulk-*.ndjson")
    document = json.loads(bulk.read_text().splitlines()[1])
    assert document["tags"] == ["heron", "robin", "crane"]
    export_run(run, "openimages", tmp_path / "csv")
    labels = next((tmp_path / "csv" / "annotations").glob("*imagelabels.csv"))
    with labels.open() as lines:
        found = [row[1:] for row in csv.reader(lines) if row[0].startswith("00000000") and row[1] == "kind"]
    assert found == [["kind", "heron", "0.75"], ["kind", "robin", "0.8125"], ["kind", "crane", "0.875"]]


def test_an_export_of_some_classes_has_the_tags_of_their_objects_only(run: str, tmp_path: Path) -> None:
    export_run(run, "sqlite", tmp_path / "run.sqlite", ExportOptions(classes=("v1.5 cup",)))
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as database:
        boxes = list(database.execute("SELECT id, class_name, object_index FROM boxes"))
        tags = list(database.execute("SELECT id, label, object_index FROM tags WHERE tagger = 'kind'"))
        searched = list(database.execute("SELECT tags FROM images WHERE id = 0"))
    assert boxes == [(0, "v1.5 cup", 1)]
    assert tags == [(0, "robin", 1), (0, "crane", 1)]
    assert searched == [("robin, crane",)]


@pytest.fixture(scope="module")
def files(run: str) -> dict[str, pa.Table]:
    return {name: pq.read_table(f"{run}/{name}/shard-00000.parquet") for name in find_run(run).tables.names}


def changed(table: pa.Table, column: str, at: int, value: Any) -> pa.Table:
    """A table with another value in a place."""
    values = table[column].to_pylist()
    values[at] = value
    place = table.column_names.index(column)
    return table.set_column(place, column, pa.array(values, table[column].type))


def issues(files: dict[str, pa.Table], name: str, table: pa.Table) -> list[str]:
    names = {one: one for one in files}
    found = [*check_order(name, table, name), *check_rows(names, {**files, name: table}, np.arange(9))]
    return [str(issue) for issue in found]


def test_reconcile_agrees_with_a_run_of_two_stages(run: str) -> None:
    report = verify_run(run)
    assert report.issues == ()
    assert report.tables["object_embeddings"] == sum(OBJECTS.values())


def test_tags_and_vectors_of_objects_that_are_not_there_are_found(files: dict[str, pa.Table]) -> None:
    tags, vectors = files["tags"], files["object_embeddings"]
    first = tags["object_index"].to_pylist().index(2)
    assert issues(files, "tags", changed(tags, "object_index", first, 3)) == [
        "tags: found tags of object 3 of manifest row 0; expected tags of objects that are in boxes"
    ]
    assert issues(files, "tags", pa.concat_tables([tags, tags.slice(len(tags) - 1)])) == [
        "tags: found a tag of manifest row 8 twice; expected each tag of a tagger once, of an image or of an "
        "object"
    ]
    last = len(vectors) - 1
    assert issues(files, "object_embeddings", changed(vectors, "object_index", last, 7)) == [
        "object_embeddings: found object_embeddings of object 7 of manifest row 7; expected "
        "object_embeddings of objects that are in boxes"
    ]
    twice = pa.concat_tables([vectors, vectors.slice(last)])
    assert issues(files, "object_embeddings", twice) == [
        "object_embeddings: found embeddings of an object of manifest row 7 twice; expected one of each "
        "object at most"
    ]
    assert issues(files, "object_embeddings", changed(vectors, "object_index", 0, 2))[0].startswith(
        "object_embeddings: found manifest row 0 after 0"
    )
    assert issues(files, "object_embeddings", vectors.slice(1)) == []  # a class that was not asked for


def test_a_run_of_the_version_before_is_read_and_verified_as_it_is(tmp_path: Path) -> None:
    """Its tags have no `object_index`."""
    output = write_run(tmp_path)
    run = find_run(output)
    key = "tags/shard-00000.parquet"
    table = pq.read_table(f"{output}/{key}").drop_columns(["object_index"])
    own = {**table.schema.metadata, b"raylabel.schema_version": b"2.0"}
    data = parquet_bytes(table.replace_schema_metadata(own), "tags")
    lines = declared("tags", replace(run.tables, carried=pa.schema([])), {})
    said = StagedFile(key=key, rows=len(table), size=len(data), sha256="")
    _, found = check_file(key, data, said, lines, "tags")
    assert [issue.found.partition(" ")[0] for issue in found] == ["sha256"]
    _, found = check_file(key, parquet_bytes(table, "tags"), said, lines, "tags")
    assert "object_index: int32" in found[-1].expected  # what says it is of this version has to have it
    (tmp_path / "run" / key).write_bytes(data)
    with Database({"": output}) as database:
        assert database.row("SELECT count(*) AS n, count(object_index) AS own FROM tags") == {
            "n": len(table),
            "own": 0,
        }
        images = list(read_images(database, Selection(), ["tags"]))
    assert [list(image.own_tags) for image in images] == [scenes_of(image.manifest_index) for image in images]
    make_index(output)


def test_every_tagger_of_a_run_is_of_images_or_of_objects(files: dict[str, pa.Table]) -> None:
    tags = files["tags"]
    of_objects = tags.filter(pc.is_valid(tags["object_index"]))
    assert set(of_objects["tagger"].to_pylist()) == {"kind"}
    assert set(tags.filter(pc.is_null(tags["object_index"]))["tagger"].to_pylist()) == {"scene"}


PAGE = (ROOT / "docs" / "two-stages.md").read_text(encoding="utf-8")


def test_the_pages_job_is_one_and_its_keys_are_those_of_both_sections() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    spec = build_spec(parse_yaml(text), "the page")
    assert spec.taggers["species"].boxes == BoxChoice(("bird",), 0.1)
    keys = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert keys == [name for name in BoxesSpec.model_fields if name not in ModelSpec.model_fields]


@pytest.mark.parametrize("number", range(2))
def test_queries_of_the_page_find_what_it_says(run: str, number: int) -> None:
    text = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)[number]
    text = text.replace("runs/birds", run).replace("'species'", "'kind'")
    answers = [duckdb.sql(one).fetchall() for one in text.split(";") if one.strip()]
    if number == 1:
        assert [similarity for *_, similarity in answers[0]] == [0] * 5  # to a vector of zeros
        return
    kinds, boxes, whole = answers
    assert sorted(kinds) == [("crane", 2, 1), ("heron", 7, 6), ("robin", 7, 6)]
    assert len(boxes) == sum(OBJECTS.values())
    assert {species for *_, species in boxes} == set(KINDS)
    assert sorted(whole) == [("indoors", 5), ("outdoors", 2)]
