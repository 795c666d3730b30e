"""Parquet manifests: read as they are, whether they name their images or hold them."""

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.exceptions import ManifestError
from schemas.locations import Location, ParquetCell
from schemas.spec import ManifestSpec
from workers.fetch.locate import locate, uri_of
from workers.manifest.columns import column_names, image_column
from workers.manifest.files import FileRows, ManifestFile
from workers.manifest.formats.base import Format, FoundImages
from workers.manifest.sources import Source
from workers.storage.filesystem import open_file
from workers.storage.uris import clean_uri


class Parquet(Format):
    """Rows with a URI, or with the image itself as a binary value or a struct of `bytes` and `path`."""

    suffixes = (".parquet", ".pq")

    def footer(self, source: Source) -> tuple[ManifestFile, pa.Schema]:
        """Returns a source as a file of the manifest, and its columns with their types, from its footer.

        Raises:
            ManifestError: it cannot be read, or is no Parquet file.
        """
        try:
            with open_file(source.uri) as file:
                footer = pq.ParquetFile(file)
                schema, meta = footer.schema_arrow, footer.metadata
                groups = tuple(meta.row_group(n).num_rows for n in range(meta.num_row_groups))
        except (OSError, pa.ArrowException) as error:
            raise ManifestError(f"cannot read {clean_uri(source.uri)} as Parquet: {error}") from None
        return ManifestFile(source.uri, groups, column_names(schema), self.origin(source)), schema

    def columns(self, source: Source) -> pa.Schema:
        """The columns of its footer."""
        return self.footer(source)[1]

    def first_location(self, spec: ManifestSpec, source: Source) -> Location | None:
        """Its first cell, or what its first row names."""
        if column := image_column(spec, source.file.uri, self.columns(source)):
            return ParquetCell(source.uri, column, 0)
        with open_file(source.uri) as file:
            batches = pq.ParquetFile(file).iter_batches(1, columns=[spec.uri_column])
            uri = next((batch[0][0].as_py() for batch in batches if len(batch)), None)
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
        if not (pa.types.is_string(path) or pa.types.is_large_string(path)):
            return None
        paths = [value and value["path"] for value in rows.table[image_column].to_pylist()]
        return pa.array([path and clean_uri(path) for path in paths], pa.string())
