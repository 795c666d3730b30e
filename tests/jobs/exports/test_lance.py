import json
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.exports.command import export_run
from schemas.exceptions import SpecError
from tests.jobs.exports.made_run import BOXES, CLASSES, LABELLED


def test_without_lance_it_is_said_how_to_get_it(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(SpecError, match=r"not installed: pip install 'raylabel\[lance\]'"):
        export_run(run, "lance", tmp_path / "out.lance")
    assert list(tmp_path.iterdir()) == []


def test_lance_reads_all_rows_and_finds_the_nearest_by_their_vectors(run: str, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    export_run(run, "lance", tmp_path / "out.lance")
    data = lance.dataset(str(tmp_path / "out.lance"))
    assert data.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    assert tuple(json.loads(data.schema.metadata[b"raylabel.classes"])) == CLASSES
    rows = data.to_table().to_pylist()
    assert [row["manifest_index"] for row in rows] == list(LABELLED)
    for index, row in zip(LABELLED, rows, strict=True):
        assert [CLASSES[number] for number in row["objects"]["categories"]] == row["classes"]
        assert len(row["classes"]) == len(BOXES.get(index, []))
        assert row["manifest_objects"] == f"mine {index}"
    query = pa.array([6.1, 0.5, -1, 0.1], pa.float32())
    nearest = data.to_table(nearest={"column": "embedding", "q": query, "k": 2})
    assert nearest["manifest_index"].to_pylist() == [6, 7]
    tagged = data.to_table(filter="array_has(tags, 'outdoors')", columns=["manifest_index"])
    assert tagged["manifest_index"].to_pylist() == [2, 8]
