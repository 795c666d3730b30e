"""A SQLite database in one file: images, boxes, tags, embeddings, and `search`, an FTS5 index of their texts.

https://www.sqlite.org/fts5.html
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.exports.base import ALL, Export, Format, Sample
from jobs.exports.rows import carried_names
from jobs.results.plain import dump_json, plain
from schemas.exceptions import StorageError
from workers.batched import chunks

ROWS = 1000
"""Images whose rows are inserted at once."""

TEXTS = ("uri", "label", "labels", "classes", "tags")
"""What `search` finds: columns of images, of which lists have a comma between."""

IMAGES = {
    "id": "INTEGER PRIMARY KEY",
    "image_id": "TEXT",
    "key": "TEXT NOT NULL",
    "uri": "TEXT NOT NULL",
    "width": "INTEGER NOT NULL",
    "height": "INTEGER NOT NULL",
    "format": "TEXT NOT NULL",
    "label": "TEXT",
    "score": "REAL",
    "labels": "TEXT",
    "classes": "TEXT",
    "object_count": "INTEGER",
    "tags": "TEXT",
}
"""The columns of images before the manifest's own, and their types; `id` is manifest_index."""

OTHERS = {
    "classes": ("id INTEGER PRIMARY KEY", "name TEXT NOT NULL"),
    "boxes": (
        "id INTEGER NOT NULL REFERENCES images",
        *("class_id INTEGER NOT NULL REFERENCES classes", "class_name TEXT NOT NULL", "score REAL NOT NULL"),
        *(f"{corner} REAL NOT NULL" for corner in ("x1", "y1", "x2", "y2")),
        "object_index INTEGER NOT NULL",
    ),
    "tags": (
        "id INTEGER NOT NULL REFERENCES images",
        *("tagger TEXT", "label TEXT", "score REAL", "object_index INTEGER"),
    ),
    "embeddings": ("id INTEGER PRIMARY KEY REFERENCES images", "embedding BLOB NOT NULL"),
}
"""The other tables and their columns; an embedding is its float32 numbers, little-endian. `object_index` of a
tag is that of a box, or null where it is of the whole image."""

INDEXES = {"boxes": ("id", "class_name, score"), "tags": ("id", "label"), "images": ("key", "label")}


def write(export: Export, file: Path) -> None:
    """Writes the database; the index refers to the texts of images, which are stored once.

    Raises:
        StorageError: SQLite cannot write it.
    """
    try:
        _write(export, file)
    except sqlite3.Error as error:
        raise StorageError(f"cannot write {export.into}: SQLite says: {error}") from error


def _write(export: Export, file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")  # the file has another name until it is whole
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        names = carried_names(export, IMAGES)
        columns = {names[column.name]: _type_of(column.type) for column in export.carried}
        _create(
            database, "images", (f"{_quoted(name)} {kind}" for name, kind in {**IMAGES, **columns}.items())
        )
        for table, others in OTHERS.items():
            _create(database, table, others)
        _insert(database, "classes", list(enumerate(export.classes)))
        for samples in chunks(export.samples, ROWS):
            _insert(database, "images", [_image(sample, export) for sample in samples])
            for table, rows in _rows(samples).items():
                _insert(database, table, rows)
        _make_indexes(database)
        database.execute("COMMIT")


def _create(database: sqlite3.Connection, table: str, columns: Iterable[str]) -> None:
    database.execute(f"CREATE TABLE {table} ({', '.join(columns)})")


def _insert(database: sqlite3.Connection, table: str, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        places = ", ".join("?" * len(rows[0]))
        database.executemany(f"INSERT INTO {table} VALUES ({places})", rows)


def _make_indexes(database: sqlite3.Connection) -> None:
    for table, keys in INDEXES.items():
        for number, key in enumerate(keys):
            database.execute(f"CREATE INDEX {table}_{number} ON {table} ({key})")
    columns = ", ".join(TEXTS)
    database.execute(
        f"CREATE VIRTUAL TABLE search USING fts5({columns}, content = images, content_rowid = id)"
    )
    database.execute("INSERT INTO search (search) VALUES ('rebuild')")


def _image(sample: Sample, export: Export) -> list[Any]:
    """A row of images."""
    image = sample.image
    label, score = image.topk[0] if image.topk else (None, None)
    found = (", ".join(sample.counts), len(image.boxes)) if export.has_classes else (None, None)
    return [
        *(image.manifest_index, image.image_id, image.key, image.uri, image.width, image.height),
        *(image.format, label, score, ", ".join(name for name, _ in image.topk) or None, *found),
        ", ".join(dict.fromkeys(tag.label for tag in image.tags)) or None,
        *(_value((image.carried or {})[name]) for name in export.carried.names),
    ]


def _rows(samples: Sequence[Sample]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of other tables."""
    images = [sample.image for sample in samples]
    return {
        "boxes": [
            (
                *(it.manifest_index, box.class_id, box.class_name, box.score),
                *(box.x1, box.y1, box.x2, box.y2, box.object_index),
            )
            for it in images
            for box in it.boxes
        ],
        "tags": [
            (it.manifest_index, tag.tagger, tag.label, tag.score, tag.object_index)
            for it in images
            for tag in it.tags
        ],
        "embeddings": [
            (it.manifest_index, np.asarray(it.embedding, "<f4").tobytes()) for it in images if it.embedding
        ],
    }


def _type_of(kind: pa.DataType) -> str:
    if pa.types.is_uint64(kind):
        return "TEXT"  # an INTEGER has 63 bits
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "INTEGER"
    return "REAL" if pa.types.is_floating(kind) else "TEXT"


def _value(value: object) -> object:
    """A value of the manifest's as SQLite has it; what is nested is JSON."""
    if isinstance(value, int) and value.bit_length() > 63:
        return str(value)
    value = value if isinstance(value, bytes | int) else plain(value)
    return dump_json(value) if isinstance(value, dict | list) else value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


FORMAT = Format(
    name="sqlite",
    about="SQLite database in one file, with full-text search (FTS5)",
    keeps=ALL,
    write=write,
    is_file=True,
)
