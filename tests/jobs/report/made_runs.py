"""Complete runs of a few rows each, with names, photos and models of a test's own choice."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from schemas.ledger import SUCCESS, RunRecord, table_key
from schemas.models import ResolvedModel, tables_of
from tests.workers.tables.made_results import AT, CLASSIFIER, DETECTOR, EMBEDDER, SCENE, record
from workers.ledger.runs import begin_run
from workers.storage.store import Store
from workers.tables.parquet import parquet_bytes
from workers.tables.results import key_of

MODELS = {"classifier": CLASSIFIER, "detector": DETECTOR, "embedder": EMBEDDER, "taggers.scene": SCENE}
Rows = Sequence[Mapping[str, Any]]


def write_run(
    output: Path | str,
    tables: Mapping[str, Rows],
    models: Mapping[str, ResolvedModel] = MODELS,
    *,
    complete: bool = True,
    **changes: Any,
) -> RunRecord:
    """Writes a run of one shard; a column that a row leaves out is null, or what `_default` has for it."""
    spec = record().spec | {"decode": {"max_pixels": 10**8}, "fetch": {"max_bytes": 10**8}}
    run_record = record(**{"models": dict(models), "spec": spec, **changes})
    store = Store(str(output))
    begin_run(store, run_record)
    run_tables = tables_of(models)
    for name in run_tables.names:
        schema = run_tables.schema(name)
        rows = [{f.name: row.get(f.name, _default(f, row)) for f in schema} for row in tables.get(name, ())]
        store.write(table_key(name, 0), parquet_bytes(pa.Table.from_pylist(rows, schema=schema), name))
    if complete:
        counts = {name: len(tables.get(name, ())) for name in run_tables.names}
        store.write(SUCCESS, json.dumps(counts).encode())
    return run_record


def _default(field: pa.Field, row: Mapping[str, Any]) -> Any:
    if field.name == "key":
        return key_of(row["uri"])
    if field.nullable:
        return None
    value = next((value for kind, value in _DEFAULTS.items() if kind in str(field.type)), 1)
    return bool(value) if pa.types.is_boolean(field.type) else value


_DEFAULTS = {"timestamp": AT, "binary": bytes(32), "string": "any", "float": 0.5}
"""What columns have that may not be null, by a part of the name of their type; others have 1."""


def labelled(
    index: int,
    topk: Sequence[tuple[str, float]] = (),
    counts: Mapping[str, int] | None = None,
    photo: Path | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A row of labels; with a photo it has what is known of that file."""
    row: dict[str, Any] = {"manifest_index": index, "uri": f"s3://bucket/{index}.jpg"}
    if photo:
        data = photo.read_bytes()
        width, height = Image.open(io.BytesIO(data)).size
        row |= {"uri": str(photo), "sha256": hashlib.sha256(data).digest(), "byte_size": len(data)}
        row |= {"width": width, "height": height}
    if topk:
        scored = [{"label_id": n, "label": label, "score": score} for n, (label, score) in enumerate(topk)]
        row |= {"label_id": 0, "label": topk[0][0], "score": topk[0][1], "topk": scored}
    if counts is not None:
        row |= {"object_count": sum(counts.values()), "class_counts": list(counts.items())}
    return row | more


def box(index: int, object_index: int, name: str, corners: Sequence[float], **more: Any) -> dict[str, Any]:
    """A row of boxes of an image of 100 by 100 pixels."""
    row = {"manifest_index": index, "uri": f"s3://bucket/{index}.jpg", "object_index": object_index}
    sides = dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))
    return row | {"class_name": name, "width": 100, "height": 100} | sides | more


def failure(index: int, stage: str, code: str, message: str, **more: Any) -> dict[str, Any]:
    """A row of errors."""
    uri = f"s3://bucket/{index}.jpg"
    return {"manifest_index": index, "uri": uri, "stage": stage, "code": code, "message": message} | more


def at(second: float) -> datetime:
    """A moment so many seconds after a fixed one."""
    return datetime.fromtimestamp(1_750_000_000 + second, UTC)


def write_photo(path: Path, width: int, height: int, mode: str = "JPEG") -> Path:
    """A photo whose colours say where a pixel is: red grows to the right, green downwards."""
    red = Image.linear_gradient("L").rotate(90).resize((width, height))
    green = Image.linear_gradient("L").resize((width, height))
    Image.merge("RGB", (red, green, Image.new("L", (width, height), 128))).save(path, mode, quality=95)
    return path
