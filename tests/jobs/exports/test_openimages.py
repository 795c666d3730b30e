import csv
from pathlib import Path

import pytest

from jobs.exports.command import export_run
from jobs.exports.openimages import labels_of
from jobs.results.images import ImageRow, Tag
from tests.jobs.exports.made_run import BOXES, CLASSES, LABELLED, MODELS, box_of, size_of, uri_of, write_run
from tests.workers.tables.made_results import CLASSIFIER, SCENE


def read(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened))


def test_boxes_have_open_images_columns_in_their_order(run: str, tmp_path: Path) -> None:
    export_run(run, "openimages", tmp_path / "out")
    head, *rows = read(tmp_path / "out" / "annotations" / "all-annotations-bbox.csv")
    assert ",".join(head) == (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,"
        "IsInside"
    )
    expected = [(index, number) for index, boxes in BOXES.items() for number in range(len(boxes))]
    for row, (index, number) in zip(rows, expected, strict=True):
        name, score, (x1, y1, x2, y2) = box_of(index, number)
        width, height = size_of(index)
        assert (int(row[0][:8]), row[2]) == (index, name)
        assert float(row[3]) == pytest.approx(score, rel=1e-6)
        shares = [float(value) for value in row[4:8]]
        assert shares == pytest.approx([x1 / width, x2 / width, y1 / height, y2 / height], abs=1e-6)


def test_classes_labels_and_tags_have_tables_and_each_image_is_listed(
    run: str, photos: Path, tmp_path: Path
) -> None:
    export_run(run, "openimages", tmp_path / "out")
    tables = tmp_path / "out" / "annotations"
    head, *classes = read(tables / "oidv7-class-descriptions.csv")
    assert head == ["LabelName", "DisplayName"]
    names = [*CLASSES, *CLASSIFIER.categories, *SCENE.categories]
    assert classes == [[name, name] for name in names]
    head, *images = read(tables / "image_ids_and_rotation.csv")
    assert ",".join(head) == (
        "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,"
        "OriginalMD5,Thumbnail300KURL,Rotation"
    )
    assert [(int(row[0][:8]), row[1], row[2]) for row in images] == [
        (index, "all", uri_of(photos, index)) for index in LABELLED
    ]
    labels = read(tables / "all-annotations-machine-imagelabels.csv")[1:]
    assert {row[0] for row in labels} == {row[0] for row in images}
    assert {row[2] for row in labels} <= set(names)
    assert [row[1:] for row in labels if row[0] == images[2][0]] == [
        ["classifier", "palace", "0.75"],
        ["classifier", "cat", "0.125"],
        ["scene", "indoors", "0.9"],
        ["scene", "outdoors", "0.5"],
    ]


def test_a_label_of_a_source_is_there_once_for_an_image_also_where_the_classifier_has_tags() -> None:
    topk = (("crane", 0.75), ("palace", 0.5), ("crane", 0.25))  # ImageNet has two of this name
    tags = (
        Tag("classifier", 0, "crane", 0.75),
        Tag("classifier", 3, "cat", 0.125),
        Tag("scene", 0, "cat", 0.9),
    )
    image = ImageRow(0, None, "a.jpg", "", 1, 1, "JPEG", 1, bytes(32), 1, topk, tags=tags)
    assert [(*label, score) for label, score in labels_of(image).items()] == [
        ("classifier", "crane", 0.75),
        ("classifier", "palace", 0.5),
        ("classifier", "cat", 0.125),
        ("scene", "cat", 0.9),
    ]


def test_a_run_without_a_detector_has_labels_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"classifier": MODELS["classifier"]})
    done = export_run(run, "openimages", tmp_path / "out")
    assert (done.images, done.objects, done.classes) == (8, 0, ())
    assert len(read(tmp_path / "out" / "annotations" / "all-annotations-machine-imagelabels.csv")) == 17
    assert len(read(tmp_path / "out" / "annotations" / "all-annotations-bbox.csv")) == 1
