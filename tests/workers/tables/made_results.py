"""Results of units as the labelling actors make them, with every kind of outcome."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.errors import ErrorCode, RowError, Stage
from schemas.images import Classification, Detections
from schemas.ledger import RunRecord
from schemas.models import ModelInfo, ResolvedModel, tables_of
from schemas.plan import Pass, Plan
from workers.ledger.directory import RunDirectory
from workers.storage.store import Store
from workers.tables.results import (
    LabelledImage,
    box_values,
    embedding_values,
    embedding_values_of_objects,
    label_values,
    results_table,
    tag_values,
)

AT = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
CARRIED = pa.schema([("split", pa.string()), ("label", pa.int64())])
PLAN = Plan(rows=50, unit_rows=4, shard_units=6)


def resolved(
    name: str, task: str, categories: tuple[str, ...], table: str, width: int | None = None
) -> ResolvedModel:
    info = ModelInfo(
        name=name, task=task, source="factory", input_size="1x1", categories=3, licence="none", quality="none"
    )
    settings = {"score_type": "softmax"} if task == "classifier" else {"score_threshold": 0.4}
    return ResolvedModel(
        tables=(table,),
        width=width,
        info=info,
        weights="none",
        weights_sha256=None,
        preprocessing="none",
        categories=categories,
        settings=settings,
        code="test",
        modules=(),
    )


CLASSIFIER = resolved("guess", "classifier", ("cat", "dog", "palace"), "tags")
DETECTOR = resolved("find", "detector", ("person", "boat", "cup"), "boxes")
EMBEDDER = resolved("feel", "embedder", (), "embeddings", width=4)
OBJECT_EMBEDDER = resolved("feel one", "embedder", (), "object_embeddings", width=4)
SCENE = resolved("look", "tagger", ("indoors", "outdoors", "night"), "tags")
MODELS = {
    "classifier": CLASSIFIER,
    "detector": DETECTOR,
    "embedder": EMBEDDER,
    "embedder of objects": OBJECT_EMBEDDER,  # no job has both, but then one run has all tables
    "taggers.scene": SCENE,
}
RUN_TABLES = tables_of(MODELS, CARRIED)


def outcome(index: int, models: Collection[ResolvedModel] = MODELS.values()) -> LabelledImage | RowError:
    """Every fourth image fails."""
    if index % 4 == 3:
        return RowError(Stage.DECODE, ErrorCode.TRUNCATED, f"image {index} ends early", 1, AT)
    return labelled(index, models)


def labelled(index: int, models: Collection[ResolvedModel] = MODELS.values()) -> LabelledImage:
    """Image n has n % 3 boxes and as many tags of the scene; those with an even n one of the classifier."""
    facts = {
        "width": 100 + index,
        "height": 80,
        "format": "JPEG",
        "byte_size": 1000 + index,
        "sha256": index.to_bytes(32, "big"),
        "exif_orientation": 1,
        "source_mode": "RGB",
        "frame_count": 1,
    }
    found = index % 3
    values: dict[str, Any] = {}
    if CLASSIFIER in models:
        classes = Classification(np.array([2, 0], np.int32), np.array([0.75, 0.125], np.float32))
        values |= label_values(classes, CLASSIFIER)
    if DETECTOR in models:
        objects = Detections(
            np.array([[n, 1.5, 10 + n, 20] for n in range(found)], np.float32).reshape(-1, 4),
            np.array([0.9 - 0.25 * n for n in range(found)], np.float32),
            np.array([n % 2 for n in range(found)], np.int32),
        )
        values |= box_values(objects, DETECTOR)
    if EMBEDDER in models:
        values |= embedding_values(np.array([index, 0.5, -1, 2], np.float32), EMBEDDER)
    if OBJECT_EMBEDDER in models:
        vectors = {n: np.array([index, n, 0, 1], np.float32) for n in range(found)}
        values |= embedding_values_of_objects(vectors, OBJECT_EMBEDDER)
    if SCENE in models:
        even = 1 - index % 2
        own = Classification(np.array([2] * even, np.int32), np.array([0.75] * even, np.float32))
        tags = Classification(np.arange(found, dtype=np.int32), np.array([0.9, 0.5][:found], np.float32))
        both = (tag_values(own, CLASSIFIER, "classifier"), tag_values(tags, SCENE, "scene"))
        values |= {"rows of tags": [row for one in both for row in one["rows of tags"]]}
    return LabelledImage(facts, values, AT)


def record(**changes: Any) -> RunRecord:
    """run.json of a run of 50 images in three shards."""
    spec = {
        "manifest": {"uri_column": "uri", "image_id_column": None, "base": None},
        "decode": {"max_pixels": 100},
        "fetch": {"max_bytes": 100},
        "compute": {"precision": "auto", "runtime": "auto"},
        "units": {"rows": 4, "shard_rows": 24},
    }
    values = {
        "id": "run",
        "raylabel": "0",
        "created_at": AT,
        "spec": spec,
        "manifest": [],
        "manifest_columns": {},
        "plan": PLAN,
        "models": MODELS,
        "code": {"tables": {"workers/tables/results.py": "abc"}},
    }
    return RunRecord(**{**values, **changes})


def rows_of(rows: Sequence[int]) -> pa.Table:
    """A table of manifest rows as `workers.manifest.manifest.Rows.for_results` gives it."""
    return pa.table(
        {
            "manifest_index": pa.array(rows, pa.int64()),
            "image_id": pa.array([f"id{n}" for n in rows]),
            "uri": pa.array([f"s3://bucket/{n}.jpg" for n in rows]),
            "split": pa.array(["train"] * len(rows)),
            "manifest_label": pa.array(rows, pa.int64()),
            "manifest_uri": pa.array([f"{n}.jpg" if n % 2 else None for n in rows], pa.string()),
            "uri_is_cut": pa.array([False] * len(rows)),
        }
    )


def results_of(current: Pass | Plan, *units: int, cured: bool = False) -> pa.Table:
    """The results of some units, in that order; `cured`: no image fails any more."""
    current = Pass(current) if isinstance(current, Plan) else current
    return pa.concat_tables(
        results_table(
            unit,
            rows_of(current.rows_of_unit(unit)),
            [labelled(n) if cured else outcome(n) for n in current.rows_of_unit(unit)],
            RUN_TABLES,
        )
        for unit in units
    )


def run_directory(output: Path | str, current: Pass | Plan) -> RunDirectory:
    """A pass over a run in a directory."""
    current = Pass(current) if isinstance(current, Plan) else current
    return RunDirectory(Store(str(output)), record(plan=current.plan), current, CARRIED)
