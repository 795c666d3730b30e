from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from jobs.exports.command import ExportOptions, export_run
from tests.jobs.exports.made_run import (
    BOXES,
    CLASSES,
    LABELLED,
    MODELS,
    PLAN,
    box_of,
    size_of,
    write_run,
)


@pytest.mark.usefixtures("datasets_cache")
def test_datasets_loads_the_folder_with_photos_boxes_and_names_of_classes(run: str, tmp_path: Path) -> None:
    export_run(run, "hf", tmp_path / "out", ExportOptions(copy_images=True))
    data = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split="train")
    assert data.features["objects"]["categories"].feature.names == list(CLASSES)
    rows = sorted(data, key=lambda row: row["manifest_index"])
    for index, row in zip(LABELLED, rows, strict=True):
        assert row["image"].size == (row["width"], row["height"]) == size_of(index)
        objects = row["objects"]
        assert len(objects["bbox"]) == len(objects["categories"]) == len(objects["scores"])
        assert len(objects["bbox"]) == len(BOXES.get(index, []))
        for number, box in enumerate(objects["bbox"]):
            name, score, (x1, y1, x2, y2) = box_of(index, number)
            assert box == pytest.approx([x1, y1, x2 - x1, y2 - y1])
            assert CLASSES[objects["categories"][number]] == name
            assert objects["scores"][number] == pytest.approx(score)
        assert row["embedding"] == pytest.approx([index, 0.5, -1, 0.1])
        assert (row["label"], row["label_score"], len(row["tags"])) == ("palace", 0.75, index % 3)
    reds = np.argwhere(np.asarray(rows[4]["image"])[..., 1] < 20)
    assert [*reds.min(0)[::-1], *(reds.max(0)[::-1] + 1)] == pytest.approx(box_of(4)[2], abs=1.5)


def test_the_manifests_columns_keep_their_types_and_take_no_name_of_another(run: str, tmp_path: Path) -> None:
    export_run(run, "hf", tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "metadata.parquet")
    row = table.slice(2, 1).to_pylist()[0]
    own = {name: row[name] for name in table.column_names[-4:]}
    assert own == {
        "split": "train, '2'",
        "manifest_label": 2,
        "manifest_objects": "mine 2",
        "at": date(2026, 1, 3),
    }
    assert row["objects"]["categories"] == [0]
    assert row["file_name"] == "00000002-same.jpg"


@pytest.mark.usefixtures("datasets_cache")
def test_no_column_of_the_manifest_takes_the_place_of_the_photos(tmp_path: Path) -> None:
    names = ("image", "file_name", "small_file_name", "small_filename", "manifest_image")
    columns = {name: pa.array([f"{name} {n}" for n in range(PLAN.rows)]) for name in names}
    run = write_run(tmp_path, further=columns)
    export_run(run, "hf", tmp_path / "out", ExportOptions(copy_images=True))
    data = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split="train")
    row = min(data, key=lambda row: row["manifest_index"])
    assert row["image"].size == size_of(0)
    renamed = (
        "manifest_image",
        "filename",
        "small_filename",
        "manifest_small_filename",
        "manifest_manifest_image",
    )
    assert {new: row[new] for new in renamed} == {
        new: f"{name} 0" for new, name in zip(renamed, names, strict=True)
    }


def test_a_run_without_a_detector_has_no_objects(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"classifier": MODELS["classifier"]})
    export_run(run, "hf", tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "metadata.parquet")
    assert table.num_rows == 8
    assert "embedding" not in table.column_names
    assert table["objects"].to_pylist()[0] == "mine 0"  # the manifest's own
