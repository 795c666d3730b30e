"""Parquet manifests: read as they are, whether they name their images or hold them."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from schemas.exceptions import ManifestError
from schemas.locations import Location, ParquetCell
from schemas.spec import ManifestSpec
from workers.fetch.locate import locate, uri_of
from workers.manifest.columns import column_names, image_column
from workers.manifest.files import FileRows, ManifestFile
from workers.manifest.formats.base import Format, FoundImages, Row
from workers.manifest.read_errors import read_errors
from workers.manifest.reader import BATCH_ROWS, open_parquet
from workers.manifest.sources import Source
from workers.manifest.types import as_type, exact_types, has_bytes_within, is_text, plain_type
from workers.storage.uris import clean_uri


class Parquet(Format):
    """Rows with a URI, or with the image itself as a binary value or a struct of `bytes` and `path`."""

    suffixes = (".parquet", ".pq")
    is_sampled = True

    def footer(self, source: Source) -> tuple[ManifestFile, pa.Schema]:
        """Returns a source as a file of the manifest, and its columns with their types, from its footer.

        Raises:
            ManifestError: it cannot be read, or is no Parquet file.
        """
        with read_errors(source.uri, " as Parquet"):
            footer = open_parquet(source.uri)
            schema, meta = footer.schema_arrow, footer.metadata
        groups = tuple(meta.row_group(n).num_rows for n in range(meta.num_row_groups))
        _assert_distinct(source.file.uri, schema.names)
        columns = column_names(schema)
        file = ManifestFile(source.uri, groups, columns, self.origin(source), partitions=source.partitions)
        return file, schema

    def columns(self, source: Source) -> pa.Schema:
        """The columns of its footer."""
        return self.footer(source)[1]

    def has_rows(self, source: Source) -> bool:
        """By its footer."""
        return self.footer(source)[0].rows > 0

    def first_location(self, spec: ManifestSpec, source: Source) -> Location | None:
        """Its first cell, or what its first row names."""
        if column := image_column(spec, source.file.uri, self.columns(source)):
            return ParquetCell(source.uri, column, 0)
        with read_errors(source.uri, " as Parquet"):
            batches = open_parquet(source.uri).iter_batches(1, columns=[spec.uri_column])
            uris = (as_type(batch.column(0), pa.string())[0].as_py() for batch in batches if len(batch))
            uri = next(uris, None)
        return locate(uri, source.base) if uri else None

    def image_columns(self, uri_column: str, image_column: str | None) -> list[str]:
        """The column of URIs, or the path that a dataset keeps next to each image."""
        return [uri_column if image_column is None else f"{image_column}.path"]

    def images(self, rows: FileRows, uri_column: str, image_column: str | None) -> FoundImages:
        """What the rows name, or their own cells."""
        if image_column is None:
            return super().images(rows, uri_column, image_column)
        cells = [ParquetCell(rows.file.uri, image_column, row) for row in rows.positions]
        return [uri_of(cell) for cell in cells], cells

    def ids(self, rows: FileRows, image_column: str | None) -> pa.Array | None:
        """The paths in an image struct; None where the images are no structs, or have none that are text."""
        if image_column is None or rows.table is None or not rows.has(image_column):
            return None
        path = rows.table[image_column].type.field("path").type
        if not is_text(path):
            return None
        paths = [value and value["path"] for value in rows.table[image_column].to_pylist()]
        return pa.array([path and clean_uri(path) for path in paths], pa.string())


def rows_of_parquet(uri: str) -> Iterator[Row]:
    """Yields the rows of a Parquet file, every value as text: of numbers and what is nested its JSON.

    Raises:
        ManifestError: it cannot be read, is no Parquet file, or has bytes, which are no text.
    """
    with read_errors(uri, " as Parquet"):
        file = open_parquet(uri)
        _assert_distinct(clean_uri(uri), file.schema_arrow.names)
        for name, kind in zip(file.schema_arrow.names, file.schema_arrow.types, strict=True):
            if has_bytes_within(kind):
                raise ManifestError(
                    f"column {name!r} of {clean_uri(uri)} is {kind}, and bytes are no text. Leave it out"
                )
        for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
            columns = [_texts(column) for column in batch.columns]
            yield from (dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True))


def _texts(values: pa.Array) -> list[str | None]:
    """The text of each value."""
    kind = plain_type(values.type)
    if pt.is_nested(kind):
        kind = (exact_types([kind]) or [kind])[-1]  # one whose times any reader knows
    elif not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind) or pt.is_duration(kind)):
        kind = pa.string()
    return [_text(value) for value in as_type(values, kind).to_pylist()]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False, default=str)


def _assert_distinct(uri: str, names: list[str]) -> None:
    """Refuses a file that has two columns of one name.

    Raises:
        ManifestError: with the name.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ManifestError(f"{uri} has several columns named {twice[0]!r}. Rename them or leave some out")
