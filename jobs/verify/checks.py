"""Checks of the tables of a shard or a part: bytes and tables in, issues out. No store, no clock."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.ledger import StagedFile
from schemas.tables import ADDED, FIRST_VERSION, SCHEMA_VERSION, TABLES, RunTables, carried_names
from schemas.words import counted
from workers.printable import short_line
from workers.tables.parquet import count_codes, parquet_bytes

NAMED = 5
"""Manifest rows that an issue names, of all that it is about."""

MAX_CHARACTERS = 2_000
"""Of an issue that is printed."""

COLUMNS = {
    "labels": ["manifest_index", "object_count", "class_counts"],
    "boxes": ["manifest_index", "object_index", "class_name"],
    "tags": ["manifest_index", "tagger", "label_id", "object_index"],
    "embeddings": ["manifest_index"],
    "object_embeddings": ["manifest_index", "object_index"],
    "errors": ["manifest_index", "code"],
}
"""What of each table is read to check it; the checksum covers the other columns."""

RowNumbers = NDArray[np.int64]


@dataclass(frozen=True)
class Issue:
    """Something that is not as it must be.

    Attributes:
        file: the key of the file that it was found in, below the run directory.
        found: what is there.
        expected: what should be.
    """

    file: str
    found: str
    expected: str

    def __str__(self) -> str:
        return short_line(f"{self.file}: found {self.found}; expected {self.expected}", MAX_CHARACTERS)


def check_file(
    file: str, data: bytes, expected: StagedFile, schema: tuple[str, ...], name: str
) -> tuple[pa.Table | None, list[Issue]]:
    """Checks that a file is the one that the ledger names, and is a table as declared and in order.

    Args:
        file: its name in issues.
        data: its bytes.
        expected: its size, checksum and rows by the ledger.
        schema: see `declared`.
        name: of the table.

    Returns:
        The columns that `check_rows` wants, None where they cannot be had; and what is wrong.
    """
    issues = []
    if len(data) != expected.size:
        issues.append(
            Issue(file, counted(len(data), "byte"), f"{counted(expected.size, 'byte')}, as the ledger says")
        )
    if (digest := hashlib.sha256(data).hexdigest()) != expected.sha256:
        issues.append(Issue(file, f"sha256 {digest}", f"{expected.sha256}, as the ledger says"))
    try:
        parquet = pq.ParquetFile(pa.BufferReader(data))
        if wrong := _check_schema(file, parquet.schema_arrow, schema, name):
            return None, [*issues, wrong]
        table = parquet.read(COLUMNS[name]).combine_chunks()
    except (pa.ArrowException, OSError, ValueError) as error:
        return None, [*issues, Issue(file, f"no Parquet that can be read ({error})", "a Parquet file")]
    if table.num_rows != expected.rows:
        issues.append(
            Issue(
                file, counted(table.num_rows, "row"), f"{counted(expected.rows, 'row')}, as the ledger says"
            )
        )
    return table, issues + check_order(file, table, name)


def declared(name: str, tables: RunTables, carried: Mapping[str, str]) -> tuple[str, ...]:
    """A table's schema in lines, as a file gives it back.

    Args:
        name: of the table.
        tables: of the run, without the manifest's own columns.
        carried: those, name to Arrow type, as run.json has them.
    """
    # by way of Parquet, which names the inside of lists and maps in its own way
    empty = tables.schema(name).empty_table()
    lines = _lines(pq.ParquetFile(pa.BufferReader(parquet_bytes(empty, name))).schema_arrow)
    if not TABLES[name].has_carried:
        return lines
    names = carried_names(pa.schema([(column, pa.null()) for column in carried]), name, tables.facts)
    return (*lines, *(f"{names[column]}: {kind}" for column, kind in carried.items()))


def _lines(schema: pa.Schema) -> tuple[str, ...]:
    metadata = sorted((schema.metadata or {}).items())
    marks = [f"{key.decode()}: {value.decode()}" for key, value in metadata if key.startswith(b"raylabel.")]
    return (*marks, *(f"{f.name}: {f.type}{'' if f.nullable else ' not null'}" for f in schema))


def _check_schema(file: str, found: pa.Schema, schema: tuple[str, ...], name: str) -> Issue | None:
    lines, schema = _lines(found), _as_of(_version(found), schema, name)
    if lines == schema:
        return None
    other = [line for line in lines if line not in schema]
    missing = [line for line in schema if line not in lines]
    if not other and not missing:
        return Issue(file, "columns in another order", "the declared one")
    return Issue(file, f"columns {_some(other)}", _some(missing))


def _version(schema: pa.Schema) -> str:
    version: bytes = (schema.metadata or {}).get(_MARK.encode(), b"")
    return version.decode()


def _as_of(version: str, schema: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The lines of a table's schema in an earlier version; those of this one, if it is none."""
    versions = [FIRST_VERSION, *ADDED]
    if version not in versions:
        return schema
    later = versions[versions.index(version) + 1 :]
    added = {column for each in later for column in ADDED[each].get(name, ())}
    lines = (line for line in schema if line.partition(":")[0] not in added)
    return tuple(line.replace(f"{_MARK}: {SCHEMA_VERSION}", f"{_MARK}: {version}") for line in lines)


