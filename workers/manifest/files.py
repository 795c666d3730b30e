"""The Parquet files of an opened manifest, and rows of one as they were read."""

from dataclasses import dataclass

import pyarrow as pa

from schemas.spec import ManifestFormat


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
    """

    uri: str
    row_groups: tuple[int, ...]
    columns: tuple[str, ...]
    origin: str
    format: ManifestFormat = "parquet"

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

    def column(self, name: str | None, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
        """Returns a column, cast to a type."""
        if self.table is None or not self.has(name):
            return pa.nulls(len(self.positions), kind)
        return self.table[name].cast(kind)
