"""Turns the models' answers into Arrow tables: the results of a unit, and the run's tables made of them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import MESSAGE_LIMIT, RowError
from schemas.exceptions import ImageError
from schemas.images import Classification, Detections, LoadedImage
from schemas.models import ResolvedModel
from schemas.tables import (
    ERROR,
    FACTS_OF,
    KEYS,
    LABELS,
    MANIFEST_URI,
    TABLES,
    URI_IS_CUT,
    RunTables,
    fact_fields,
    fact_in_results,
    rows_of,
)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """The models' answers for one image, without its pixels.

    Attributes:
        facts: the labels table's columns about the file: width, height, format, ...
        values: of the columns of results that the models fill.
        at: when it was labelled, UTC.
    """

    facts: dict[str, Any]
    values: dict[str, Any]
    at: datetime


def facts_of(image: LoadedImage) -> dict[str, Any]:
    """The values of the labels table's columns about the file itself, see `schemas.tables.ALL_FACTS`."""
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
        **image.facts,
    }


def results_table(
    unit: int, rows: pa.Table, outcomes: Sequence[LabelledImage | RowError], tables: RunTables
) -> pa.Table:
    """One row for each manifest row of a unit, under `schemas.tables.RunTables.results`.

    Args:
        unit: its number.
        rows: what a manifest gives of them: see `workers.manifest.manifest.Rows.for_results`.
        outcomes: the result or the error of each row, in the same order.
        tables: of the run.
    """
    schema = tables.results
    own = pa.schema([field for field in schema if field.name not in rows.column_names])
    values = [{**_values(outcome), "unit": unit} for outcome in outcomes]
    table = pa.Table.from_pylist(values, own)
    return pa.table([(table if f.name in own.names else rows)[f.name] for f in schema], schema=schema)


def _values(outcome: LabelledImage | RowError) -> dict[str, Any]:
    """One row's values, all but those of the manifest; columns left out are null."""
    if isinstance(outcome, RowError):
        return {"error": error_values(outcome)}
    facts = {_IN_RESULTS.get(name, name): value for name, value in outcome.facts.items()}
    return {**facts, **outcome.values, "processed_at": outcome.at}


_IN_RESULTS = {field.name: fact_in_results(field.name) for field in fact_fields(FACTS_OF)}


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
        {"label_id": label_id, "label": model.known_as[label_id], "score": score} for label_id, score in pairs
    ]
    return {
        **topk[0],
        "topk": topk,
        "score_type": model.settings["score_type"],
        "classifier": model.fingerprint,
    }


def box_values(result: Detections, model: ResolvedModel) -> dict[str, Any]:
    """The columns of results that a detector fills: of the labels table, and its boxes."""
    rows = zip(result.class_ids.tolist(), result.scores.tolist(), result.boxes.tolist(), strict=True)
    boxes = [
        dict(zip(TABLES["boxes"].own, (class_id, model.known_as[class_id], score, *box), strict=True))
        for class_id, score, box in rows
    ]
    counts = Counter(box["class_name"] for box in boxes)
    return {
        rows_of("boxes"): boxes,
        "object_count": len(boxes),
        "class_counts": sorted(counts.items()),
        "detector": model.fingerprint,
    }


def tag_values(result: Classification, model: ResolvedModel, tagger: str) -> dict[str, Any]:
    """The column of results that a tagger adds to: its tags."""
    return {rows_of("tags"): _tags(result, model, tagger, None)}


def tag_values_of_objects(
    results: Mapping[int, Classification], model: ResolvedModel, tagger: str
) -> dict[str, Any]:
    """The same of an image's objects, by their index: the tags of one after those of another."""
    tags = [tag for index, result in results.items() for tag in _tags(result, model, tagger, index)]
    return {rows_of("tags"): tags}


def _tags(
    result: Classification, model: ResolvedModel, tagger: str, object_index: int | None
) -> list[dict[str, Any]]:
    rows = zip(result.label_ids.tolist(), result.scores.tolist(), strict=True)
    return [
        {
            "tagger": tagger,
            "label_id": label_id,
            "label": model.known_as[label_id],
            "score": score,
            "object_index": object_index,
        }
        for label_id, score in rows
    ]


