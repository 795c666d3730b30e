"""Columns of a manifest of any type and name, in the formats that keep them."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.exports.command import export_run
from tests.jobs.exports.made_run import PLAN, write_run

MOMENT = datetime(2020, 1, 2, 3, tzinfo=UTC)
FURTHER: dict[str, tuple[pa.DataType, Any]] = {
    "moment": (pa.timestamp("us", "UTC"), MOMENT),
    "price": (pa.decimal128(10, 2), Decimal("1.25")),
    "parts": (pa.list_(pa.int64()), [1, 2]),
    "of": (pa.struct([("a", pa.int8())]), {"a": 1}),
    "pairs": (pa.map_(pa.string(), pa.int32()), [("x", 1)]),
    "bytes": (pa.binary(), b"\x00\xff"),
    "hour": (pa.time64("us"), time(1, 2, 3)),
    "large": (pa.uint64(), 2**64 - 1),
    "share": (pa.float32(), float("nan")),
    "is_good": (pa.bool_(), True),
    "kind": (pa.dictionary(pa.int32(), pa.string()), "x"),
    'a "b".c': (pa.string(), "v"),
    "Classes": (pa.large_string(), "own"),
    "nothing": (pa.null(), None),
}


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    columns = {name: pa.array([value] * PLAN.rows, kind) for name, (kind, value) in FURTHER.items()}
    return write_run(tmp_path_factory.mktemp("odd"), further=columns)


def expected(**changes: Any) -> dict[str, Any]:
    """The values in a row of Arrow; share is no number, so equal to nothing."""
    values = {name: value for name, (_, value) in FURTHER.items() if name not in ("share", 'a "b".c')}
    values |= {"parts": "[1, 2]", "of": '{"a": 1}', "pairs": '{"x": 1}', 'a "b"_c': "v"}
    return values | changes


def test_hf_keeps_values_and_types_and_writes_what_is_nested_as_json(odd_run: str, tmp_path: Path) -> None:
    export_run(odd_run, "hf", tmp_path / "out")
    row = pq.read_table(tmp_path / "out" / "metadata.parquet").slice(0, 1).to_pylist()[0]
    assert {name: row[name] for name in expected()} == expected()
    assert row["share"] != row["share"]


def test_lance_keeps_them_too(odd_run: str, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    export_run(odd_run, "lance", tmp_path / "out.lance")
    row = lance.dataset(str(tmp_path / "out.lance")).to_table().slice(0, 1).to_pylist()[0]
    own = expected()
    own["manifest_Classes"] = own.pop("Classes")
    assert {name: row[name] for name in own} == own


def test_sqlite_keeps_what_it_has_types_for_and_all_else_as_text(odd_run: str, tmp_path: Path) -> None:
    export_run(odd_run, "sqlite", tmp_path / "out")
    with closing(sqlite3.connect(tmp_path / "out")) as database:
        database.row_factory = sqlite3.Row
        row = dict(database.execute("SELECT * FROM images LIMIT 1").fetchone())
    own = expected(moment="2020-01-02T03:00:00+00:00", price="1.25", hour="01:02:03", large=str(2**64 - 1))
    own |= {"is_good": 1, "share": None, "manifest_Classes": own.pop("Classes")}
    assert {name: row[name] for name in own} == own


@pytest.mark.parametrize("form", ["opensearch", "labelstudio"])
def test_json_has_them_as_json_has_them(odd_run: str, tmp_path: Path, form: str) -> None:
    export_run(odd_run, form, tmp_path / "out")
    if form == "opensearch":
        lines = (tmp_path / "out" / "bulk-00000.ndjson").read_text(encoding="utf-8").splitlines()
        found = json.loads(lines[1])["manifest"]
    else:
        found = json.loads((tmp_path / "out" / "tasks-00000.json").read_text(encoding="utf-8"))[0]["data"]
    own = expected(
        moment="2020-01-02T03:00:00+00:00", price=1.25, hour="01:02:03", bytes="00ff", large=str(2**64 - 1)
    )
    own |= {"parts": [1, 2], "of": {"a": 1}, "pairs": {"x": 1}, "share": None}
    assert {name: found[name] for name in own} == own
