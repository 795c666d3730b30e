"""Manifests of other formats made into Parquet, once a run."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.ledger import MANIFEST
from schemas.locations import MEMBERS
from schemas.spec import FetchSpec
from workers.batched import chunks
from workers.manifest.formats import rows_of, rows_of_tar
from workers.manifest.manifest import ManifestFile
from workers.manifest.sources import Source
from workers.storage.filesystem import file_system
from workers.storage.store import Store

CHUNK_ROWS = 1_000_000
"""Rows of one Parquet file that another format is made into."""

ROW_GROUP_ROWS = 16_384


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