_MARK = "raylabel.schema_version"

_BY_OBJECT = ("boxes", "object_embeddings")
"""Tables whose rows of an image ascend by `object_index`."""


def check_order(file: str, table: pa.Table, name: str) -> list[Issue]:
    """Checks that rows ascend by `manifest_index`, boxes and embeddings of objects then by `object_index`."""
    index = _numbers(table, "manifest_index")
    falls = np.diff(index) < 0
    if name in _BY_OBJECT:
        falls |= (np.diff(index) == 0) & (np.diff(_numbers(table, "object_index")) < 0)
    if not falls.any():
        return []
    at = int(np.flatnonzero(falls)[0])
    found = f"manifest row {index[at + 1]} after {index[at]}, at row {at + 1} of the file"
    return [Issue(file, found, "rows in ascending order")]


def check_rows(files: Mapping[str, str], tables: Mapping[str, pa.Table], rows: RowNumbers) -> list[Issue]:
    """Checks that labels and errors hold some manifest rows once each, and that the rest is the labels'.

    Args:
        files: by table, the file's name in issues.
        tables: by name, with at least `COLUMNS`.
        rows: the manifest rows that they must hold, ascending.
    """
    labels, boxes = tables["labels"], tables["boxes"]
    others = [name for name in tables if name not in ("labels", "errors")]
    issues = _check_coverage(files, tables, rows)
    issues += [issue for name in others for issue in _check_owners(files[name], labels, name, tables[name])]
    issues += _check_object_indexes(files["boxes"], boxes)
    issues += _check_object_counts(files["labels"], labels, boxes)
    issues += _check_class_counts(files["labels"], labels, boxes)
    if "tags" in tables:
        issues += _check_tags(files["tags"], tables["tags"])
    if "embeddings" in tables:
        issues += _check_embeddings(files["embeddings"], labels, tables["embeddings"])
    if "object_embeddings" in tables:
        issues += _check_object_embeddings(files["object_embeddings"], tables["object_embeddings"])
    of_objects = [name for name in ("tags", "object_embeddings") if name in tables]
    return issues + [
        issue for name in of_objects for issue in _check_objects(files[name], labels, name, tables[name])
    ]


def check_codes(file: str, errors: pa.Table, recorded: Mapping[str, int]) -> list[Issue]:
    """Checks that the ledger's record in a file counts failed images by code as the errors table has them."""
    there = count_codes(errors)
    if there == recorded:
        return []
    return [Issue(file, f"failed images {dict(recorded)}", f"{there}, as in errors")]


def _check_coverage(
    files: Mapping[str, str], tables: Mapping[str, pa.Table], rows: RowNumbers
) -> list[Issue]:
    index = {name: _numbers(tables[name], "manifest_index") for name in ("labels", "errors")}
    issues = [
        Issue(files[name], f"manifest {some_rows(unexpected)}", "only rows of its own units")
        for name, held in index.items()
        if len(unexpected := np.setdiff1d(held, rows))
    ]
    held, times = np.unique(np.concatenate(list(index.values())), return_counts=True)
    both = " and ".join(dict.fromkeys((files["labels"], files["errors"])))
    if len(missing := np.setdiff1d(rows, held)):
        issues.append(Issue(both, f"no manifest {some_rows(missing)}", "each row once, in one of the two"))
    if len(doubled := held[times > 1]):
        issues.append(
            Issue(both, f"manifest {some_rows(doubled)} more than once", "each row once, in one of the two")
        )
    return issues


def _check_owners(file: str, labels: pa.Table, name: str, table: pa.Table) -> list[Issue]:
    orphans = np.setdiff1d(_numbers(table, "manifest_index"), _numbers(labels, "manifest_index"))
    if not len(orphans):
        return []
    return [Issue(file, f"{name} of manifest {some_rows(orphans)}", f"{name} of rows in labels only")]


def _check_tags(file: str, tags: pa.Table) -> list[Issue]:
    counts = tags.group_by(tags.column_names, use_threads=False).aggregate([([], "count_all")])
    doubled = np.unique(_numbers(counts.filter(pc.greater(counts["count_all"], 1)), "manifest_index"))
    if not len(doubled):
        return []
    expected = "each tag of a tagger once, of an image or of an object"
    return [Issue(file, f"a tag of manifest {some_rows(doubled)} twice", expected)]


def _check_embeddings(file: str, labels: pa.Table, embeddings: pa.Table) -> list[Issue]:
    held, times = np.unique(_numbers(embeddings, "manifest_index"), return_counts=True)
    missing = np.setdiff1d(_numbers(labels, "manifest_index"), held)
    found = [f"no embedding of manifest {some_rows(missing)}"] if len(missing) else []
    found += [f"embeddings of manifest {some_rows(held[times > 1])} twice"] if (times > 1).any() else []
    return [Issue(file, text, "one of each row in labels") for text in found]


