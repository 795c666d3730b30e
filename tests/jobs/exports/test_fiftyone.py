import json
from pathlib import Path

import pytest

from jobs.exports.command import ExportOptions, export_run
from tests.jobs.exports.made_run import BOXES, CLASSES, LABELLED, box_of, size_of, uri_of


def test_each_photo_has_its_boxes_as_shares(run: str, photos: Path, tmp_path: Path) -> None:
    export_run(run, "fiftyone", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "labels.json").read_text(encoding="utf-8"))
    assert tuple(found["classes"]) == CLASSES
    places = json.loads((tmp_path / "out" / "data.json").read_text(encoding="utf-8"))
    assert list(places) == list(found["labels"])
    assert list(places.values()) == [uri_of(photos, index) for index in LABELLED]
    for index, detections in zip(LABELLED, found["labels"].values(), strict=True):
        assert len(detections) == len(BOXES.get(index, []))
        width, height = size_of(index)
        for number, detection in enumerate(detections):
            name, score, (x1, y1, x2, y2) = box_of(index, number)
            assert detection["label"] == name
            assert detection["confidence"] == pytest.approx(score, rel=1e-6)
            shares = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
            assert detection["bounding_box"] == pytest.approx(shares, abs=1e-6)


def test_copied_photos_are_in_data_under_the_names_of_their_labels(run: str, tmp_path: Path) -> None:
    export_run(run, "fiftyone", tmp_path / "out", ExportOptions(copy_images=True))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "labels.json"]
    found = json.loads((tmp_path / "out" / "labels.json").read_text(encoding="utf-8"))
    assert {path.stem for path in (tmp_path / "out" / "data").iterdir()} == set(found["labels"])


def test_of_photos_that_are_no_files_of_this_machine_it_is_said_that_they_must_be_copied(
    run: str, tmp_path: Path
) -> None:
    note = "is no file on a disk of this machine, and fiftyone reads no others; --copy-images copies them"
    here = ExportOptions(where="manifest_index != 7")  # the others are in a folder, this one is in a tar file
    for number, (options, expected) in enumerate(
        ((ExportOptions(), [f"1 photo {note}"]), (here, []), (ExportOptions(copy_images=True), []))
    ):
        done = export_run(run, "fiftyone", tmp_path / str(number), options)
        assert [one for one in done.notes if "FiftyOne" in one or "fiftyone reads" in one] == expected


def test_an_export_without_images_is_one_and_says_so(run: str, tmp_path: Path) -> None:
    done = export_run(run, "fiftyone", tmp_path / "out", ExportOptions(where="false"))
    assert (done.images, done.notes[-1]) == (0, "the condition is true for none of 8 images")
    assert json.loads((tmp_path / "out" / "labels.json").read_text(encoding="utf-8"))["labels"] == {}
    assert json.loads((tmp_path / "out" / "data.json").read_text()) == {}
