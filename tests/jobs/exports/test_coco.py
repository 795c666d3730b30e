import contextlib
import io
import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from torchvision.datasets import CocoDetection

from jobs.exports.command import ExportOptions, export_run
from tests.jobs.exports.made_run import BOXES, CLASSES, LABELLED, PHOTOS, box_of, red_box, size_of, uri_of

ANNOTATIONS = "annotations/instances_all.json"


def read(file: Path) -> COCO:
    """The dataset as pycocotools reads it, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(file))


@pytest.mark.parametrize("copy", [False, True])
def test_pycocotools_reads_all_images_boxes_scores_and_classes(
    run: str, photos: Path, tmp_path: Path, copy: bool
) -> None:
    done = export_run(run, "coco", tmp_path / "out", ExportOptions(copy_images=copy))
    assert (done.images, done.objects, done.classes) == (8, 8, CLASSES)
    data = read(tmp_path / "out" / ANNOTATIONS)
    assert data.getCatIds() == [1, 2, 3, 4, 5]
    assert tuple(cat["name"] for cat in data.loadCats(data.getCatIds())) == CLASSES
    assert data.getImgIds() == [index + 1 for index in LABELLED]
    for index in LABELLED:
        (image,) = data.loadImgs([index + 1])
        assert (image["width"], image["height"]) == size_of(index)
        assert image["uri"] == uri_of(photos, index)
        assert image.get("own_id") == (None if index == 1 else f"id <{index}>, & more")
        if copy:
            assert (tmp_path / "out" / "images" / image["file_name"]).is_file()
        else:
            assert image["file_name"] == image["uri"]
        found = data.loadAnns(data.getAnnIds([index + 1]))
        assert len(found) == len(BOXES.get(index, []))
        for number, annotation in enumerate(found):
            name, score, (x1, y1, x2, y2) = box_of(index, number)
            assert data.cats[annotation["category_id"]]["name"] == name
            assert annotation["bbox"] == [x1, y1, x2 - x1, y2 - y1]
            assert annotation["area"] == (x2 - x1) * (y2 - y1)
            assert annotation["score"] == pytest.approx(score, rel=1e-6)
    assert sorted(data.anns) == list(range(1, 9))


def test_copies_are_upright_so_that_boxes_lie_on_their_objects(run: str, tmp_path: Path) -> None:
    export_run(run, "coco", tmp_path / "out", ExportOptions(copy_images=True))
    data = read(tmp_path / "out" / ANNOTATIONS)
    for index in BOXES:
        (image,) = data.loadImgs([index + 1])
        x, y, width, height = data.imgToAnns[index + 1][0]["bbox"]
        photo = tmp_path / "out" / "images" / image["file_name"]
        assert red_box(photo) == pytest.approx((x, y, x + width, y + height), abs=1.5), PHOTOS[index]


def test_torchvision_finds_the_copies_by_their_names(run: str, tmp_path: Path) -> None:
    export_run(run, "coco", tmp_path / "out", ExportOptions(copy_images=True))
    with contextlib.redirect_stdout(io.StringIO()):
        data = CocoDetection(str(tmp_path / "out" / "images"), str(tmp_path / "out" / ANNOTATIONS))
    assert [photo.size for photo, _ in data] == [size_of(index) for index in LABELLED]
    assert [len(boxes) for _, boxes in data] == [len(BOXES.get(index, [])) for index in LABELLED]


def test_a_dataset_without_an_image_is_one(run: str, tmp_path: Path) -> None:
    export_run(run, "coco", tmp_path / "out", ExportOptions(where="false"))
    dataset = json.loads((tmp_path / "out" / ANNOTATIONS).read_text())
    assert (dataset["images"], dataset["annotations"], len(dataset["categories"])) == ([], [], 5)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["annotations"]
