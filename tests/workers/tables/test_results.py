import hashlib
import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.images import Classification
from schemas.plan import Plan
from schemas.tables import ERRORS, RunTables
from tests.workers.tables.made_results import (
    AT,
    CLASSIFIER,
    DETECTOR,
    EMBEDDER,
    OBJECT_EMBEDDER,
    RUN_TABLES,
    SCENE,
    labelled,
    outcome,
    results_of,
    rows_of,
)
from workers.tables.results import (
    LabelledImage,
    joined,
    key_of,
    results_table,
    split_results,
    tag_values_of_objects,
)

PLAN = Plan(rows=6, unit_rows=6, shard_units=1)

KEYS_OF_2: dict[str, Any] = {
    "manifest_index": 2,
    "image_id": "id2",
    "uri": "s3://bucket/2.jpg",
    "key": "77592fc3-c37c-cf91-b187-4515c98b0095",
    "run_id": "run",
}
KEYS_OF_3 = {
    **KEYS_OF_2,
    "manifest_index": 3,
    "image_id": "id3",
    "uri": "s3://bucket/3.jpg",
    "key": "7b1396f1-56e2-e800-cf58-c3048dab3aa7",
}


def test_results_have_one_row_a_manifest_row_under_the_declared_schema() -> None:
    results = results_of(PLAN, 0)
    assert results.schema == RUN_TABLES.results
    assert results["manifest_index"].to_pylist() == list(range(6))
    assert [row is None for row in results["error"].to_pylist()] == [True, True, True, False, True, True]


def test_a_row_goes_to_labels_or_to_errors_and_its_boxes_to_boxes() -> None:
    tables = split_results(results_of(PLAN, 0), RUN_TABLES, "run")
    assert {name: table.schema for name, table in tables.items()} == {
        name: RUN_TABLES.schema(name)
        for name in ("labels", "boxes", "tags", "embeddings", "object_embeddings", "errors")
    }
    assert tables["labels"]["manifest_index"].to_pylist() == [0, 1, 2, 4, 5]
    assert tables["boxes"].select(["manifest_index", "object_index"]).to_pydict() == {
        "manifest_index": [1, 2, 2, 4, 5, 5],
        "object_index": [0, 0, 1, 0, 0, 1],
    }
    assert tables["errors"].to_pylist() == [
        {
            **KEYS_OF_3,
            "stage": "decode",
            "code": "TRUNCATED",
            "message": "image 3 ends early",
            "attempts": 1,
            "retryable": False,
            "failed_at": AT,
            "manifest_uri": "3.jpg",
            "uri_is_cut": False,
            "split": "train",
            "manifest_label": 3,
        }
    ]


def test_a_labels_row_says_all_of_its_image() -> None:
    assert split_results(results_of(PLAN, 0), RUN_TABLES, "run")["labels"].to_pylist()[2] == {
        **KEYS_OF_2,
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
        "manifest_uri": None,
        "split": "train",
        "manifest_label": 2,
    }