def embedding_values(result: NDArray[np.float32], model: ResolvedModel) -> dict[str, Any]:
    """The column of results that an embedder fills: its one embedding."""
    return {rows_of("embeddings"): [{"embedding": result, "embedder": model.fingerprint}]}


def embedding_values_of_objects(
    results: Mapping[int, NDArray[np.float32]], model: ResolvedModel
) -> dict[str, Any]:
    """The column that it fills where it gets an image's objects: one of each, by their index."""
    rows = [
        {"object_index": index, "embedding": result, "embedder": model.fingerprint}
        for index, result in results.items()
    ]
    return {rows_of("object_embeddings"): rows}


def joined(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Values of columns that several models fill for an image; rows of one table are put together."""
    values: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if name in values:
                values[name] += value
            else:
                values[name] = list(value) if isinstance(value, list) else value
    return values


def split_results(results: pa.Table, tables: RunTables, run_id: str) -> dict[str, pa.Table]:
    """The tables made of some results, each sorted by manifest_index.

    Each row goes either to labels, and what it has of further tables to these, or to errors.

    Args:
        results: under `schemas.tables.RunTables.results`.
        tables: of the run.
        run_id: of run.json.
    """
    ordered = _with_keys(results, run_id).sort_by("manifest_index").combine_chunks()
    failed = pc.is_valid(ordered["error"])
    labelled, errors = ordered.filter(pc.invert(failed)), ordered.filter(failed)
    split = {
        "labels": _labels(labelled, tables),
        **{name: _rows(labelled, name, tables) for name in tables.of_labelled},
        "errors": _errors(errors, tables),
    }
    return {name: _cast(split[name], tables.schema(name)) for name in tables.names}


def _with_keys(results: pa.Table, run_id: str) -> pa.Table:
    """Results with the keys that no row brings."""
    keys = pa.array([key_of(uri) for uri in results["uri"].to_pylist()], pa.string())
    return results.append_column("key", keys).append_column("run_id", pa.array([run_id] * len(keys)))


def key_of(uri: str) -> str:
    """The key of an image: the first 16 bytes of the SHA-256 of its URI, as text of a UUID."""
    return str(UUID(bytes=hashlib.sha256(uri.encode()).digest()[:16]))


def _rows(labelled: pa.Table, name: str, tables: RunTables) -> pa.Table:
    """One row for each that the labelled rows have of a table; those of an image keep their order."""
    table, lists = TABLES[name], labelled[rows_of(name)].combine_chunks()
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    # only what is needed: the lists of an image, copied for each of its rows, would grow with their square
    needed = labelled.select([*(key.name for key in KEYS), *table.from_image])
    parents = needed.take(pa.array(np.repeat(np.arange(len(counts)), counts)))
    columns = {**_keys(parents), **{column: parents[column] for column in table.from_image}}
    columns |= _fields(pc.list_flatten(lists), tables.row(name))
    if table.number:
        ends = np.cumsum(counts)
        index = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        columns[table.number] = pa.array(index, pa.int32())
    return pa.table({column: columns[column] for column in table.schema.names})


def _labels(labelled: pa.Table, tables: RunTables) -> pa.Table:
    """The labelled rows, with facts and the manifest's columns under their names in the labels table."""
    own = {name: labelled[name] for name in LABELS.names}
    facts = {field.name: labelled[fact_in_results(field.name)] for field in fact_fields(tables.facts)}
    return pa.table({**own, **facts, **_carried(labelled, "labels", tables)})


def _errors(failed: pa.Table, tables: RunTables) -> pa.Table:
    """One row for each failed row."""
    whole = {name: failed[name] for name in (MANIFEST_URI.name, URI_IS_CUT.name)}
    own = {**_fields(failed["error"], ERROR), **whole}
    return pa.table({**_keys(failed), **own, **_carried(failed, "errors", tables)})


def _carried(rows: pa.Table, name: str, tables: RunTables) -> dict[str, Any]:
    """The manifest's own columns under their names in a table."""
    names = zip(tables.carried_names(name).values(), tables.carried_in_results, strict=True)
    return {there: rows[here] for there, here in names}


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
