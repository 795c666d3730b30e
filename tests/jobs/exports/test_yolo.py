import csv
from pathlib import Path

import pytest
import yaml

from jobs.exports.command import ExportOptions, export_run
from tests.jobs.exports.made_run import BOXES, CLASSES, LABELLED, box_of, red_box, size_of, uri_of


def test_each_image_has_a_file_of_labels_which_is_empty_without_objects(
    run: str, photos: Path, tmp_path: Path
) -> None:
    done = export_run(run, "yolo", tmp_path / "out")
    with (tmp_path / "out" / "images.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [(int(row["manifest_index"]), row["uri"]) for row in listed] == [
        (index, uri_of(photos, index)) for index in LABELLED
    ]
    stems = [row["file_name"].rpartition(".")[0] for row in listed]
    assert sorted(path.stem for path in (tmp_path / "out" / "labels").iterdir()) == sorted(stems)
    assert len({stem.lower() for stem in stems}) == len(LABELLED)
    for index, stem in zip(LABELLED, stems, strict=True):
        lines = (tmp_path / "out" / "labels" / f"{stem}.txt").read_text().splitlines()
        assert len(lines) == len(BOXES.get(index, []))
        width, height = size_of(index)
        for number, line in enumerate(lines):
            category, *shares = line.split(" ")
            name, _, (x1, y1, x2, y2) = box_of(index, number)
            assert CLASSES[int(category)] == name
            cx, cy, w, h = map(float, shares)
            corners = [
                (cx - w / 2) * width,
                (cy - h / 2) * height,
                (cx + w / 2) * width,
                (cy + h / 2) * height,
            ]
            assert corners == pytest.approx([x1, y1, x2, y2], abs=0.001)
            assert all(0 <= share <= 1 for share in (cx, cy, w, h))
    assert any("not in yolo: the scores of objects" in note for note in done.notes)


def test_a_copied_photo_is_upright_and_has_the_name_of_its_labels(run: str, tmp_path: Path) -> None:
    export_run(run, "yolo", tmp_path / "out", ExportOptions(copy_images=True))
    names = [{path.stem for path in (tmp_path / "out" / part).iterdir()} for part in ("images", "labels")]
    assert names[0] == names[1]
    assert len(names[0]) == len(LABELLED)
    for index in (4, 6):
        (photo,) = (tmp_path / "out" / "images").glob(f"{index:08d}-*")
        assert red_box(photo) == pytest.approx(box_of(index)[2], abs=1.5)


def test_the_names_of_all_classes_are_in_the_order_of_their_ids(run: str, tmp_path: Path) -> None:
    export_run(run, "yolo", tmp_path / "out", ExportOptions(limit=1))
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text(encoding="utf-8"))
    assert data["names"] == dict(enumerate(CLASSES))
    assert (data["train"], data["val"]) == ("images", "images")
