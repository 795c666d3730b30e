import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from jobs.exports import labelstudio
from jobs.exports.command import ExportOptions, export_run
from tests.jobs.exports.made_run import (
    BOXES,
    CLASSES,
    DETECTOR,
    LABELLED,
    MODELS,
    box_of,
    size_of,
    uri_of,
    write_run,
)


def tasks_of(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("tasks-*.json"))
    return [task for file in files for task in json.loads(file.read_text(encoding="utf-8"))]


def test_each_image_is_a_task_with_boxes_in_percent(run: str, photos: Path, tmp_path: Path) -> None:
    export_run(run, "labelstudio", tmp_path / "out")
    tasks = tasks_of(tmp_path / "out")
    for index, task in zip(LABELLED, tasks, strict=True):
        assert task["data"]["manifest_index"] == index
        assert task["data"]["uri"] == uri_of(photos, index)
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == DETECTOR.fingerprint
        assert len(prediction["result"]) == len(BOXES.get(index, []))
        assert len({region["id"] for region in prediction["result"]}) == len(prediction["result"])
        width, height = size_of(index)
        for number, region in enumerate(prediction["result"]):
            name, score, (x1, y1, x2, y2) = box_of(index, number)
            value = region["value"]
            assert (region["type"], region["original_width"], region["original_height"]) == (
                "rectanglelabels",
                width,
                height,
            )
            assert value["rectanglelabels"] == [name]
            assert region["score"] == pytest.approx(score, rel=1e-6)
            corners = (value["x"], value["y"], value["x"] + value["width"], value["y"] + value["height"])
            assert all(0 <= corner <= 100 for corner in corners)
            pixels = [corner * side / 100 for corner, side in zip(corners, (width, height) * 2, strict=True)]
            assert pixels == pytest.approx([x1, y1, x2, y2], abs=0.001)


def test_the_config_has_each_label_and_the_names_that_predictions_use(run: str, tmp_path: Path) -> None:
    export_run(run, "labelstudio", tmp_path / "out")
    view = ET.parse(tmp_path / "out" / "config.xml").getroot()
    (image,), (labels,) = view.findall("Image"), view.findall("RectangleLabels")
    assert tuple(label.get("value") for label in labels) == CLASSES
    task = tasks_of(tmp_path / "out")[0]
    region = task["predictions"][0]["result"][0]
    assert (region["from_name"], region["to_name"]) == (labels.get("name"), image.get("name"))
    assert labels.get("toName") == image.get("name")
    assert str(image.get("value")).lstrip("$") in task["data"]


def test_local_photos_have_the_address_at_which_label_studio_serves_them(
    run: str, photos: Path, tmp_path: Path
) -> None:
    export_run(run, "labelstudio", tmp_path / "out")
    start, name = tasks_of(tmp_path / "out")[0]["data"]["image"].split("?d=")
    assert (start, f"/{unquote(name)}") == ("/data/local-files/", uri_of(photos, 0))
    export_run(run, "labelstudio", tmp_path / "copies", ExportOptions(copy_images=True))
    for task in tasks_of(tmp_path / "copies"):
        assert (tmp_path / unquote(task["data"]["image"].split("?d=")[1])).is_file()


def test_labels_tags_and_the_manifests_columns_are_data(run: str, tmp_path: Path) -> None:
    export_run(run, "labelstudio", tmp_path / "out")
    data = tasks_of(tmp_path / "out")[2]["data"]
    assert {name: data[name] for name in ("label", "label_score", "tags", "image_id")} == {
        "label": "palace",
        "label_score": 0.75,
        "tags": ["indoors", "outdoors"],
        "image_id": "id <2>, & more",
    }
    assert (data["split"], data["manifest_label"], data["at"]) == ("train, '2'", 2, "2026-01-03")


def test_tasks_are_in_files_of_so_many(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelstudio, "TASKS", 3)
    export_run(run, "labelstudio", tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").glob("*.json"))] == [
        f"tasks-{number:05d}.json" for number in range(3)
    ]
    assert [task["data"]["manifest_index"] for task in tasks_of(tmp_path / "out")] == list(LABELLED)


def test_a_run_without_a_detector_has_tasks_without_predictions(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"classifier": MODELS["classifier"]})
    export_run(run, "labelstudio", tmp_path / "out")
    assert [task.keys() for task in tasks_of(tmp_path / "out")] == [{"data"}] * 8
