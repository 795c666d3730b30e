import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.exports.command import export_run
from schemas.exceptions import StorageError
from tests.jobs.exports.made_run import BOXES, CLASSES, LABELLED, box_of, size_of, uri_of


@pytest.fixture
def database(run: str, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    export_run(run, "sqlite", tmp_path / "run.sqlite")
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as database:
        yield database


def rows(database: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    return database.execute(query).fetchall()


def test_images_boxes_and_classes_are_tables(database: sqlite3.Connection, photos: Path) -> None:
    found = rows(database, "SELECT id, uri, width, height, object_count FROM images ORDER BY id")
    assert found == [
        (index, uri_of(photos, index), *size_of(index), len(BOXES.get(index, []))) for index in LABELLED
    ]
    assert rows(database, "SELECT * FROM classes ORDER BY id") == list(enumerate(CLASSES))
    boxes = rows(database, "SELECT id, class_name, score, x1, y1, x2, y2 FROM boxes ORDER BY id, score DESC")
    expected = [
        (index, *box_of(index, number)) for index, found in BOXES.items() for number in range(len(found))
    ]
    assert boxes == [
        (index, name, pytest.approx(score), *corners) for index, name, score, corners in expected
    ]
    assert rows(
        database, "SELECT DISTINCT c.name = b.class_name FROM boxes b JOIN classes c ON c.id = class_id"
    ) == [(1,)]


def test_words_of_names_labels_classes_and_tags_are_found(database: sqlite3.Connection) -> None:
    def matches(words: str) -> list[int]:
        found = database.execute("SELECT rowid FROM search WHERE search MATCH ? ORDER BY rowid", [words])
        return [row[0] for row in found]

    assert matches("ete plage") == [1]  # without accents, as FTS5 does
    assert matches("classes: person") == [2, 3, 6]
    assert matches("tags: outdoors") == [2, 8]
    assert matches('"naïve, café"') == [0, 7]
    assert matches("palace") == list(LABELLED)
    assert rows(database, "INSERT INTO search (search) VALUES ('integrity-check')") == []


def test_tags_embeddings_and_the_manifests_columns_are_kept(database: sqlite3.Connection) -> None:
    assert rows(database, "SELECT tagger, label, score FROM tags WHERE id = 2") == [
        ("scene", "indoors", 0.9),
        ("scene", "outdoors", 0.5),
    ]
    ((vector,),) = rows(database, "SELECT embedding FROM embeddings WHERE id = 6")
    assert np.array_equal(np.frombuffer(vector, "<f4"), np.array([6, 0.5, -1, 0.1], np.float32))
    assert rows(database, 'SELECT split, manifest_label, objects, "at" FROM images WHERE id = 2') == [
        ("train, '2'", 2, "mine 2", "2026-01-03")
    ]


def test_a_file_that_exists_is_not_replaced(run: str, tmp_path: Path) -> None:
    (tmp_path / "run.sqlite").write_text("mine")
    with pytest.raises(StorageError, match=r"run\.sqlite exists; --into names a new file"):
        export_run(run, "sqlite", tmp_path / "run.sqlite")
    assert (tmp_path / "run.sqlite").read_text() == "mine"
