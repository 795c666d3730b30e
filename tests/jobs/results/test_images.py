from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.results.images import ALL, ATTACHED, ImageRow, Selection, Tag, read_images
from jobs.results.sql import Database
from jobs.results.summary import summary_of
from schemas.exceptions import SpecError
from tests.benchmarks.large_run import write_large_run
from tests.jobs.results.test_datasets import begun, publish
from tests.workers.tables.made_results import record
from workers.ledger.runs import begin_run
from workers.storage.store import Store
from workers.tables.parquet import parquet_bytes

GOOD = [n for n in range(50) if n % 4 != 3]
"""The images that did not fail."""


@pytest.fixture
def database(output: str) -> Iterator[Database]:
    publish(begun(output), 0, 1, 2)
    with Database({"": output}) as database:
        yield database


def places(images: Iterator[ImageRow]) -> list[int]:
    return [image.manifest_index for image in images]


def test_images_come_in_manifest_order_each_with_its_own_rows(database: Database) -> None:
    images = list(read_images(database, attached=ATTACHED))
    assert [image.manifest_index for image in images] == GOOD
    for image in images:
        n = image.manifest_index
        assert [box.score for box in image.boxes] == pytest.approx([0.9, 0.65][: n % 3])
        own = [Tag("classifier", 2, "palace", 0.75)] if n % 2 == 0 else []
        assert list(image.tags[: len(own)]) == own
        assert [tag.tagger for tag in image.tags[len(own) :]] == ["scene"] * (n % 3)
        assert image.embedding == (n, 0.5, -1, 2)
    third = images[4]
    assert (third.manifest_index, third.image_id, third.uri) == (5, "id5", "s3://bucket/5.jpg")
    assert (third.width, third.height, third.format, third.exif_orientation) == (105, 80, "JPEG", 1)
    assert third.topk == (("palace", 0.75), ("cat", 0.125))
    assert third.objects == (("boat", 1), ("person", 1))
    assert third.carried == {"split": "train", "manifest_label": 5}


def test_what_is_not_asked_for_is_not_read(database: Database) -> None:
    assert all(
        (image.boxes, image.tags, image.embedding) == ((), (), None) for image in read_images(database)
    )


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (ALL, GOOD),
        (Selection(limit=3), GOOD[:3]),
        (Selection(limit=0), []),
        (Selection(where="manifest_index > 40"), [n for n in GOOD if n > 40]),
        (Selection(where="object_count = 2 -- two", limit=2), [2, 5]),
        (Selection(where="class_counts['boat'] = 1 OR false"), [n for n in GOOD if n % 3 == 2]),
        (
            Selection(where="manifest_index IN (SELECT manifest_index FROM boxes WHERE class_name = 'boat')"),
            [n for n in GOOD if n % 3 == 2],
        ),
        (Selection(where="false"), []),
        (Selection(sort="object_count DESC"), [n for count in (2, 1, 0) for n in GOOD if n % 3 == count]),
        (Selection(where="width < 110", sort="width DESC, uri", limit=2), [9, 8]),
    ],
)
def test_a_selection_has_the_images_that_it_says_in_its_order(
    tmp_path: Path, selection: Selection, expected: list[int]
) -> None:
    publish(begun(str(tmp_path)), 0, 1, 2)
    with Database({"": str(tmp_path)}) as database:
        images = list(read_images(database, selection, ["boxes", "embeddings"]))
        assert [image.manifest_index for image in images] == expected
        assert [len(image.boxes) for image in images] == [n % 3 for n in expected]
        assert [image.embedding and image.embedding[0] for image in images] == expected


def test_a_sample_is_the_same_each_time_and_from_everywhere(tmp_path: Path) -> None:
    write_large_run(str(tmp_path), 3000)
    with Database({"": str(tmp_path)}) as database:
        first = places(read_images(database, Selection(sample=300)))
        assert first == places(read_images(database, Selection(sample=300))) == sorted(set(first))
        assert len(first) == 300
        assert all(70 < sum(n // 1000 == part for n in first) < 130 for part in range(3))
        some = places(read_images(database, Selection(where="manifest_index < 500", sample=10, sort="score")))
        assert (len(some), max(some) < 500, some == sorted(some)) == (10, True, False)
        assert set(places(read_images(database, Selection(sample=3000)))) == set(
            places(read_images(database))
        )


def test_columns_of_the_manifest_of_any_name_are_carried(tmp_path: Path) -> None:
    columns = {"place": 7, "bin": "x", "n": 1.5, "name": "y", "what": "z"}
    schema = pa.schema([(name, pa.scalar(value).type) for name, value in columns.items()])
    begin_run(
        Store(str(tmp_path)), record(manifest_columns={field.name: str(field.type) for field in schema})
    )
    publish(begun(str(tmp_path / "plain")), 0)
    for table in ("labels", "boxes", "errors"):
        (rows,) = Store(str(tmp_path / "plain")).read_tables([f"{table}/shard-00000.parquet"])
        if table != "boxes":
            rows = rows.drop_columns(["split", "manifest_label"])
            for field in schema:
                rows = rows.append_column(field, pa.array([columns[field.name]] * len(rows), field.type))
        Store(str(tmp_path)).write(f"{table}/shard-00000.parquet", parquet_bytes(rows, table))
    with Database({"": str(tmp_path)}) as database:
        for selection in (ALL, Selection(where="true"), Selection(sort="score", sample=18)):
            images = list(read_images(database, selection, ["boxes"]))
            assert [len(image.boxes) for image in images] == [image.manifest_index % 3 for image in images]
            assert [image.carried for image in images] == [columns] * 18
            assert summary_of(database, selection).objects == sum(n % 3 for n in GOOD if n < 24)


def test_boxes_can_be_left_out_by_a_condition(database: Database) -> None:
    images = list(
        read_images(database, attached=["boxes"], boxes_where="score > 0.7 AND class_name = 'person'")
    )
    assert [len(image.boxes) for image in images] == [int(n % 3 > 0) for n in GOOD]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(where="lable = 'cat'"), r"(?s)lable.*Candidate bindings"),
        (Selection(where="label = 'cat'; DROP VIEW labels"), "Parser Error"),
        (Selection(sort="nothing"), r"^--sort 'nothing': Binder Error: .*nothing"),
        (Selection(where="label, score"), r"^--where 'label, score': it is not one condition"),
        (Selection(where="true) UNION ALL SELECT * FROM labels WHERE (true"), "^--where 'true.*Parser Error"),
    ],
)
def test_a_condition_that_is_none_is_refused(tmp_path: Path, selection: Selection, message: str) -> None:
    publish(begun(str(tmp_path)), 0)
    with Database({"": str(tmp_path)}) as database, pytest.raises(SpecError, match=message):
        list(read_images(database, selection))


def test_many_files_of_many_row_groups_stay_in_order(tmp_path: Path) -> None:
    run = write_large_run(str(tmp_path), 30_000, width=2, shard_rows=10_000)
    assert len(run.store.list("boxes")) == 3
    with Database({"": str(tmp_path)}) as database:
        last, boxes = -1, 0
        for image in read_images(database, attached=["boxes", "embeddings"]):
            assert image.manifest_index > last
            assert image.embedding is not None
            assert len(image.boxes) == sum(number for _, number in image.objects or ())
            last, boxes = image.manifest_index, boxes + len(image.boxes)
        assert boxes == database.row("SELECT count(*) AS n FROM boxes")["n"]
