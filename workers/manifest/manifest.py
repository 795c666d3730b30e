"""Manifests next to the data: other formats made into Parquet, and the rows of a unit read back."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError, ManifestError
from schemas.locations import MEMBERS, NO_URI, Location, MissingImage, ParquetCell, TarMember
from schemas.spec import FetchSpec
from schemas.tables import KEYS, carried_names
from workers.fetch.locate import locate, uri_of
from workers.fetch.ranges import open_ahead, open_exactly
from workers.storage.uris import clean_uri

KEPT_ROWS = 65_536
"""Rows of row groups that stay in memory beside the last one: files with images have a hundred in each."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One Parquet file of a manifest.

    Attributes:
        uri: where it is.
        row_groups: rows of each of its row groups.
        columns: its column names, and of a struct with an image's path also that, as "image.path".
        base: the folder that its relative image paths are meant from.
        tar: the tar file whose headers it was made of, its columns then being `schemas.locations.MEMBERS`; ""
            where its rows name images or have them.
    """

    uri: str
    row_groups: tuple[int, ...]
    columns: tuple[str, ...]
    base: str
    tar: str = ""

    @property
    def rows(self) -> int:
        """Rows in the file."""
        return sum(self.row_groups)


class Rows(NamedTuple):
    """Some rows of a manifest.

    Attributes:
        table: manifest_index, image_id, uri (without credentials and query) and the carried columns under
            their names in the labels table.
        locations: where the image of each row is.
    """

    table: pa.Table
    locations: list[Location]


@dataclass
class Manifest:
    """The rows of a job, in the order of its files: a row's position is its `manifest_index`.

    Attributes:
        files: Parquet files, in order.
        uri_column: the column with each image's path or URL.
        image_id_column: the column with an id of the user's own, or None.
        carried: the other columns, with their types; they go into the labels table.
        image_column: the column with the images themselves; None where `uri_column` says where they are.
    """

    files: list[ManifestFile]
    uri_column: str
    image_id_column: str | None
    carried: pa.Schema
    image_column: str | None = None
    _kept: dict[tuple[str, int], pa.Table] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def rows(self) -> int:
        """Rows of the whole manifest."""
        return self._starts[-1]

    @cached_property
    def _starts(self) -> list[int]:
        """The position of each file's first row, and the number of all rows."""
        return [0, *accumulate(file.rows for file in self.files)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def read(self, rows: Sequence[int]) -> Rows:
        """The rows at some positions, ascending, which should lie near each other."""
        span = range(rows[0], rows[-1] + 1) if len(rows) else range(0)
        pieces = list(self._pieces(span)) or [self._arranged(None, _NO_FILE, range(0))]
        found = pa.concat_tables([piece.table for piece in pieces])
        found = found.add_column(0, KEYS[0], pa.array(span, pa.int64()))
        locations = [location for piece in pieces for location in piece.locations]
        if len(rows) == len(span):
            return Rows(found, locations)
        places = [row - span.start for row in rows]
        return Rows(found.take(places), [locations[place] for place in places])

    def _pieces(self, rows: range) -> Iterator[Rows]:
        number = max(bisect_right(self._starts, rows.start) - 1, 0)
        for file, begin in zip(self.files[number:], self._starts[number:], strict=False):
            if begin >= rows.stop:
                return
            start = begin
            for group, size in enumerate(file.row_groups):
                first, last = max(rows.start, start), min(rows.stop, start + size)
                if first < last:
                    table = self._row_group(file, group)
                    part = None if table is None else table.slice(first - start, last - first)
                    yield self._arranged(part, file, range(first - begin, last - begin))
                start += size

    def _row_group(self, file: ManifestFile, group: int) -> pa.Table | None:
        """One row group without its images; None where that leaves nothing.

        The last ones read are kept, because units of one actor lie near each other.
        """
        place = (file.uri, group)
        if place not in self._kept:
            wanted = self._wanted(file)
            if not wanted:
                return None
            self._kept[place] = _read_row_group(file.uri, group, wanted, exactly=bool(self.image_column))
        table = self._kept[place] = self._kept.pop(place)
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > KEPT_ROWS:
            del self._kept[next(iter(self._kept))]
        return table

    def _wanted(self, file: ManifestFile) -> list[str]:
        """The columns of a file that are read with its rows, those within a struct by their paths."""
        if file.tar:
            return list(file.columns)
        wanted = [*filter(None, (self.image_id_column,)), *self.carried.names]
        if self.image_column is None:
            wanted.append(self.uri_column)
        else:
            wanted.append(f"{self.image_column}.path")
        return [name for name in wanted if name in file.columns]

    def _arranged(self, table: pa.Table | None, file: ManifestFile, rows: range) -> Rows:
        """Some rows of a file under the names and types that the job works with.

        Args:
            table: what was read of them; None where nothing was.
            file: theirs.
            rows: their positions in it.
        """
        columns = _Columns(table, len(rows))
        if file.tar:
            ids, uris, locations = _members(columns, file.tar)
            columns = _Columns(None, len(rows))
        elif self.image_column is not None:
            ids, uris, locations = self._values(columns, file.uri, rows)
        else:
            ids = columns(self.image_id_column, pa.string())
            named = columns(self.uri_column, pa.string()).to_pylist()
            uris = [clean_uri(uri or "") for uri in named]
            locations = [locate(uri, file.base) if uri else NO_URI for uri in named]
        names = carried_names(self.carried)
        arrays = {"image_id": ids, "uri": pa.array(uris, pa.string())}
        arrays |= {names[f.name]: columns(f.name, f.type) for f in self.carried}
        return Rows(pa.table(arrays), list(locations))

    def _values(self, columns: "_Columns", uri: str, rows: range) -> "_Images":
        """Of images that are values: their id is the path that a dataset keeps beside them, if no other."""
        assert self.image_column
        values = [ParquetCell(uri, self.image_column, row) for row in rows]
        ids = columns(self.image_id_column, pa.string())
        if self.image_id_column is None and (paths := columns.paths(self.image_column)) is not None:
            ids = pa.array([path and clean_uri(path) for path in paths], pa.string())
        return ids, [uri_of(value) for value in values], values


_Images = tuple[pa.Array, list[str], Sequence[Location]]
"""Of some rows: image_id, uri, location."""

_NO_FILE = ManifestFile("", (), (), "")


class _Columns:
    """What was read of some rows; columns that were not are null."""

    def __init__(self, table: pa.Table | None, rows: int) -> None:
        self._table = table
        self._rows = rows

    def __call__(self, name: str | None, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
        if self._table is None or name not in self._table.column_names:
            return pa.nulls(self._rows, kind)
        return self._table[name].cast(kind)

    def paths(self, image_column: str) -> list[str | None] | None:
        """What a struct of an image has as its `path`; None where it is no struct, or has none."""
        if self._table is None or image_column not in self._table.column_names:
            return None
        return [value and value["path"] for value in self._table[image_column].to_pylist()]


def _members(columns: _Columns, tar: str) -> _Images:
    """Of images that are members of a tar file; a name that is missing is that of the file itself."""
    read = {f.name: columns(f.name, f.type).to_pylist() for f in MEMBERS}
    uris: list[str] = []
    locations: list[Location] = []
    for name, start, size, code, why in zip(
        *(read[column] for column in ("name", "start", "size", "code", "why")), strict=True
    ):
        member = TarMember(tar, name or "", (start or 0, size or 0))
        uris.append(uri_of(member) if name else clean_uri(tar))
        locations.append(MissingImage(ErrorCode(code), why) if code else member)
    return columns("image_id", pa.string()), uris, locations


def _read_row_group(uri: str, group: int, columns: list[str], *, exactly: bool) -> pa.Table:
    """Some columns of a row group.

    Args:
        uri: of the file.
        group: its number in it.
        columns: their names.
        exactly: not to read what lies between, which may be large.
    """
    try:
        with (open_exactly if exactly else open_ahead)(uri, FetchSpec()) as file:
            return pq.ParquetFile(file).read_row_group(group, columns=columns)
    except ImageError as error:
        raise ManifestError(f"cannot read {error.message}") from None
