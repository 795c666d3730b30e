"""A run with the names that docs/search.md asks for: 200 images, each fifth failed, what they show drawn."""

from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.errors import ErrorCode, RowError, Stage
from schemas.images import Classification, Detections
from schemas.models import tables_of
from schemas.plan import Pass, Plan
from tests.workers.tables.made_results import AT, record, resolved
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.ledger.runs import begin_run
from workers.storage.store import Store
from workers.tables.results import (
    LabelledImage,
    box_values,
    embedding_values,
    label_values,
    results_table,
    tag_values,
)

LABELS = ("espresso", "golden retriever", "Labrador retriever", "sports car", "palace")
CLASSES = ("person", "car", "dog", "cat", "traffic light")
SCENES = ("beach", "forest", "city")
CLASSIFIER = resolved("guess", "classifier", LABELS, "tags")
DETECTOR = resolved("find", "detector", CLASSES, "boxes")
EMBEDDER = resolved("feel", "embedder", (), "embeddings", width=8)
SCENE = resolved("look", "tagger", SCENES, "tags")
MODELS = {"classifier": CLASSIFIER, "detector": DETECTOR, "embedder": EMBEDDER, "taggers.scene": SCENE}
CARRIED = pa.schema(
    [
        ("photographer", pa.string()),
        ("taken", pa.date32()),
        ("flagged", pa.bool_()),
        ("rating", pa.string()),  # as from a CSV
    ]
)
PLAN = Plan(rows=200, unit_rows=50, shard_units=4)


def vector_of(row: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The embedding of an image, of length 1: those of images ten rows apart are alike."""
    drawn = np.random.default_rng(row % 10).standard_normal(8) + np.random.default_rng(row).normal(0, 0.2, 8)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def write_documented_run(output: str) -> str:
    """Writes the run; returns the run directory."""
    columns = {field.name: str(field.type) for field in CARRIED}
    run_record = record(models=MODELS, plan=PLAN, manifest_columns=columns)
    begin_run(Store(output), run_record)
    run = RunDirectory(Store(output), run_record, Pass(PLAN), CARRIED)
    tables = tables_of(MODELS, CARRIED)
    for unit in range(PLAN.units):
        rows = PLAN.rows_of_unit(unit)
        outcomes = [_outcome(row) for row in rows]
        commit_results(run, 1, results_table(unit, _manifest(rows), outcomes, tables))
    publish_shard(run, 0)
    return output


def _manifest(rows: range) -> pa.Table:
    year = date(2023, 7, 1)
    return pa.table(
        {
            "manifest_index": pa.array(rows, pa.int64()),
            "image_id": [f"id{row}" for row in rows],
            "uri": [f"s3://photos/{2023 + row % 2}/{row:04d}.jpg" for row in rows],
            "photographer": [("Ann", "Bo", None)[row % 3] for row in rows],
            "taken": pa.array([year + timedelta(days=3 * row) for row in rows], pa.date32()),
            "flagged": [row % 4 == 0 for row in rows],
            "rating": [str(row % 11) for row in rows],
            "manifest_uri": pa.nulls(len(rows), pa.string()),
            "uri_is_cut": [False] * len(rows),
        }
    )


def _outcome(row: int) -> LabelledImage | RowError:
    if row % 5 == 4:
        code = (ErrorCode.NOT_FOUND, ErrorCode.TRUNCATED)[row % 2]
        return RowError(Stage.FETCH, code, "it is not there", 1, AT)
    draw = np.random.default_rng(row)
    width, height = ((640, 480), (1920, 1080))[row % 2]
    facts = {
        "width": width,
        "height": height,
        "format": ("JPEG", "PNG")[row % 7 == 0],
        "byte_size": 10_000 + row,
        "sha256": bytes([row]) * 32,
        "exif_orientation": 1,
        "source_mode": "RGB",
        "frame_count": 1,
    }
    order = draw.permutation(len(LABELS))[:3].astype(np.int32)
    labels = Classification(order, np.array([0.35 + row % 6 / 10, 0.2, 0.05], np.float32))
    many = int(draw.integers(0, 6))
    corner, extent = draw.random((many, 2)) * 0.5, 0.05 + draw.random((many, 2)) * 0.45
    corners = np.hstack([corner, corner + extent]) * [width, height, width, height]
    scores = np.sort(draw.uniform(0.4, 1, many))[::-1]
    objects = Detections(
        corners.astype(np.float32),
        scores.astype(np.float32),
        np.minimum(draw.geometric(0.45, many) - 1, len(CLASSES) - 1).astype(np.int32),
    )
    tags = Classification(np.array([row % 3], np.int32), np.array([0.5 + row % 5 / 10], np.float32))
    values = label_values(labels, CLASSIFIER) | box_values(objects, DETECTOR)
    values |= embedding_values(vector_of(row), EMBEDDER) | tag_values(tags, SCENE, "scene")
    return LabelledImage(facts, values, AT)
