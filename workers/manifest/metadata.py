"""Metadata files beside images, as Hugging Face's ImageFolder has them: rows by the image's name."""

import json
import posixpath
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from schemas.ledger import SourceFile
from workers.batched import chunks

FILE_NAME = "file_name"
"""The column with the image's name, relative to the folder of the metadata file."""

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")

CHUNK_ROWS = 10_000


class MetadataFile(NamedTuple):
    """A metadata file.

    Attributes:
        path: on its file system, as the images beside it have theirs.
        file: its URI and version.
        rows: reads its rows; raises a ManifestError where it is not what its name says.
    """

    path: str
    file: SourceFile
    rows: Callable[[], Iterator[Mapping[str, Any]]]


class ImageMetadata:
    """The rows of metadata files, on this process's disk. Of several for one image the nearest file's counts.

    Attributes:
        files: all of them, the outer before the inner ones.
    """

    def __init__(self, files: list[MetadataFile]) -> None:
        self.files = sorted(files, key=lambda file: (file.path.count("/"), file.path))
        self._without_name = 0
        self._file = sqlite3.connect("", check_same_thread=False)  # a temporary file, which goes with it

    def __del__(self) -> None:
        self._file.close()

    @cached_property
    def _database(self) -> sqlite3.Connection:
        database = self._file
        database.execute("CREATE TABLE rows (name TEXT PRIMARY KEY, row TEXT) WITHOUT ROWID")
        for file in self.files:
            for chunk in chunks(_rows(file), CHUNK_ROWS):
                named = [(name, row) for name, row in chunk if name]
                self._without_name += len(chunk) - len(named)
                database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", named)
        return database

    @cached_property
    def columns(self) -> list[str]:
        """The columns of all files, as they are carried.

        Raises:
            ManifestError: a file is not what its name says.
        """
        return list(self._names.values())

    @cached_property
    def _names(self) -> dict[str, str]:
        """The columns by their names in the files: "uri", which is the image's own, gets a free one."""
        query = "SELECT DISTINCT key FROM rows, json_each(rows.row) ORDER BY 1"
        names = {name: name for (name,) in self._database.execute(query)}
        if "uri" in names:
            free = "manifest_uri"
            while free in names:
                free = f"manifest_{free}"
            names["uri"] = free
        return names

    def naming_none(self, paths: Iterable[str]) -> tuple[int, str]:
        """How many rows name no image that is there, and such a name.

        Args:
            paths: of all images, on the file system.
        """
        database = self._database
        database.execute("CREATE TEMP TABLE images (name TEXT)")
        for chunk in chunks(((_key(path),) for path in paths), CHUNK_ROWS):
            database.executemany("INSERT INTO images VALUES (?)", chunk)
        query = "SELECT count(*), min(name) FROM rows WHERE name NOT IN (SELECT name FROM images)"
        ((count, name),) = database.execute(query)
        database.execute("DROP TABLE images")
        return count + self._without_name, name or ""

    def row(self, path: str) -> Mapping[str, str | None]:
        """What is said of the image at a path on the file system; nothing where no file names it."""
        stored = self._database.execute("SELECT row FROM rows WHERE name = ?", (_key(path),)).fetchone()
        row: dict[str, str | None] = json.loads(stored[0]) if stored else {}
        return {self._names[name]: value for name, value in row.items()}


def _rows(file: MetadataFile) -> Iterator[tuple[str, str]]:
    """The name of each image, as a path, and what is said of it, as JSON; of a row that names none "" ."""
    folder = posixpath.dirname(file.path)
    for row in file.rows():
        values = dict(row)
        name = values.pop(FILE_NAME, None)
        yield _key(f"{folder}/{name}") if name else "", json.dumps(values)


def _key(path: str) -> str:
    """A path in the one way it is written here, without the lone surrogates that sqlite refuses."""
    return posixpath.normpath(path).encode(errors="surrogateescape").decode(errors="backslashreplace")
