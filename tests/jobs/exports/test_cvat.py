import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from jobs.exports.command import ExportOptions, export_run
from tests.jobs.exports.made_run import BOXES, CLASSES, LABELLED, box_of, size_of, uri_of


def test_each_image_has_its_boxes_and_scores(run: str, tmp_path: Path) -> None:
    export_run(run, "cvat", tmp_path / "out")
    root = ET.parse(tmp_path / "out" / "annotations.xml").getroot()
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    assert tuple(label.findtext("name") for label in root.iter("label")) == CLASSES
    images = root.findall("image")
    assert [image.get("id") for image in images] == [str(number) for number in range(8)]
    for index, image in zip(LABELLED, images, strict=True):
        assert (image.get("width"), image.get("height")) == tuple(map(str, size_of(index)))
        boxes = image.findall("box")
        assert len(boxes) == len(BOXES.get(index, []))
        for number, box in enumerate(boxes):
            name, score, corners = box_of(index, number)
            assert box.get("label") == name
            found = [float(str(box.get(key))) for key in ("xtl", "ytl", "xbr", "ybr")]
            assert found == pytest.approx(corners, abs=0.005)
            (attribute,) = box.findall("attribute")
            assert attribute.get("name") == "score"
            assert float(str(attribute.text)) == pytest.approx(score, rel=1e-6)


def test_the_labels_are_those_of_a_tasks_constructor(run: str, tmp_path: Path) -> None:
    export_run(run, "cvat", tmp_path / "out")
    labels = json.loads((tmp_path / "out" / "labels.json").read_text(encoding="utf-8"))
    assert tuple(label["name"] for label in labels) == CLASSES
    for label in labels:
        assert label["type"] == "rectangle"
        assert [attribute["name"] for attribute in label["attributes"]] == ["score"]


def test_frames_have_the_names_of_the_copies_or_the_paths_of_the_photos(
    run: str, photos: Path, tmp_path: Path
) -> None:
    export_run(run, "cvat", tmp_path / "out")
    root = ET.parse(tmp_path / "out" / "annotations.xml").getroot()
    names = [image.get("name") for image in root.iter("image")]
    assert names[0] == uri_of(photos, 0).lstrip("/")
    assert names[6] == f"{str(photos).lstrip('/')}/photos/shard.tar/in side.jpg"
    export_run(run, "cvat", tmp_path / "copies", ExportOptions(copy_images=True))
    root = ET.parse(tmp_path / "copies" / "annotations.xml").getroot()
    names = [image.get("name") for image in root.iter("image")]
    assert sorted(map(str, names)) == sorted(path.name for path in (tmp_path / "copies" / "images").iterdir())
