"""OpenSearch documents: `index.json`, the body that makes the index, and `bulk-00000.ndjson` and on.

https://docs.opensearch.org/latest/api-reference/document-apis/bulk/
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.exports.arrays import as_json
from jobs.exports.base import ALL, Export, Format, Sample
from jobs.results.plain import plain

REQUEST_BYTES = 9_500_000
"""Of a file at most: hosted services refuse requests of 10 MB."""

KEYWORD = {"type": "keyword", "ignore_above": 8191}
"""A text that is found as a whole; a longer one than Lucene takes is stored, but not found."""

FURTHER_FIELDS = 1000
"""Fields that an index may have beside those for classes and the manifest's columns."""


def write(export: Export, folder: Path) -> None:
    """Writes the body of the index and the documents; `_id` is the image's key."""
    classes = field_names(export.classes)
    columns = field_names(export.carried.names)
    (folder / "index.json").write_text(as_json(_index(export, classes, columns)) + "\n", encoding="utf-8")
    files = (folder / f"bulk-{number:05d}.ndjson" for number in count())
    size = REQUEST_BYTES
    with ExitStack() as stack:
        for sample in export.samples:
            action = as_json({"index": {"_id": sample.image.key}})
            lines = f"{action}\n{_document(sample, classes, columns, export)}\n".encode()
            if size + len(lines) > REQUEST_BYTES:
                stack.close()
                file, size = stack.enter_context(next(files).open("xb")), 0
            file.write(lines)
            size += len(lines)


def field_names(names: Iterator[str] | tuple[str, ...] | list[str]) -> dict[str, str]:
    """Names as fields: a dot would begin an object, so it becomes "_"; each is another one."""
    fields: dict[str, str] = {}
    for name in names:
        free = name.replace(".", "_").strip() or "_"
        while free in fields.values():
            free += "_"
        fields[name] = free
    return fields


def _index(export: Export, classes: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, Any]:
    """Settings and mappings."""
    text = {**KEYWORD, "fields": {"text": {"type": "text"}}}
    properties: dict[str, Any] = {
        **{name: {"type": "long"} for name in ("manifest_index", "byte_size")},
        **{name: {"type": "integer"} for name in ("width", "height", "exif_orientation", "object_count")},
        **dict.fromkeys(("image_id", "key", "format", "label", "labels", "classes", "tags"), KEYWORD),
        "uri": text,
        "score": {"type": "float"},
        "counts": {"properties": {field: {"type": "integer"} for field in classes.values()}},
        "scores": {"properties": {field: {"type": "float"} for field in classes.values()}},
        "manifest": {
            "properties": {columns[column.name]: _type_of(column.type) for column in export.carried}
        },
    }
    limit = 2 * len(classes) + len(columns) + FURTHER_FIELDS
    settings: dict[str, Any] = {"mapping.total_fields.limit": limit}
    if (width := export.run.tables.embedding_width) and "embeddings" in export.run.tables.names:
        settings["knn"] = True
        method = {"name": "hnsw", "engine": "lucene", "space_type": "l2"}
        properties["embedding"] = {"type": "knn_vector", "dimension": width, "method": method}
    return {"settings": {"index": settings}, "mappings": {"dynamic": False, "properties": properties}}


def _type_of(kind: pa.DataType) -> dict[str, Any]:
    """The type of a field for a column of the manifest."""
    if pa.types.is_boolean(kind):
        return {"type": "boolean"}
    if pa.types.is_integer(kind):
        return {"type": "unsigned_long" if pa.types.is_uint64(kind) else "long"}
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return {"type": "double"}
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return {"type": "date", "format": "strict_date_optional_time_nanos"}
    if pa.types.is_nested(kind):
        return {"type": "object", "enabled": False}
    return KEYWORD


def _document(sample: Sample, classes: Mapping[str, str], columns: Mapping[str, str], export: Export) -> str:
    """What is found of an image; best score of a class in `scores`."""
    image = sample.image
    document: dict[str, Any] = {
        "manifest_index": image.manifest_index,
        "key": image.key,
        "uri": image.uri,
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "byte_size": image.byte_size,
        "exif_orientation": image.exif_orientation,
    }
    if image.image_id is not None:
        document["image_id"] = image.image_id
    if image.topk:
        label, score = image.topk[0]
        document |= {"label": label, "score": score}
        document["labels"] = [name for name, _ in image.topk]
    if export.has_classes:
        counts = sample.counts
        best = {box.class_name: box.score for box in reversed(image.boxes)}
        document["object_count"] = len(image.boxes)
        document["classes"] = list(counts)
        document["counts"] = {classes[name]: number for name, number in counts.items()}
        document["scores"] = {classes[name]: best[name] for name in counts}
    if "tags" in export.run.tables.names:
        document["tags"] = list(dict.fromkeys(tag.label for tag in image.tags))
    if image.carried:
        document["manifest"] = {columns[name]: plain(value) for name, value in image.carried.items()}
    text = as_json(document)
    return f'{text[:-1]}, "embedding": {_vector(image.embedding)}}}' if image.embedding else text


def _vector(numbers: tuple[float, ...]) -> str:
    """Numbers of float32 in JSON; nine digits tell them apart."""
    return f"[{','.join(map('%.9g'.__mod__, numbers))}]"


FORMAT = Format(
    name="opensearch",
    about="OpenSearch documents: bulk requests under 10 MB, and the index's body",
    keeps=ALL,
    write=write,
    by_key=True,
)
