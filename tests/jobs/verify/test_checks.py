from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.verify.checks import (
    COLUMNS,
    RowNumbers,
    check_codes,
    check_file,
    check_order,
    check_rows,
    declared,
    some_rows,
)
from schemas.ledger import StagedFile
from schemas.plan import Pass, Plan
from tests.workers.tables.made_results import RUN_TABLES, results_of
from workers.storage.store import Store
from workers.tables.parquet import count_codes, parquet_bytes, write_file
from workers.tables.results import split_results

FILES = {name: f"{name}.parquet" for name in COLUMNS}
Tables = dict[str, pa.Table]


def tables_of(rows: int, first: int = 0) -> tuple[Tables, RowNumbers]:
    """Good tables of some manifest rows, and the rows."""
    plan = Plan(rows=first + rows, unit_rows=first + rows, shard_units=1)
    expected = np.arange(first, first + rows)
    whole = split_results(results_of(Pass(plan, expected), 0), RUN_TABLES, "run")
    return {name: whole[name].select(columns) for name, columns in COLUMNS.items()}, expected


def issues(tables: Tables, rows: RowNumbers) -> list[str]:
    found = [issue for name, table in tables.items() for issue in check_order(FILES[name], table, name)]
    return [str(issue) for issue in [*found, *check_rows(FILES, tables, rows)]]


@given(rows=st.integers(1, 40), first=st.integers(0, 9))
def test_good_tables_have_no_fault(rows: int, first: int) -> None:
    tables, expected = tables_of(rows, first)
    assert issues(tables, expected) == []


def dropped(table: pa.Table, at: int, _: int) -> pa.Table:
    return pa.concat_tables([table.slice(0, at), table.slice(at + 1)])


def doubled(table: pa.Table, at: int, _: int) -> pa.Table:
    return pa.concat_tables([table.slice(0, at + 1), table.slice(at)])


def moved(table: pa.Table, at: int, to: int) -> pa.Table:
    """Takes a row to another place; to its own: to the other end."""
    order = list(range(len(table)))
    order.insert(to if to != at else len(order) - 1 - at, order.pop(at))
    return table.take(order)


def renumbered(table: pa.Table, at: int, to: int) -> pa.Table:
    """Gives a row the manifest_index of another, or of none."""
    index = table["manifest_index"].to_pylist()
    index[at] = index[to] if index[to] != index[at] else index[at] + 1000
    return table.set_column(0, "manifest_index", pa.array(index, pa.int64()))


@pytest.mark.parametrize("change", [dropped, doubled, moved, renumbered])
@given(data=st.data())
def test_any_row_that_is_dropped_doubled_moved_or_renumbered_is_found(
    change: Callable[[pa.Table, int, int], pa.Table], data: st.DataObject
) -> None:
    tables, expected = tables_of(data.draw(st.integers(8, 24), label="rows"), data.draw(st.integers(0, 9)))
    # how many tags an image has, and where in the image's, no other table says: only the checksum does
    names = [name for name in tables if change is doubled or name != "tags"]
    if change is dropped:  # an embedder may have got the boxes of some classes alone
        names.remove("object_embeddings")
    name = data.draw(st.sampled_from(names), label="table")
    places = st.integers(0, len(tables[name]) - 1)
    at, to = data.draw(places, label="at"), data.draw(places, label="to")
    changed = change(tables[name], at, to)
    if not changed.equals(tables[name]):
        assert issues({**tables, name: changed}, expected)


def column(table: pa.Table, name: str, change: Callable[[list[Any]], None]) -> pa.Table:
    values = table[name].to_pylist()
    change(values)
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))


CLASSES = st.sampled_from(["person", "boat", "cup"])
CHANGES: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("labels", "object_count"): st.none() | st.integers(-2, 5),
    ("labels", "class_counts"): st.none()
    | st.dictionaries(CLASSES, st.integers(1, 3)).map(lambda counts: sorted(counts.items())),
    ("boxes", "object_index"): st.integers(-1, 5),
    ("boxes", "class_name"): CLASSES,
    ("errors", "code"): st.sampled_from(["TIMEOUT", "DENIED"]),
}


@pytest.mark.parametrize(("name", "what"), CHANGES)
@given(data=st.data())
def test_any_count_index_class_or_code_that_is_changed_is_found(
    name: str, what: str, data: st.DataObject
) -> None:
    tables, expected = tables_of(data.draw(st.integers(8, 24), label="rows"))
    said = count_codes(tables["errors"])
    at = data.draw(st.integers(0, len(tables[name]) - 1), label="at")
    was = tables[name][what][at].as_py()
    other = data.draw(CHANGES[name, what].filter(lambda other: other != was), label="instead")
    tables[name] = column(tables[name], what, lambda values: values.__setitem__(at, other))
    assert issues(tables, expected) or check_codes("record", tables["errors"], said)


