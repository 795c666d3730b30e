"""Manifests next to the data: other formats made into Parquet, and the rows of a unit read back."""

import csv
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain, islice
from typing import Any, NamedTuple, TextIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError, ManifestError
from schemas.ledger import MANIFEST, SourceFile
from schemas.locations import MEMBERS, NO_URI, Location, Nowhere, ParquetValue, TarMember
from schemas.spec import FetchSpec, ManifestFormat
from schemas.tables import KEYS, carried_names
from workers.locations import locate, uri_of
from workers.remote import open_ahead, open_exactly
from workers.storage import Store, clean_uri, file_system, opened
from workers.tars import rows_of_tar

CHUNK_ROWS = 1_000_000
"""Rows of one Parquet file that another format is made into."""

ROW_GROUP_ROWS = 16_384

KEPT_ROWS = 65_536
"""Rows of row groups that stay in memory beside the last one: files with images have a hundred in each."""

Row = dict[str, str | None]
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """One file of a manifest, or one listed folder.

    Attributes:
        file: its name and version, as the run pins them.
        uri: where to read it, credentials included.
        form: what it is.
        base: the folder that relative image paths in it are meant from.
        listing: the rows of a folder that was listed.
    """

    file: SourceFile
    uri: str
    form: ManifestFormat
    base: str
    listing: "Iterable[Row] | None" = field(default=None, compare=False)


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
        values = [ParquetValue(uri, self.image_column, row) for row in rows]
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
        locations.append(Nowhere(ErrorCode(code), why) if code else member)
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


def convert(output: str, number: int, source: Source) -> list[ManifestFile]:
    """Makes a source that is not Parquet into Parquet in a run directory, and keeps a record that it was.

    Args:
        output: the run directory.
        number: of the source in the manifest.
        source: a CSV, JSON Lines, text or tar file.

    Raises:
        ManifestError: it is not what its format says.
    """
    store = Store(output)
    made = to_parquet(source.uri, source.form, converted_url(store, number), source.base)
    return keep(store, number, source, made)


def converted_url(store: Store, number: int) -> str:
    """What the names of the files that a source is made into begin with."""
    return f"{store.url}/{MANIFEST}/{number:05d}"


def record_key(number: int) -> str:
    """Where the record of a source that was made into Parquet is kept."""
    return f"{MANIFEST}/{number:05d}.json"


def keep(store: Store, number: int, source: Source, files: list[ManifestFile]) -> list[ManifestFile]:
    """Keeps a record of what was made of a source, without where it is read: there may be secrets in that."""
    made = [{"uri": f.uri, "row_groups": f.row_groups, "columns": f.columns} for f in files]
    record = {"source": source.file.model_dump(), "form": source.form, "files": made}
    store.write(record_key(number), json.dumps(record).encode())
    return files


def kept(record: bytes, source: Source) -> list[ManifestFile] | None:
    """What an earlier attempt made of the very same source; see `convert`."""
    found = json.loads(record)
    if (found["source"], found.get("form")) != (source.file.model_dump(), source.form):
        return None
    tar = source.uri if source.form == "tar" else ""
    return [
        ManifestFile(f["uri"], tuple(f["row_groups"]), tuple(f["columns"]), source.base, tar)
        for f in found["files"]
    ]


def to_parquet(uri: str, form: str, into: str, base: str) -> list[ManifestFile]:
    """Makes a CSV, JSON Lines or text manifest, or the headers of a tar file, into Parquet files, in order.

    CSV has a header. Text has one URI a line. Empty lines are no rows. Values are kept as they are written,
    JSON Lines values that are not strings as their JSON text. Compressed files (.gz, .zst, ...) are read by
    their ending; tar files cannot be.

    Args:
        uri: the manifest file.
        form: "csv", "jsonl", "text" or "tar".
        into: where to write: a path or URL that file names are appended to.
        base: the folder that its relative image paths are meant from.

    Raises:
        ManifestError: with the line where the file is not what its format says.
    """
    if form == "tar":
        made = write_parquet(rows_of_tar(uri, FetchSpec()), into, base, MEMBERS)
        return [replace(file, tar=uri) for file in made]
    return write_parquet(rows_of(uri, form), into, base)


def write_parquet(
    rows: Iterable[Mapping[str, Any]], into: str, base: str, schema: pa.Schema | None = None
) -> list[ManifestFile]:
    """Writes manifest rows as Parquet files.

    Args:
        rows: their values.
        into: where to write: a path or URL that file names are appended to.
        base: the folder that their relative image paths are meant from.
        schema: of the files, of which only a row group is in memory then; None: each file has the columns of
            its own rows, all of them strings.
    """
    made: list[ManifestFile] = []
    remaining = iter(rows)
    while first := list(islice(remaining, ROW_GROUP_ROWS if schema else CHUNK_ROWS)):
        names = dict.fromkeys(key for row in first for key in row)
        columns = schema or pa.schema([(name, pa.string()) for name in names])
        rest = chunks(islice(remaining, CHUNK_ROWS - len(first)), ROW_GROUP_ROWS)
        target = f"{into}-{len(made):05d}.parquet"
        groups = []
        fs, path = file_system(target)
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with fs.open(path, "wb") as file, pq.ParquetWriter(file, columns, compression="zstd") as writer:
            for part in chain(chunks(first, ROW_GROUP_ROWS), rest):
                writer.write_table(pa.Table.from_pylist(part, columns), ROW_GROUP_ROWS)
                groups.append(len(part))
        made.append(ManifestFile(target, tuple(groups), tuple(columns.names), base))
    return made


def rows_of(uri: str, form: str) -> Iterator[Row]:
    """The rows of a CSV, JSON Lines or text manifest, in order.

    Raises:
        ManifestError: with the line where the file is not what its format says.
    """
    try:
        with opened(uri, "rt", compression="infer", encoding="utf-8-sig", newline="") as file:
            yield from _READERS[form](file, clean_uri(uri))
    except UnicodeDecodeError as error:
        raise ManifestError(f"{clean_uri(uri)} is not UTF-8 text: {error}") from None


def _text(file: TextIO, _: str) -> Iterator[Row]:
    for line in file:
        if uri := line.strip():
            yield {"uri": uri}


def _jsonl(file: TextIO, uri: str) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ManifestError(f"{uri}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ManifestError(
                f"{uri}, line {number}: found {line.strip()[:80]!r}, allowed: an object {{…}}"
            )
        yield {key: _as_written(value) for key, value in row.items()}


def _as_written(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _csv(file: TextIO, uri: str) -> Iterator[Row]:
    reader = csv.reader(file, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        if len(set(header)) != len(header):
            raise ManifestError(f"{uri} names a column twice: {', '.join(header)}")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise ManifestError(
                    f"{uri}, line {reader.line_num}: found {len(values)} values, but the header has "
                    f"{len(header)} columns ({', '.join(header)})"
                )
            yield dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ManifestError(f"{uri}, line {reader.line_num} is not CSV: {error}") from None


_READERS: dict[str, Callable[[TextIO, str], Iterator[Row]]] = {"text": _text, "jsonl": _jsonl, "csv": _csv}


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter (itertools.batched comes with Python 3.12)."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
