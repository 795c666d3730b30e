"""Turns the models' answers into Arrow tables: the results of a unit, and the three tables made of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import MESSAGE_LIMIT, RowError
from schemas.exceptions import ImageError
from schemas.images import Classification, Detections, LoadedImage
from schemas.models import ResolvedModel
from schemas.tables import (
    ABSOLUTE_URI,
    BOX,
    BOXES,
    ERROR,
    KEYS,
    carried_names,
    results_schema,
    table_schema,
)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """The models' answers for one image, without its pixels.

    Attributes:
        facts: the labels table's columns about the file: width, height, format, ...
        values: of the columns that the models fill.
        at: when it was labelled, UTC.
    """

    facts: dict[str, Any]
    values: dict[str, Any]
    at: datetime


def facts_of(image: LoadedImage) -> dict[str, Any]:
    """The values of the labels table's columns about the file itself, see `schemas.tables.FACTS`."""
    decoded = image.decoded
    return {
        "width": decoded.width,
        "height": decoded.height,
        "format": decoded.format,
        "byte_size": image.byte_size,
        "sha256": image.sha256,
        "exif_orientation": decoded.exif_orientation,
        "source_mode": decoded.source_mode,
        "frame_count": decoded.frame_count,
    }


def results_table(
    unit: int, rows: pa.Table, outcomes: Sequence[LabelledImage | RowError], carried: pa.Schema
) -> pa.Table:
    """One row for each manifest row of a unit, under `schemas.tables.results_schema`.

    Args:
        unit: its number.
        rows: manifest_index, image_id, uri, absolute_uri and the carried columns, as
            `workers.manifest.manifest.Rows.for_results` gives them.
        outcomes: the result or the error of each row, in the same order.
        carried: the manifest's own columns.
    """
    schema = results_schema(carried)
    own = pa.schema([field for field in schema if field.name not in rows.column_names])
    values = [{**_values(outcome), "unit": unit} for outcome in outcomes]
    table = pa.Table.from_pylist(values, own)
    return pa.table([(table if f.name in own.names else rows)[f.name] for f in schema], schema=schema)


def _values(outcome: LabelledImage | RowError) -> dict[str, Any]:
    """One row's values, all but those of the manifest; columns left out are null."""
    if isinstance(outcome, RowError):
        return {"error": error_values(outcome)}
    return {**outcome.facts, **outcome.values, "processed_at": outcome.at}


def row_error(error: ImageError, at: datetime) -> RowError:
    """An image's exception as the value of its row in the errors table."""
    message = (
        error.message if len(error.message) <= MESSAGE_LIMIT else error.message[: MESSAGE_LIMIT - 1] + "…"
    )
    return RowError(error.stage, error.code, message, error.attempts, at)


def error_values(error: RowError) -> dict[str, Any]:
    """An error as a value of `schemas.tables.ERROR`."""
    values = {name: getattr(error, name) for name in ("stage", "code", "message", "attempts", "failed_at")}
    return {**values, "retryable": error.code.retryable}


def label_values(result: Classification, model: ResolvedModel) -> dict[str, Any]:
    """The columns of the labels table that a classifier fills."""
    pairs = zip(result.label_ids.tolist(), result.scores.tolist(), strict=True)
    topk = [
        {"label_id": label_id, "label": model.categories[label_id], "score": score}
        for label_id, score in pairs
    ]
    return {
        **topk[0],
        "topk": topk,
        "score_type": model.settings["score_type"],
        "classifier": model.fingerprint,
    }


def box_values(result: Detections, model: ResolvedModel) -> dict[str, Any]:
    """The columns of the labels table that a detector fills, and its boxes, see `schemas.tables.BOX`."""
    boxes = [
        dict(zip(BOX.names, (class_id, model.categories[class_id], score, *box), strict=True))
        for class_id, score, box in zip(
            result.class_ids.tolist(), result.scores.tolist(), result.boxes.tolist(), strict=True
        )
    ]
    counts = Counter(box["class_name"] for box in boxes)
    return {
        "boxes": boxes,
        "object_count": len(boxes),
        "class_counts": sorted(counts.items()),
        "detector": model.fingerprint,
    }


def split_results(results: pa.Table, carried: pa.Schema) -> dict[str, pa.Table]:
    """The labels, boxes and errors tables made of some results, each sorted by manifest_index.

    Each row goes either to labels, and its boxes to boxes, or to errors.
    """
    ordered = results.sort_by("manifest_index").combine_chunks()
    failed = pc.is_valid(ordered["error"])
    labelled, errors = ordered.filter(pc.invert(failed)), ordered.filter(failed)
    tables = {
        "labels": labelled,
        "boxes": _boxes(labelled),
        "errors": _errors(errors, carried),
    }
    return {name: _cast(table, table_schema(name, carried)) for name, table in tables.items()}


def _boxes(labelled: pa.Table) -> pa.Table:
    """One row for each box of the labelled rows; the boxes of a row keep their order."""
    boxes = labelled["boxes"].combine_chunks()
    counts = pc.fill_null(pc.list_value_length(boxes), 0).to_numpy(zero_copy_only=False)
    parents = labelled.take(pa.array(np.repeat(np.arange(len(counts)), counts)))
    ends = np.cumsum(counts)
    index = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    from_image = {name: parents[name] for name in ("width", "height", "detector")}
    columns = {**_keys(parents), "object_index": pa.array(index, pa.int32()), **from_image}
    columns |= _fields(pc.list_flatten(boxes), BOX)
    return pa.table({name: columns[name] for name in BOXES.names})


def _errors(failed: pa.Table, carried: pa.Schema) -> pa.Table:
    """One row for each failed row."""
    own = {ABSOLUTE_URI.name: failed[ABSOLUTE_URI.name], **_fields(failed["error"], ERROR)}
    in_labels, in_errors = carried_names(carried), carried_names(carried, "errors")
    return pa.table({**_keys(failed), **own, **{in_errors[n]: failed[in_labels[n]] for n in carried.names}})


def _keys(table: pa.Table) -> dict[str, Any]:
    return {f.name: table[f.name] for f in KEYS}


def _fields(structs: Any, kind: pa.StructType) -> dict[str, Any]:
    return {name: pc.struct_field(structs, name) for name in kind.names}


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with its declared schema.

    Raises:
        ValueError: a required column has a null.
    """
    columns = [table[f.name].combine_chunks().cast(f.type) for f in schema]
    for column, field in zip(columns, schema, strict=True):
        if not field.nullable and column.null_count:
            raise ValueError(f"column {field.name} has {column.null_count} nulls and may have none")
    return pa.table(columns, schema=schema)