def test_a_boxes_row_says_all_of_its_object() -> None:
    box = split_results(results_of(PLAN, 0), RUN_TABLES, "run")["boxes"].to_pylist()[2]
    assert {**box, "score": round(box["score"], 6)} == {
        **KEYS_OF_2,
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


def test_each_tag_of_each_tagger_is_a_row_with_the_keys_of_its_image() -> None:
    tags = split_results(results_of(PLAN, 0), RUN_TABLES, "run")["tags"]
    assert tags.schema == RUN_TABLES.schema("tags")
    rows = tags.to_pylist()
    whole = {**KEYS_OF_2, "object_index": None}
    assert rows[2:5] == [
        {**whole, "tagger": "classifier", "label_id": 2, "label": "palace", "score": 0.75},
        {**whole, "tagger": "scene", "label_id": 0, "label": "indoors", "score": pytest.approx(0.9)},
        {**whole, "tagger": "scene", "label_id": 1, "label": "outdoors", "score": 0.5},
    ]
    assert [(row["manifest_index"], row["tagger"]) for row in rows if row["manifest_index"] != 2] == [
        *[(0, "classifier"), (1, "scene"), (4, "classifier"), (4, "scene"), (5, "scene"), (5, "scene")]
    ]


def test_images_with_very_many_tags_are_split_in_memory_that_grows_with_their_number() -> None:
    tag = {"tagger": "scene", "label_id": 0, "label": "a" * 40, "score": 0.5}
    image = labelled(0)
    many = LabelledImage(image.facts, {**image.values, "rows of tags": [tag] * 1000}, image.at)
    results = results_table(0, rows_of(range(200)), [many] * 200, RUN_TABLES)  # squared: 8 GB
    assert split_results(results, RUN_TABLES, "run")["tags"].num_rows == 200_000


def test_each_labelled_image_has_one_embedding_of_fixed_size() -> None:
    embeddings = split_results(results_of(PLAN, 0), RUN_TABLES, "run")["embeddings"]
    assert embeddings.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    assert embeddings["manifest_index"].to_pylist() == [0, 1, 2, 4, 5]
    assert embeddings.to_pylist()[2] == {
        **KEYS_OF_2,
        "embedding": [2.0, 0.5, -1.0, 2.0],
        "embedder": EMBEDDER.fingerprint,
    }


def test_each_object_that_was_embedded_has_its_index_in_the_image() -> None:
    embeddings = split_results(results_of(PLAN, 0), RUN_TABLES, "run")["object_embeddings"]
    places = [(row["manifest_index"], row["object_index"]) for row in embeddings.to_pylist()]
    assert places == [(1, 0), (2, 0), (2, 1), (4, 0), (5, 0), (5, 1)]
    assert embeddings.to_pylist()[2] == {
        **KEYS_OF_2,
        "object_index": 1,
        "embedding": [2.0, 1.0, 0.0, 1.0],
        "embedder": OBJECT_EMBEDDER.fingerprint,
    }


def test_tags_of_objects_have_the_index_of_theirs() -> None:
    kinds = {n: Classification(np.array([n], np.int32), np.array([0.5], np.float32)) for n in (0, 2)}
    image = labelled(2)
    values = joined([image.values, tag_values_of_objects(kinds, SCENE, "kind")])
    results = results_table(0, rows_of([2]), [LabelledImage(image.facts, values, image.at)], RUN_TABLES)
    tags = split_results(results, RUN_TABLES, "run")["tags"].select(["tagger", "label", "object_index"])
    assert [tuple(row.values()) for row in tags.to_pylist()] == [
        ("classifier", "palace", None),
        ("scene", "indoors", None),
        ("scene", "outdoors", None),
        ("kind", "indoors", 0),
        ("kind", "night", 2),
    ]


def test_the_key_of_an_image_is_the_first_half_of_the_hash_of_its_uri_as_a_uuid() -> None:
    digest = hashlib.sha256(b"s3://bucket/2.jpg").hexdigest()
    assert KEYS_OF_2["key"].replace("-", "") == digest[:32]
    assert str(uuid.UUID(KEYS_OF_2["key"])) == KEYS_OF_2["key"] == key_of("s3://bucket/2.jpg")


def test_where_no_detector_ran_counts_are_null_and_where_it_found_nothing_zero() -> None:
    rows, alone = rows_of(range(6)), [outcome(n, [CLASSIFIER]) for n in range(6)]
    without = split_results(results_table(0, rows, alone, RUN_TABLES), RUN_TABLES, "run")
    counts = ["object_count", "class_counts", "detector"]
    assert without["labels"].select(counts).to_pylist()[0] == dict.fromkeys(counts)
    assert without["boxes"].num_rows == 0
    found = [outcome(n) for n in range(6)]
    with_one = split_results(results_table(0, rows, found, RUN_TABLES), RUN_TABLES, "run")[
        "labels"
    ].to_pylist()[0]
    assert (with_one["object_count"], with_one["class_counts"]) == (0, [])


def test_where_no_classifier_ran_its_columns_are_null() -> None:
    alone = [outcome(n, [DETECTOR]) for n in range(6)]
    results = results_table(0, rows_of(range(6)), alone, RUN_TABLES)
    columns = ["label_id", "label", "score", "score_type", "topk", "classifier"]
    assert split_results(results, RUN_TABLES, "run")["labels"].select(columns).to_pylist()[
        0
    ] == dict.fromkeys(columns)


def test_a_unit_in_which_everything_failed_has_no_labels() -> None:
    failed = [outcome(3)] * 6
    tables = split_results(results_table(0, rows_of(range(6)), failed, RUN_TABLES), RUN_TABLES, "run")
    rows = {name: table.num_rows for name, table in tables.items()}
    assert rows == {"labels": 0, "boxes": 0, "tags": 0, "embeddings": 0, "object_embeddings": 0, "errors": 6}


def test_a_missing_value_in_a_required_column_is_refused() -> None:
    results = results_of(PLAN, 0)
    position = results.column_names.index("format")
    broken = results.set_column(position, results.schema.field("format"), pa.nulls(6, pa.string()))
    with pytest.raises(ValueError, match="column format has 5 nulls and may have none"):
        split_results(broken, RUN_TABLES, "run")


def test_the_errors_table_has_a_column_for_every_fact_of_a_row_error() -> None:
    assert ERRORS.names[5:-2] == ["stage", "code", "message", "attempts", "retryable", "failed_at"]


def test_columns_of_the_manifest_are_called_in_errors_as_in_labels_unless_errors_has_that_name() -> None:
    carried = pa.schema([("Code", pa.string()), ("width", pa.int64()), ("split", pa.string())])
    rows = rows_of([3]).select(["manifest_index", "image_id", "uri", "manifest_uri", "uri_is_cut"])
    tables = RunTables(RUN_TABLES.names, carried, RUN_TABLES.embedding_width)
    for name, value in (("Code", "x"), ("manifest_width", 7), ("split", "train")):
        rows = rows.append_column(name, pa.array([value]))
    for which, expected in (
        ("labels", {"Code": "x", "manifest_width": 7, "split": "train"}),
        ("errors", {"manifest_Code": "x", "manifest_width": 7, "split": "train"}),
    ):
        found = [labelled(3)] if which == "labels" else [outcome(3)]
        row = split_results(results_table(0, rows, found, tables), tables, "run")[which].to_pylist()[0]
        assert dict(list(row.items())[-3:]) == expected
