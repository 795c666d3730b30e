"""The rows of a manifest, read by position."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import pyarrow as pa

from schemas.locations import Location
from schemas.tables import KEYS, MANIFEST_URI, URI_IS_CUT, carried_names
from workers.fetch.locate import shown_uri
from workers.manifest.files import FileRows, ManifestFile
from workers.manifest.formats import FORMATS
from workers.manifest.reader import RowReader
from workers.manifest.types import as_ids, as_type


class Rows(NamedTuple):
    """Some rows of a manifest.

    Attributes:
        table: manifest_index, image_id, uri (as in the manifest, without credentials and query) and the
            carried columns under their names in the labels table.
        locations: where the image of each row is.
    """

    table: pa.Table
    locations: list[Location]

    def for_results(self) -> pa.Table:
        """The table with absolute URIs, and what is told of them: see `schemas.tables`."""
        written = self.table["uri"].to_pylist()
        shown = [shown_uri(location) for location in self.locations]
        uris = [own if uri is None else uri for own, (uri, _) in zip(written, shown, strict=True)]
        manifest_uris = [own if own != uri else None for own, uri in zip(written, uris, strict=True)]
        table = self.table.set_column(
            self.table.column_names.index("uri"), "uri", pa.array(uris, pa.string())
        )
        table = table.append_column(MANIFEST_URI, pa.array(manifest_uris, pa.string()))
        return table.append_column(URI_IS_CUT, pa.array([is_cut for _, is_cut in shown], pa.bool_()))


@dataclass
class Manifest:
    """The rows of a job, in the order of its files: a row's position is its `manifest_index`.

    Attributes:
        files: Parquet files, in order.
        uri_column: the column with each image's path or URL.
        image_id_column: the column with an id of the user's own, or None.
        carried: the other columns, with their types; they go into the labels table.
        image_column: the column with the images themselves; None where `uri_column` says where they are.
        image_id_type: what the ids of all files are, before they become text.
    """

    files: list[ManifestFile]
    uri_column: str
    image_id_column: str | None
    carried: pa.Schema
    image_column: str | None = None
    image_id_type: pa.DataType = field(default_factory=pa.string)
    _reader: RowReader | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Rows of the whole manifest."""
        return self._starts[-1]

    @property
    def columns(self) -> dict[str, str]:
        """The columns carried into the labels table, name to Arrow type, as run.json keeps them."""
        return {field.name: str(field.type) for field in self.carried}

    @cached_property
    def _starts(self) -> list[int]:
        """The position of each file's first row, and the number of all rows."""
        return [0, *accumulate(file.rows for file in self.files)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}

    def read(self, rows: Sequence[int]) -> Rows:
        """Returns the rows at some positions, ascending, which should lie near each other.

        Raises:
            ManifestError: a file cannot be read.
        """
        span = range(rows[0], rows[-1] + 1) if len(rows) else range(0)
        pieces = [self._arranged(piece) for piece in self._pieces(span)] or [self._arranged(_NO_ROWS)]
        table = pa.concat_tables([piece.table for piece in pieces])
        table = table.add_column(0, KEYS[0], pa.array(span, pa.int64()))
        locations = [location for piece in pieces for location in piece.locations]
        if len(rows) == len(span):
            return Rows(table, locations)
        offsets = [row - span.start for row in rows]
        return Rows(table.take(offsets), [locations[offset] for offset in offsets])

    def _pieces(self, rows: range) -> Iterator[FileRows]:
        """What was read of some rows, row group by row group."""
        number = max(bisect_right(self._starts, rows.start) - 1, 0)
        for file, begin in zip(self.files[number:], self._starts[number:], strict=False):
            if begin >= rows.stop:
                return
            start = begin
            for group, size in enumerate(file.row_groups):
                first, last = max(rows.start, start), min(rows.stop, start + size)
                if first < last:
                    part = self._part(file, group, first - start, last - start)
                    yield FileRows(file, range(first - begin, last - begin), part)
                start += size

    def _part(self, file: ManifestFile, group: int, start: int, stop: int) -> pa.Table | None:
        """Rows of a row group without its images; None where that leaves nothing.

        The file stays open, as units of one actor lie near each other.
        """
        wanted = self._wanted(file)
        if not wanted:
            return None
        if self._reader is None or self._reader.uri != file.uri:
            own = file.format != "parquet"
            self._reader = RowReader(file.uri, wanted, exactly=bool(self.image_column), checked=own)
        return self._reader.read(group, start, stop)

    def _wanted(self, file: ManifestFile) -> list[str]:
        """The columns of a file that are read with its rows, those within a struct by their paths."""
        fmt = FORMATS[file.format]
        wanted = fmt.image_columns(self.uri_column, self.image_column)
        if not fmt.has_own_columns:
            wanted = [*filter(None, (self.image_id_column,)), *self.carried.names, *wanted]
        return [name for name in wanted if name in file.columns]

    def _arranged(self, rows: FileRows) -> Rows:
        """Some rows of a file under the names and types that the job works with."""
        fmt = FORMATS[rows.file.format]
        uris, locations = fmt.images(rows, self.uri_column, self.image_column)
        carried = rows
        if fmt.has_own_columns:  # one may have the name of a column of the manifest, and is another thing
            carried = FileRows(rows.file, rows.positions, None)
        # the user's own id goes before what the format has
        ids = None if carried is rows and self.image_id_column else fmt.ids(rows, self.image_column)
        if ids is None and self.image_id_column == self.uri_column and self.image_column is None:
            ids = pa.array([uri or None for uri in uris], pa.string())  # there may be credentials in it
        if ids is None:
            ids = as_type(rows.column(self.image_id_column, self.image_id_type, as_ids), pa.string())
        names = carried_names(self.carried)
        arrays = {"image_id": ids, "uri": pa.array(uris, pa.string())}
        arrays |= {names[f.name]: carried.column(f.name, f.type) for f in self.carried}
        return Rows(pa.table(arrays), list(locations))


_NO_ROWS = FileRows(ManifestFile("", (), (), ""), range(0), None)