def _check_object_embeddings(file: str, embeddings: pa.Table) -> list[Issue]:
    index, own = _numbers(embeddings, "manifest_index"), _numbers(embeddings, "object_index")
    order = np.lexsort((own, index))
    index, own = index[order], own[order]
    doubled = np.unique(index[1:][(np.diff(index) == 0) & (np.diff(own) == 0)])
    if not len(doubled):
        return []
    found = f"embeddings of an object of manifest {some_rows(doubled)} twice"
    return [Issue(file, found, "one of each object at most")]


def _check_objects(file: str, labels: pa.Table, name: str, table: pa.Table) -> list[Issue]:
    """Checks that what a table says of objects is of objects that the images have."""
    if "object_index" not in table.column_names:  # of a version without
        return []
    table = table.filter(pc.is_valid(table["object_index"]))
    index, own = _numbers(table, "manifest_index"), _numbers(table, "object_index")
    held = _numbers(labels, "manifest_index")
    order = np.argsort(held)
    counts = pc.fill_null(labels["object_count"], 0).to_numpy()[order]
    known = np.isin(index, held)  # the others have no image: see `_check_owners`
    index, own = index[known], own[known]
    wrong = (own < 0) | (own >= counts[np.searchsorted(held[order], index)])
    if not wrong.any():
        return []
    found = f"{name} of object {own[wrong][0]} of manifest {some_rows(np.unique(index[wrong]))}"
    return [Issue(file, found, f"{name} of objects that are in boxes")]


def _check_object_indexes(file: str, boxes: pa.Table) -> list[Issue]:
    index, own = _numbers(boxes, "manifest_index"), _numbers(boxes, "object_index")
    order = np.lexsort((own, index))
    index, own = index[order], own[order]
    firsts = np.flatnonzero(np.diff(index, prepend=-1))
    counted = np.arange(len(index)) - np.repeat(firsts, np.diff(firsts, append=len(index)))
    wrong = np.unique(index[own != counted])
    if not len(wrong):
        return []
    held = own[index == wrong[0]].tolist()
    found = f"object_index {held[: 2 * NAMED]} for manifest {some_rows(wrong)}"
    return [Issue(file, found, "0, 1, 2, ... for each image")]


def _check_object_counts(file: str, labels: pa.Table, boxes: pa.Table) -> list[Issue]:
    index = _numbers(labels, "manifest_index")
    owners, times = np.unique(_numbers(boxes, "manifest_index"), return_counts=True)
    at = np.searchsorted(owners, index)
    known = at < len(owners)
    known[known] = owners[at[known]] == index[known]
    has = np.zeros(len(index), np.int64)
    has[known] = times[at[known]]
    says = pc.fill_null(labels["object_count"], 0).to_numpy()
    wrong = np.flatnonzero(says != has)
    if not len(wrong):
        return []
    recorded = labels["object_count"][int(wrong[0])].as_py()
    found = f"object_count {'null' if recorded is None else recorded} for manifest {some_rows(index[wrong])}"
    return [Issue(file, found, f"{has[wrong[0]]}, the row's boxes")]


def _check_class_counts(file: str, labels: pa.Table, boxes: pa.Table) -> list[Issue]:
    """Every box counts 1, every count as much less: what is left over is wrong."""
    index = _numbers(labels, "manifest_index")
    counts = labels["class_counts"].combine_chunks()
    nulls = pc.xor(pc.is_null(counts), pc.is_null(labels["object_count"].combine_chunks()))
    wrong = index[nulls.to_numpy(zero_copy_only=False)]
    counts = counts.cast(pa.list_(pa.struct([("class_name", pa.string()), ("n", pa.int32())])))
    recorded, parents = counts.flatten(), pc.list_parent_indices(counts)
    keys = np.concatenate([index[parents.to_numpy()], _numbers(boxes, "manifest_index")])
    names = [recorded.field("class_name"), boxes["class_name"].cast(pa.string()).combine_chunks()]
    left = np.concatenate(
        [-recorded.field("n").to_numpy(zero_copy_only=False), np.ones(len(boxes), np.int64)]
    )
    table = pa.table({"index": keys, "class_name": pa.concat_arrays(names), "left": left})
    summed = table.group_by(["index", "class_name"], use_threads=False).aggregate([("left", "sum")])
    unequal = _numbers(summed.filter(pc.not_equal(summed["left_sum"], 0)), "index")
    wrong = np.union1d(wrong, np.intersect1d(unequal, index))
    if not len(wrong):
        return []
    return [Issue(file, f"class_counts of manifest {some_rows(wrong)}", "the classes of the row's boxes")]


def some_rows(rows: RowNumbers) -> str:
    """Row numbers for a person: the first few, and how many more there are."""
    return f"{'row' if len(rows) == 1 else 'rows'} {_some([str(row) for row in rows[:NAMED]], len(rows))}"


def _some(texts: list[str], number: int | None = None) -> str:
    more = (number or len(texts)) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more:,} more" if more > 0 else "") or "nothing"


def _numbers(table: pa.Table, column: str) -> RowNumbers:
    numbers: RowNumbers = table[column].to_numpy().astype(np.int64)
    return numbers
