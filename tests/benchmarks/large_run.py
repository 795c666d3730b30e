"""A complete run of any size, made up: tables, records and mark, without an image or a model.

    python -m tests.benchmarks.large_run FOLDER --images 1000000 [--embeddings 64]

A thousand labels and eighty classes of which few are frequent, two boxes an image, one image in five without
any, one in a hundred failed; carried columns say when a photo was taken, by whom, and what is in it.
"""

import argparse
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.ledger import SUCCESS, RunRecord, Shard
from schemas.plan import Plan
from schemas.tables import RunTables
from tests.workers.tables.made_results import record, resolved
from workers.ledger.directory import RunDirectory
from workers.ledger.runs import begin_run
from workers.storage.store import Store
from workers.tables.parquet import write_file
from workers.tables.results import key_of

SHARD_ROWS = 100_000
LABELS = tuple(f"label {n}" for n in range(1000))
CLASSES = ("person", "car", "dog", "cat", "chair", *(f"class {n}" for n in range(5, 80)))
CARRIED = pa.schema([("taken", pa.date32()), ("photographer", pa.string()), ("truth", pa.string())])
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIZES = np.array([(640, 480), (480, 640), (1024, 768), (1920, 1080), (4000, 3000)], np.int32)


def write_large_run(
    output: str, images: int, width: int | None = None, seed: int = 1, shard_rows: int = SHARD_ROWS
) -> RunDirectory:
    """Writes a complete run.

    Args:
        output: the run directory.
        images: rows of its manifest.
        width: of its embeddings; None: it has none.
        seed: of all that is drawn.
        shard_rows: of its manifest, in thousands.
    """
    models = {
        "classifier": resolved("guess", "classifier", LABELS, "labels"),
        "detector": resolved("find", "detector", CLASSES, "boxes"),
    }
    if width:
        models["embedder"] = resolved("feel", "embedder", (), "embeddings", width=width)
    run_record: RunRecord = record(
        plan=Plan(rows=images, unit_rows=1000, shard_units=shard_rows // 1000),
        models=models,
        manifest_columns={field.name: str(field.type) for field in CARRIED},
    )
    store = Store(output)
    begin_run(store, run_record)
    run = RunDirectory.first(store, run_record, CARRIED)
    rows = dict.fromkeys(run.tables.names, 0)
    for shard in range(run_record.plan.shards):
        span = range(shard * shard_rows, min((shard + 1) * shard_rows, images))
        files = {}
        for name, table in _tables(run.tables, span, np.random.default_rng(seed + shard)).items():
            files[name] = write_file(store, f"{name}/shard-{shard:05d}", table, name)
            rows[name] += table.num_rows
        failed = {"NOT_FOUND": files["errors"].rows}
        shard_record = Shard(shard=shard, retry=0, files=files, failed=failed, errors=failed)
        run.ledger.write(shard_record.key, shard_record.to_json())
    store.write(SUCCESS, _json(rows))
    return run


def _tables(tables: RunTables, span: range, draw: np.random.Generator) -> dict[str, pa.Table]:
    """The tables of a shard."""
    index = np.arange(span.start, span.stop)
    is_failed = index % 100 == 99
    uris = np.array([f"s3://photos/2026/{n // 1000:07d}/{n:010d}.jpg" for n in index])
    keys = pa.array([key_of(uri) for uri in uris])
    shown = {"manifest_index": index, "image_id": pa.nulls(len(index), pa.string()), "uri": uris, "key": keys}
    shown |= {"run_id": np.full(len(index), "run")}
    common = pa.table({name: pa.array(values) for name, values in shown.items()})
    carried = {
        "taken": pa.array((index % 730 + 19_000).astype(np.int32), pa.date32()),
        "photographer": pa.array([("Ann", "Bo", "Cleo")[n % 3] for n in index]),
        "truth": pa.nulls(len(index), pa.string()),
    }
    good = np.flatnonzero(~is_failed)
    boxes, counts = _boxes(tables, common.take(good), draw)
    made = {
        "labels": _labels(tables, common.take(good), carried, good, counts, draw),
        "boxes": boxes,
        "errors": _errors(tables, common.take(np.flatnonzero(is_failed)), carried, np.flatnonzero(is_failed)),
    }
    if tables.embedding_width:
        vectors = _vectors(len(good), tables.embedding_width, draw)
        flat = pa.array((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).ravel())
        values = pa.FixedSizeListArray.from_arrays(flat, tables.embedding_width)
        made["embeddings"] = _table(
            tables, "embeddings", common.take(good), embedding=values, embedder=np.full(len(good), "feel")
        )
    return made


def _vectors(rows: int, width: int, draw: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors around a thousand centres, as those of images that look alike are."""
    centres = np.random.default_rng(0).standard_normal((1000, width), np.float32)
    noise = draw.standard_normal((rows, width), np.float32)
    return centres[draw.integers(0, len(centres), rows)] + np.float32(0.5) * noise


def _boxes(
    tables: RunTables, common: pa.Table, draw: np.random.Generator
) -> tuple[pa.Table, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """The boxes of a shard, and the image and the class of each."""
    numbers = draw.poisson(2.5, common.num_rows) * (draw.random(common.num_rows) > 0.12)
    owner = np.repeat(np.arange(common.num_rows), numbers)
    first = np.cumsum(numbers) - numbers
    size = SIZES[owner % len(SIZES)]
    classes = np.minimum(draw.zipf(1.6, len(owner)) - 1, len(CLASSES) - 1).astype(np.int32)
    corner = draw.random((len(owner), 2)) * 0.7
    extent = 0.02 + draw.beta(1, 3, (len(owner), 2)) * 0.28
    x1, y1, x2, y2 = (np.concatenate([corner, corner + extent], 1) * np.tile(size, 2)).T.astype(np.float32)
    order = np.arange(len(owner)) - first[owner]
    table = _table(
        tables,
        "boxes",
        common.take(owner),
        object_index=order.astype(np.int32),
        class_id=classes,
        class_name=pa.DictionaryArray.from_arrays(classes, list(CLASSES)),
        score=(0.4 + 0.6 * 0.8 ** (order + draw.random(len(owner)))).astype(np.float32),
        x1=x1,
        y1=y1,
        x2=x2,
        y2=y2,
        width=size[:, 0],
        height=size[:, 1],
        detector=np.full(len(owner), "find"),
    )
    return table, (owner, classes)


def _labels(
    tables: RunTables,
    common: pa.Table,
    carried: dict[str, pa.Array],
    good: np.ndarray[Any, Any],
    boxes: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    draw: np.random.Generator,
) -> pa.Table:
    rows = common.num_rows
    owner, classes = boxes
    labels = np.minimum(draw.zipf(1.3, (rows, 5)) - 1, len(LABELS) - 1).astype(np.int32)
    scores = (np.sort(draw.dirichlet(np.ones(6) * 0.5, rows), axis=1)[:, :0:-1]).astype(np.float32)
    offsets = np.arange(0, 5 * rows + 1, 5, dtype=np.int32)
    entries = pa.StructArray.from_arrays(
        [pa.array(labels.ravel()), pa.array(np.array(LABELS)[labels.ravel()]), pa.array(scores.ravel())],
        fields=list(tables.schema("labels").field("topk").type.value_type),
    )
    pairs, numbers = np.unique(owner * len(CLASSES) + classes, return_counts=True)
    starts = np.searchsorted(pairs, np.arange(rows + 1) * len(CLASSES)).astype(np.int32)
    names = pa.array(np.array(CLASSES)[pairs % len(CLASSES)])
    size = SIZES[np.arange(rows) % len(SIZES)]
    names_of_best = np.array(LABELS)[labels[:, 0]]
    truth = np.where(draw.random(rows) < scores[:, 0], names_of_best, "label 7")  # scores are as often right
    times = [BEGAN + timedelta(milliseconds=20 * int(n)) for n in common["manifest_index"].to_numpy()]
    return _table(
        tables,
        "labels",
        common,
        width=size[:, 0],
        height=size[:, 1],
        format=np.full(rows, "JPEG"),
        byte_size=draw.integers(20_000, 4_000_000, rows),
        sha256=pa.array([hashlib.sha256(str(n // 50 if n % 50 == 0 else n).encode()).digest() for n in good]),
        exif_orientation=np.where(np.arange(rows) % 7 == 0, 6, 1).astype(np.int8),
        source_mode=np.full(rows, "RGB"),
        frame_count=np.ones(rows, np.int32),
        label_id=labels[:, 0],
        label=pa.DictionaryArray.from_arrays(pa.array(labels[:, 0]), list(LABELS)),
        score=scores[:, 0],
        score_type=np.full(rows, "softmax"),
        topk=pa.ListArray.from_arrays(offsets, entries),
        object_count=np.bincount(owner, minlength=rows).astype(np.int32),
        class_counts=pa.MapArray.from_arrays(starts, names, pa.array(numbers.astype(np.int32))),
        classifier=np.full(rows, "guess"),
        detector=np.full(rows, "find"),
        processed_at=pa.array(times, pa.timestamp("us", "UTC")),
        **{name: values.take(pa.array(good)) for name, values in carried.items()} | {"truth": truth},
    )


def _errors(
    tables: RunTables, common: pa.Table, carried: dict[str, pa.Array], failed: np.ndarray[Any, Any]
) -> pa.Table:
    rows = common.num_rows
    return _table(
        tables,
        "errors",
        common,
        stage=np.full(rows, "fetch"),
        code=np.full(rows, "NOT_FOUND"),
        message=np.full(rows, "no such object"),
        attempts=np.ones(rows, np.int32),
        retryable=np.zeros(rows, bool),
        failed_at=pa.array([BEGAN] * rows, pa.timestamp("us", "UTC")),
        uri_is_cut=np.zeros(rows, bool),
        **{name: values.take(pa.array(failed)) for name, values in carried.items()},
    )


def _table(tables: RunTables, name: str, common: pa.Table, **columns: Any) -> pa.Table:
    """A table of some rows with the columns of its schema; one that is not given is null."""
    schema = tables.schema(name)
    values = {column: common[column] for column in common.column_names} | columns
    arrays = [
        values[field.name] if field.name in values else pa.nulls(common.num_rows, field.type)
        for field in schema
    ]
    arrays = [value if isinstance(value, pa.Array | pa.ChunkedArray) else pa.array(value) for value in arrays]
    return pa.table(dict(zip(schema.names, arrays, strict=True))).cast(schema)


def _json(rows: dict[str, int]) -> bytes:
    inner = ", ".join(f'"{name}": {number}' for name, number in rows.items())
    return f"{{{inner}}}".encode()


def main() -> None:
    """Writes a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--embeddings", type=int, help="their width; without it there are none")
    options = parser.parse_args()
    write_large_run(str(options.folder), options.images, options.embeddings)


if __name__ == "__main__":
    main()
