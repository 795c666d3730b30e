import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs.exports import command
from jobs.exports.command import EVERYTHING, ExportOptions, export_command, export_run, list_formats
from jobs.exports.registry import FORMATS
from schemas.exceptions import DamagedFileError, SpecError, StorageError
from tests.jobs.exports.made_run import LABELLED, MODELS, PHOTOS, write_run
from tests.s3 import S3Server
from workers.storage.store import Store

ANNOTATIONS = "annotations/instances_all.json"


def coco(run: str, into: Path, options: ExportOptions = EVERYTHING) -> Any:
    export_run(run, "coco", into, options)
    return json.loads((into / ANNOTATIONS).read_text(encoding="utf-8"))


def test_a_condition_and_a_limit_choose_images(run: str, tmp_path: Path) -> None:
    chosen = coco(run, tmp_path / "a", ExportOptions(where="object_count = 0"))
    assert [image["id"] for image in chosen["images"]] == [2, 9]
    assert [image["id"] for image in coco(run, tmp_path / "b", ExportOptions(limit=3))["images"]] == [1, 2, 3]
    both = coco(run, tmp_path / "c", ExportOptions(where="object_count > 0", limit=2))
    assert [image["id"] for image in both["images"]] == [1, 3]


def test_classes_scores_and_a_class_map_choose_boxes_and_keep_all_images(run: str, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text('"v1.5 cup": cup\nnever seen: cup\n')
    options = ExportOptions(
        min_score=0.7, classes=("naïve, café,v1.5 cup", "person,never seen"), class_map=tmp_path / "map.yaml"
    )
    with pytest.raises(SpecError, match="no class 'naïve'"):
        coco(run, tmp_path / "a", options)
    options = ExportOptions(
        min_score=0.7,
        classes=("naïve, café", "v1.5 cup,person", "never seen"),
        class_map=tmp_path / "map.yaml",
    )
    chosen = coco(run, tmp_path / "a", options)
    assert [category["name"] for category in chosen["categories"]] == ["person", "naïve, café", "cup"]
    assert len(chosen["images"]) == len(LABELLED)
    found = [(it["image_id"], it["category_id"], it["score"]) for it in chosen["annotations"]]
    assert found == [(3, 1, 0.75), (4, 1, 0.7), (7, 1, 0.8125)]


def test_what_a_format_does_not_hold_is_said(
    run: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_command(run, "coco", tmp_path / "out", ExportOptions(limit=6))
    printed = capfd.readouterr()
    assert printed.out == f"6 images, 7 objects exported: {tmp_path}/out\n"
    assert printed.err.splitlines() == [
        "raylabel: note: not in coco: the classifier's labels, tags, embeddings, the manifest's own "
        "columns, 1 failed image",
        "raylabel: note: 2 photos have an EXIF turn: boxes are of the upright photo, and wrong "
        "for a reader that ignores EXIF; --copy-images writes it so",
    ]


def test_a_program_reads_what_was_written(
    run: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_command(
        run, "yolo", tmp_path / "out", ExportOptions(copy_images=True, classes=("person",)), as_json=True
    )
    printed = capfd.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out) == {
        "format": "yolo",
        "into": f"{tmp_path}/out",
        "images": 8,
        "objects": 3,
        "classes": ["person"],
        "left_out": 0,
        "notes": [
            "not in yolo: the scores of objects, the classifier's labels, tags, embeddings, the manifest's "
            "own columns, 1 failed image"
        ],
    }


def test_long_work_tells_how_far_it_is(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PROGRESS_S", 0)
    export_run(run, "coco", tmp_path / "out", ExportOptions(where="object_count > 0", limit=3))
    assert capsys.readouterr().err.splitlines() == [f"{number} of 3 images" for number in (1, 2, 3)]


def test_an_image_whose_photo_is_gone_or_changed_is_left_out_and_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    photos = tmp_path / "photos"
    (photos / PHOTOS[0]).write_bytes(b"other")
    (photos / PHOTOS[3]).unlink()
    done = export_run(run, "coco", tmp_path / "out", ExportOptions(copy_images=True))
    assert (done.images, done.left_out) == (6, 2)
    assert done.notes[-2:] == [
        f"left out: {photos / PHOTOS[0]}: the file has changed since it was labelled",
        f"left out: {photos / PHOTOS[3]}: it is not there any more",
    ]
    dataset = json.loads((tmp_path / "out" / ANNOTATIONS).read_text())
    assert [image["id"] for image in dataset["images"]] == [2, 3, 5, 7, 8, 9]
    assert len(list((tmp_path / "out" / "images").iterdir())) == 6


def test_where_no_photo_can_be_copied_nothing_is_written(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(
        StorageError, match=r"none of 8 photos could be copied; left out: .*one &.*: it is not there"
    ):
        export_run(run, "coco", tmp_path / "out", ExportOptions(copy_images=True))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_photos_of_a_bucket_are_copied(tmp_path: Path, s3: S3Server) -> None:
    store = Store(f"s3://{s3.new_bucket()}/x")
    run = write_run(tmp_path, url=store.url)
    for file in (tmp_path / "photos").rglob("*.*"):
        store.write(str(file.relative_to(tmp_path)), file.read_bytes())
    done = export_run(run, "yolo", tmp_path / "out", ExportOptions(copy_images=True))
    assert (done.images, done.left_out) == (8, 0)
    local = {path.name for path in (tmp_path / "out" / "images").iterdir()}
    export_run(write_run(tmp_path / "local"), "yolo", tmp_path / "same", ExportOptions(copy_images=True))
    assert local == {path.name for path in (tmp_path / "same" / "images").iterdir()}
    for name in local:
        copies = [(tmp_path / folder / "images" / name).read_bytes() for folder in ("out", "same")]
        assert copies[0] == copies[1], name


def test_a_run_that_is_not_complete_is_exported_with_a_note(tmp_path: Path) -> None:
    run = write_run(tmp_path, complete=False)
    done = export_run(run, "coco", tmp_path / "out")
    assert done.images == 8
    assert (
        done.notes[0]
        == f"{run} is not complete: all shards are published, and what is left is to verify them"
    )


def test_a_run_without_a_detector_is_no_dataset_of_objects(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"classifier": MODELS["classifier"]})
    for form in FORMATS.values():
        if form.needs_detector:
            with pytest.raises(SpecError, match=f"{form.name} is about objects, and the run had no"):
                export_run(run, form.name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("cocoa", ExportOptions(), "--format cocoa: allowed are coco, "),
        (
            "coco-results",
            ExportOptions(copy_images=True),
            "takes no --copy-images; those that do: coco, yolo",
        ),
        ("coco", ExportOptions(where="nonsense = 1"), "--where 'nonsense = 1': Binder Error: .*nonsense"),
        ("sqlite", ExportOptions(where="nonsense = 1"), "It is about a row of `labels`"),
        ("coco", ExportOptions(classes=("persn",)), "--classes: the run's detector has no class 'persn'"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_written(
    run: str, tmp_path: Path, form: str, options: ExportOptions, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        export_run(run, form, tmp_path / "out", options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused(run: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(StorageError, match=r"out exists; name a folder that does not, or an empty one"):
        export_run(run, "coco", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["mine"]
    with pytest.raises(StorageError, match="found no run"):
        export_run(str(tmp_path), "coco", tmp_path / "new")


@pytest.mark.parametrize("form", ["yolo", "sqlite"])
def test_nothing_is_exported_among_the_files_of_a_run(run: str, form: str) -> None:
    with pytest.raises(StorageError, match=f"labels is a part of the run at {run}; name a place outside of"):
        export_run(run, form, Path(run, "labels", "new", "out"))
    assert os.listdir(Path(run, "labels")) == ["shard-00000.parquet"]


def test_an_address_is_no_folder(run: str) -> None:
    with pytest.raises(SpecError, match="--into s3:/bucket/x: allowed is a name on a disk of this machine"):
        export_run(run, "coco", Path("s3://bucket/x"))


def test_files_are_the_same_whichever_images_are_exported(run: str, tmp_path: Path) -> None:
    export_run(run, "yolo", tmp_path / "all", ExportOptions(copy_images=True))
    export_run(run, "yolo", tmp_path / "some", ExportOptions(copy_images=True, where="object_count > 0"))
    some = {path.relative_to(tmp_path / "some") for path in (tmp_path / "some").glob("*/*")}
    assert len(some) == 12
    for path in some:
        assert (tmp_path / "some" / path).read_bytes() == (tmp_path / "all" / path).read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_a_failed_export_leaves_nothing(tmp_path: Path, form: str) -> None:
    if needs := FORMATS[form].needs:
        pytest.importorskip(needs[0])
    run = write_run(tmp_path / "made")
    boxes = Path(run) / "boxes" / "shard-00000.parquet"
    content = boxes.read_bytes()
    boxes.write_bytes(content[:4] + b"\xff" * 2000 + content[2004:])
    with pytest.raises(DamagedFileError, match=r"boxes/shard-00000\.parquet is damaged"):
        export_run(run, form, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_the_formats_are_listed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    list_formats()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(FORMATS)
    assert all(len(line) < 100 and len(line.split()) > 3 for line in lines)
    list_formats(as_json=True)
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == list(FORMATS)