def test_a_fault_says_where_what_was_found_and_what_was_expected() -> None:
    tables, rows = tables_of(12)
    orphaned = column(tables["boxes"], "manifest_index", lambda v: v.__setitem__(-1, 11))
    assert issues({**tables, "boxes": orphaned}, rows) == [
        "boxes.parquet: found boxes of manifest row 11; expected boxes of rows in labels only",
        "labels.parquet: found object_count 1 for manifest row 10; expected 0, the row's boxes",
        "labels.parquet: found class_counts of manifest row 10; expected the classes of the row's boxes",
    ]
    assert issues(tables, np.arange(1, 30)) == [
        "labels.parquet: found manifest row 0; expected only rows of its own units",
        "labels.parquet and errors.parquet: found no manifest rows 12, 13, 14, 15, 16 and 13 more; expected "
        "each row once, in one of the two",
    ]
    assert some_rows(np.array([1234567])) == "row 1234567"


def test_a_run_without_a_detector_has_no_counts_and_no_boxes() -> None:
    tables, rows = tables_of(12)
    nothing = [None] * len(tables["labels"])
    labels = tables["labels"]
    for name in ("object_count", "class_counts"):
        labels = column(labels, name, lambda v: v.__setitem__(slice(None), nothing))
    empty = {name: tables[name].slice(0, 0) for name in ("boxes", "object_embeddings")}
    assert issues({**tables, "labels": labels, **empty}, rows) == []
    assert issues({**tables, "labels": labels}, rows)


@pytest.fixture
def file(tmp_path: Path) -> tuple[bytes, StagedFile]:
    whole = split_results(results_of(Plan(rows=12, unit_rows=12, shard_units=1), 0), RUN_TABLES, "run")[
        "labels"
    ]
    store = Store(str(tmp_path))
    said = write_file(store, "labels/shard-00000", whole, "labels")
    return store.read(said.key), said


RUN = replace(RUN_TABLES, carried=pa.schema([]))
SCHEMA = declared("labels", RUN, {"split": "string", "label": "int64"})


def test_a_file_as_it_was_written_has_no_fault(file: tuple[bytes, StagedFile]) -> None:
    table, found = check_file("f", *file, SCHEMA, "labels")
    assert table is not None
    assert (table.num_rows, found) == (9, [])


def test_any_byte_that_is_flipped_or_cut_off_is_found(file: tuple[bytes, StagedFile]) -> None:
    data, said = file
    for at in range(0, len(data), 7):
        flipped = bytes([*data[:at], data[at] ^ 0x10, *data[at + 1 :]])
        _, found = check_file("f", flipped, said, SCHEMA, "labels")
        assert any(issue.found.startswith("sha256") for issue in found)
    _, found = check_file("f", data[:-5], said, SCHEMA, "labels")
    assert [issue.found.partition(" (")[0] for issue in found][::2] == [
        f"{len(data) - 5:,} bytes",
        "no Parquet that can be read",
    ]


def test_other_columns_or_versions_than_the_declared_are_named(file: tuple[bytes, StagedFile]) -> None:
    _, found = check_file("f", *file, declared("labels", RUN, {"split": "int32"}), "labels")
    assert [str(issue) for issue in found] == [
        "f: found columns split: string, manifest_label: int64; expected split: int32"
    ]
    table, found = check_file("f", *file, declared("errors", RUN, {}), "errors")
    assert table is None
    assert "raylabel.table: labels" in found[0].found
    assert "raylabel.table: errors" in found[0].expected
    reordered = (*SCHEMA[:-2], *reversed(SCHEMA[-2:]))
    _, found = check_file("f", *file, reordered, "labels")
    assert [str(issue) for issue in found] == ["f: found columns in another order; expected the declared one"]


def test_rows_that_the_ledger_does_not_know_are_found(file: tuple[bytes, StagedFile]) -> None:
    data, said = file
    _, found = check_file("f", data, said.model_copy(update={"rows": 10}), SCHEMA, "labels")
    assert [str(issue) for issue in found] == ["f: found 9 rows; expected 10 rows, as the ledger says"]


def test_the_declared_schemas_are_those_of_the_files() -> None:
    whole = split_results(results_of(Plan(rows=8, unit_rows=8, shard_units=1), 0), RUN_TABLES, "run")
    for name, table in whole.items():
        data = parquet_bytes(table, name)
        said = StagedFile(key="k", rows=table.num_rows, size=len(data), sha256="")
        _, found = check_file(
            "f", data, said, declared(name, RUN, {"split": "string", "label": "int64"}), name
        )
        assert [issue.found.split()[0] for issue in found] == ["sha256"]
