"""Samples as Arrow rows, one an image: for formats that are tables."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa

from jobs.exports.base import Export, Sample
from jobs.results.plain import dump_json
from workers.batched import chunks

ROWS = 1000
"""In a batch."""

OBJECTS = pa.struct(
    [
        ("bbox", pa.list_(pa.list_(pa.float32()))),  # x, y, width, height in pixels of the upright photo
        ("categories", pa.list_(pa.int64())),  # indices into the classes of the export
        ("scores", pa.list_(pa.float32())),
    ]
)
"""The boxes of an image: a struct of lists, as readers of datasets want it."""

TAGS_OF_OBJECTS = (
    pa.field("tags", pa.list_(pa.list_(pa.string()))),
    pa.field("tag_scores", pa.list_(pa.list_(pa.float32()))),
)
"""Of each box its tags, where a tagger got boxes; those of the whole image are columns."""


def schema_of(
    export: Export,
    own: Mapping[str, pa.DataType],
    taken: Collection[str] = (),
    spelled: Callable[[str], str] = str,
) -> pa.Schema:
    """The columns of an export: those of the format, those of images, and then the manifest's own.

    One of the manifest's that is nested is JSON.

    Args:
        export: what is written.
        own: the format's own columns.
        taken: names that a reader of the format gives to something else.
        spelled: see `carried_names`.
    """
    columns = {
        **own,
        "manifest_index": pa.int64(),
        "image_id": pa.string(),
        "uri": pa.string(),
        "key": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
    }
    if "classifier" in export.run.record.models:
        columns |= {"label": pa.string(), "label_score": pa.float32()}
    if export.has_classes:
        columns["objects"] = (
            pa.struct([*OBJECTS, *TAGS_OF_OBJECTS]) if export.run.record.taggers_of_boxes else OBJECTS
        )
    if "tags" in export.run.tables.names:
        columns |= {"tags": pa.list_(pa.string()), "tag_scores": pa.list_(pa.float32())}
    if "embeddings" in export.run.tables.names:
        columns["embedding"] = pa.list_(pa.float32(), export.run.tables.embedding_width)
    names = carried_names(export, [*columns, *taken], spelled)
    carried = {names[column.name]: _flat(column.type) for column in export.carried}
    return pa.schema([*columns.items(), *carried.items()])


def _flat(kind: pa.DataType) -> pa.DataType:
    """The type of a column for one of the manifest's; see `_value`."""
    return pa.string() if pa.types.is_nested(kind) or pa.types.is_null(kind) else kind


def _value(value: object) -> object:
    """A value of the manifest's; what is nested is JSON."""
    return dump_json(value) if isinstance(value, dict | list | tuple) else value


def carried_names(
    export: Export, taken: Collection[str], spelled: Callable[[str], str] = str
) -> dict[str, str]:
    """The names of the manifest's own columns beside others, by their names in `ImageRow.carried`.

    A dot, which in many a reader leads to a part of a value, becomes "_". A column that is called like
    another has `manifest_` before its name.

    Args:
        export: what is written.
        taken: names of the others.
        spelled: returns a name as a reader of the format takes it for one of a plain column.
    """
    used = {name.casefold() for name in taken}
    names: dict[str, str] = {}
    for name in export.carried.names:
        free = spelled(name.replace(".", "_"))
        while free.casefold() in used:
            free = f"manifest_{free}"
        used.add(free.casefold())
        names[name] = free
    return names


def batches(export: Export, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yields the rows of an export in batches, with the columns of a schema of `schema_of`."""
    carried = schema.names[len(schema) - len(export.carried) :]
    names = dict(zip(export.carried.names, carried, strict=True))
    for samples in chunks(export.samples, ROWS):
        yield pa.RecordBatch.from_pylist([_row(sample, names) for sample in samples], schema)


def _row(sample: Sample, names: Mapping[str, str]) -> dict[str, Any]:
    """All that a row may have; a schema takes what it names."""
    image = sample.image
    label, score = image.topk[0] if image.topk else (None, None)
    return {
        "file_name": f"{sample.folder}/{sample.name}" if sample.folder else sample.name,
        "manifest_index": image.manifest_index,
        "image_id": image.image_id,
        "uri": image.uri,
        "key": image.key,
        "width": image.width,
        "height": image.height,
        "label": label,
        "label_score": score,
        "objects": {
            "bbox": [[box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1] for box in image.boxes],
            "categories": [box.class_id for box in image.boxes],
            "scores": [box.score for box in image.boxes],
            "tags": [[tag.label for tag in image.tags_of(box)] for box in image.boxes],
            "tag_scores": [[tag.score for tag in image.tags_of(box)] for box in image.boxes],
        },
        "classes": list(sample.counts),
        "tags": [tag.label for tag in image.own_tags],
        "tag_scores": [tag.score for tag in image.own_tags],
        "embedding": image.embedding,
        **{names[name]: _value(value) for name, value in (image.carried or {}).items()},
    }
