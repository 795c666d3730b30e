import pyarrow as pa
import pytest

from schemas.plan import Plan
from schemas.tables import ERRORS, results_schema, table_schema
from tests.workers.tables.made_results import (
    AT,
    CARRIED,
    CLASSIFIER,
    DETECTOR,
    labelled,
    outcome,
    results_of,
    rows_of,
)
from workers.tables.results import results_table, split_results

PLAN = Plan(rows=6, unit_rows=6, shard_units=1)


def test_results_have_one_row_a_manifest_row_under_the_declared_schema() -> None:
    results = results_of(PLAN, 0)
    assert results.schema == results_schema(CARRIED)
    assert results["manifest_index"].to_pylist() == list(range(6))
    assert [row is None for row in results["error"].to_pylist()] == [True, True, True, False, True, True]


def test_a_row_goes_to_labels_or_to_errors_and_its_boxes_to_boxes() -> None:
    tables = split_results(results_of(PLAN, 0), CARRIED)
    assert {name: table.schema for name, table in tables.items()} == {
        name: table_schema(name, CARRIED) for name in ("labels", "boxes", "errors")
    }
    assert tables["labels"]["manifest_index"].to_pylist() == [0, 1, 2, 4, 5]
    assert tables["boxes"].select(["manifest_index", "object_index"]).to_pydict() == {
        "manifest_index": [1, 2, 2, 4, 5, 5],
        "object_index": [0, 0, 1, 0, 0, 1],
    }
    assert tables["errors"].to_pylist() == [
        {
            "manifest_index": 3,
            "image_id": "id3",
            "uri": "s3://bucket/3.jpg",
            "stage": "decode",
            "code": "TRUNCATED",
            "message": "image 3 ends early",
            "attempts": 1,
            "retryable": False,
            "failed_at": AT,
            "absolute_uri": "s3://bucket/3.jpg",
            "split": "train",
            "manifest_label": 3,
        }
    ]


def test_a_labels_row_says_all_of_its_image() -> None:
    assert split_results(results_of(PLAN, 0), CARRIED)["labels"].to_pylist()[2] == {
        "manifest_index": 2,
        "image_id": "id2",
        "uri": "s3://bucket/2.jpg",
        "width": 102,
        "height": 80,
        "format": "JPEG",
        "byte_size": 1002,
        "sha256": (2).to_bytes(32, "big"),
        "exif_orientation": 1,
        "source_mode": "RGB",
        "frame_count": 1,
        "label_id": 2,
        "label": "palace",
        "score": 0.75,
        "score_type": "softmax",
        "topk": [
            {"label_id": 2, "label": "palace", "score": 0.75},
            {"label_id": 0, "label": "cat", "score": 0.125},
        ],
        "object_count": 2,
        "class_counts": [("boat", 1), ("person", 1)],
        "classifier": CLASSIFIER.fingerprint,
        "detector": DETECTOR.fingerprint,
        "processed_at": AT,
        "split": "train",
        "manifest_label": 2,
    }


def test_a_boxes_row_says_all_of_its_object() -> None:
    box = split_results(results_of(PLAN, 0), CARRIED)["boxes"].to_pylist()[2]
    assert {**box, "score": round(box["score"], 6)} == {
        "manifest_index": 2,
        "image_id": "id2",
        "uri": "s3://bucket/2.jpg",
        "object_index": 1,
        "class_id": 1,
        "class_name": "boat",
        "score": 0.65,
        "x1": 1.0,
        "y1": 1.5,
        "x2": 11.0,
        "y2": 20.0,
        "width": 102,
        "height": 80,
        "detector": DETECTOR.fingerprint,
    }


def test_where_no_detector_ran_counts_are_null_and_where_it_found_nothing_zero() -> None:
    rows, alone = rows_of(range(6)), [outcome(n, [CLASSIFIER]) for n in range(6)]
    without = split_results(results_table(0, rows, alone, CARRIED), CARRIED)
    counts = ["object_count", "class_counts", "detector"]
    assert without["labels"].select(counts).to_pylist()[0] == dict.fromkeys(counts)
    assert without["boxes"].num_rows == 0
    found = [outcome(n) for n in range(6)]
    with_one = split_results(results_table(0, rows, found, CARRIED), CARRIED)["labels"].to_pylist()[0]
    assert (with_one["object_count"], with_one["class_counts"]) == (0, [])


def test_where_no_classifier_ran_its_columns_are_null() -> None:
    alone = [outcome(n, [DETECTOR]) for n in range(6)]
    results = results_table(0, rows_of(range(6)), alone, CARRIED)
    columns = ["label_id", "label", "score", "score_type", "topk", "classifier"]
    assert split_results(results, CARRIED)["labels"].select(columns).to_pylist()[0] == dict.fromkeys(columns)


def test_a_unit_in_which_everything_failed_has_no_labels() -> None:
    failed = [outcome(3)] * 6
    tables = split_results(results_table(0, rows_of(range(6)), failed, CARRIED), CARRIED)
    assert {name: table.num_rows for name, table in tables.items()} == {"labels": 0, "boxes": 0, "errors": 6}


def test_a_missing_value_in_a_required_column_is_refused() -> None:
    results = results_of(PLAN, 0)
    position = results.column_names.index("format")
    broken = results.set_column(position, results.schema.field("format"), pa.nulls(6, pa.string()))
    with pytest.raises(ValueError, match="column format has 5 nulls and may have none"):
        split_results(broken, CARRIED)


def test_the_errors_table_has_a_column_for_every_fact_of_a_row_error() -> None:
    assert ERRORS.names[3:-1] == ["stage", "code", "message", "attempts", "retryable", "failed_at"]


def test_columns_of_the_manifest_are_called_in_errors_as_in_labels_unless_errors_has_that_name() -> None:
    carried = pa.schema([("Code", pa.string()), ("width", pa.int64()), ("split", pa.string())])
    rows = rows_of([3]).select(["manifest_index", "image_id", "uri", "absolute_uri"])
    for name, value in (("Code", "x"), ("manifest_width", 7), ("split", "train")):
        rows = rows.append_column(name, pa.array([value]))
    for which, expected in (
        ("labels", {"Code": "x", "manifest_width": 7, "split": "train"}),
        ("errors", {"manifest_Code": "x", "manifest_width": 7, "split": "train"}),
    ):
        found = [labelled(3)] if which == "labels" else [outcome(3)]
        row = split_results(results_table(0, rows, found, carried), carried)[which].to_pylist()[0]
        assert dict(list(row.items())[-3:]) == expected
