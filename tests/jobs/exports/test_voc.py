import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from torchvision.datasets import VOCDetection

from jobs.exports.command import ExportOptions, export_run
from schemas.exceptions import SpecError
from tests.jobs.exports.made_run import BOXES, CLASSES, LABELLED, box_of, red_box, size_of


def test_torchvision_reads_each_image_with_its_boxes_in_whole_pixels(run: str, tmp_path: Path) -> None:
    export_run(run, "voc", tmp_path / "out")
    stems = (tmp_path / "out" / "ImageSets" / "Main" / "all.txt").read_text().splitlines()
    assert [int(stem[:8]) for stem in stems] == list(LABELLED)
    head, *labels = (tmp_path / "out" / "labelmap.txt").read_text(encoding="utf-8").splitlines()
    assert (head, labels) == ("# label:color_rgb:parts:actions", [f"{name}:::" for name in CLASSES])
    for index, stem in zip(LABELLED, stems, strict=True):
        root = ET.parse(tmp_path / "out" / "Annotations" / f"{stem}.xml").getroot()
        annotation = VOCDetection.parse_voc_xml(root)["annotation"]
        assert annotation["filename"].rpartition(".")[0] == stem
        size = annotation["size"]
        assert (int(size["width"]), int(size["height"]), size["depth"]) == (*size_of(index), "3")
        objects = annotation.get("object", [])
        assert len(objects) == len(BOXES.get(index, []))
        for number, found in enumerate(objects):
            name, score, (x1, y1, x2, y2) = box_of(index, number)
            assert found["name"] == name
            assert float(found["confidence"]) == pytest.approx(score, rel=1e-6)
            left, top, right, bottom = (int(found["bndbox"][key]) for key in ("xmin", "ymin", "xmax", "ymax"))
            assert 1 <= left <= right <= size_of(index)[0]
            assert 1 <= top <= bottom <= size_of(index)[1]
            # counted from 1, the last one included: half-open corners begin one before
            assert (left - 1, top - 1, right, bottom) == pytest.approx((x1, y1, x2, y2), abs=0.99)


def test_copied_photos_are_upright(run: str, tmp_path: Path) -> None:
    export_run(run, "voc", tmp_path / "out", ExportOptions(copy_images=True))
    for index in (4, 6):
        (photo,) = (tmp_path / "out" / "JPEGImages").glob(f"{index:08d}-*")
        assert red_box(photo) == pytest.approx(box_of(index)[2], abs=1.5)


def test_a_class_of_several_lines_is_refused_and_a_class_map_helps(run: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = json.loads((copy / "run.json").read_text())
    categories = record["models"]["detector"]["categories"]
    first = categories[categories.index(CLASSES[0])] = "a\nb"
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(SpecError, match=r"the class 'a\\nb' is no line of text; .* --class-map"):
        export_run(str(copy), "voc", tmp_path / "out")
    (tmp_path / "map.yaml").write_text(json.dumps({first: "ab"}))
    export_run(str(copy), "voc", tmp_path / "out", ExportOptions(class_map=tmp_path / "map.yaml"))
    assert "\nab:::\n" in (tmp_path / "out" / "labelmap.txt").read_text()
