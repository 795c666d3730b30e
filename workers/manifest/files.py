"""The Parquet files of an opened manifest, and rows of one as they were read."""

from dataclasses import dataclass

import pyarrow as pa

from schemas.spec import ManifestFormat
from workers.manifest.types import Convert, as_type

Partitions = tuple[tuple[str, str | None], ...]
"""Columns with one value for all rows of a file, which the folders it lies in say: `kind=a/` (Hive's way)."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One Parquet file of a manifest: a source itself, or a part of what a source was converted to.

    Attributes:
        uri: where it is.
        row_groups: rows of each of its row groups.
        columns: its column names, and the path of an image struct's own path, such as "image.path".
        origin: what its images are found from: the folder that relative paths are resolved against, or the
            tar file that they are members of. It may hold credentials.
        format: of its source. It decides how a row says where its image is.
        partitions: further columns, of its source.
    """

    uri: str
    row_groups: tuple[int, ...]
    columns: tuple[str, ...]
    origin: str
    format: ManifestFormat = "parquet"
    partitions: Partitions = ()

    @property
    def rows(self) -> int:
        """Rows in the file."""
        return sum(self.row_groups)


@dataclass(frozen=True, slots=True)
class FileRows:
    """Some rows of a manifest file as they were read. Columns that were not read are null.

    Attributes:
        file: the file.
        positions: of the rows in the file.
        table: the columns that were read of them; None where none was.
    """

    file: ManifestFile
    positions: range
    table: pa.Table | None

    def has(self, name: str | None) -> bool:
        """Whether a column was read."""
        return self.table is not None and name in self.table.column_names

    def column(
        self, name: str | None, kind: pa.DataType, convert: Convert = as_type
    ) -> pa.ChunkedArray | pa.Array:
        """Returns a column as a type that holds all of its values; nulls where there is no such column."""
        if self.table is not None and self.has(name):
            return convert(self.table[name], kind)
        value = dict(self.file.partitions).get(name or "")
        if value is None:
            return pa.nulls(len(self.positions), kind)
        return pa.array([value] * len(self.positions), kind)
