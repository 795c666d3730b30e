"""A run with all that makes exports go wrong, and its photos: names, turns, empty and failed images."""

import hashlib
import io
import json
import tarfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from schemas.errors import ErrorCode, RowError, Stage
from schemas.images import Classification, Detections
from schemas.ledger import SUCCESS
from schemas.models import ResolvedModel, tables_of
from schemas.plan import Pass, Plan
from tests.workers.tables.made_results import AT, CLASSIFIER, EMBEDDER, SCENE, record, resolved
from workers.ledger.commit import commit_results
from workers.ledger.directory import RunDirectory
from workers.ledger.publish import publish_shard
from workers.ledger.runs import begin_run
from workers.storage.store import Store
from workers.tables.results import (
    LabelledImage,
    box_values,
    embedding_values,
    embedding_values_of_objects,
    joined,
    label_values,
    results_table,
    tag_values,
    tag_values_of_objects,
)

CLASSES = ("person", 'a "big" <cat> & dog', "naïve, café", "v1.5 cup", "never seen")
"""Of the detector, without what no object has."""

CATEGORIES = ("__background__", *CLASSES[:3], "N/A", *CLASSES[3:])
DETECTOR = resolved("find", "detector", CATEGORIES, "boxes")
MODELS: dict[str, ResolvedModel] = {
    "classifier": CLASSIFIER,
    "detector": DETECTOR,
    "embedder": EMBEDDER,
    "taggers.scene": SCENE,
}
_ON_BOXES = {"settings": {"on": "boxes"}}
KIND = resolved("name it", "tagger", ("heron", "robin", "crane"), "tags").model_copy(update=_ON_BOXES)
OBJECT_EMBEDDER = resolved("feel it", "embedder", (), "object_embeddings", width=2).model_copy(
    update=_ON_BOXES
)
TWO_STAGES = {**MODELS, "taggers.kind": KIND, "embedder": OBJECT_EMBEDDER}
"""Models of which some get boxes: object n is a heron, robin or crane, and the next of these a little."""

CARRIED = pa.schema(
    [("split", pa.string()), ("label", pa.int64()), ("objects", pa.string()), ("at", pa.date32())]
)
PLAN = Plan(rows=9, unit_rows=9, shard_units=1)

PHOTOS = (
    'one & <two> "three".jpg',
    "été, plage.png",
    "a/same.jpg",
    "b/same.jpg",
    "turned.jpg",
    "failed.jpg",
    "turned back.png",
    "in side.jpg",  # of a tar file
    "a/SAME.jpg",
)
"""Their paths in manifest order."""

LABELLED = (0, 1, 2, 3, 4, 6, 7, 8)
FAILURE = "it ends early"
"""Why the image of the other row failed."""

TURNS = {4: 6, 6: 8}
"""EXIF orientation by manifest row, where there is one."""

SIZES = {0: (200, 100), 1: (120, 90), 4: (80, 160), 6: (90, 150)}
"""Width and height upright; of the others 100 x 50."""

BOXES: dict[int, list[tuple[int, float, tuple[float, float, float, float]]]] = {
    0: [(2, 0.9375, (20.5, 10.25, 120.5, 90.75)), (5, 0.625, (0, 0, 200, 100)), (3, 0.5, (150, 50, 160, 75))],
    2: [(1, 0.75, (1, 2, 31, 42))],
    3: [(1, 0.7, (2, 3, 32, 43))],
    4: [(2, 0.8, (10, 20, 50, 120))],
    6: [(1, 0.8125, (30, 40, 60, 140))],
    7: [(3, 0.45, (5, 5, 95, 45))],
}
"""Index into `CATEGORIES`, score and corners, by manifest row."""


def size_of(index: int) -> tuple[int, int]:
    return SIZES.get(index, (100, 50))


def box_of(index: int, number: int = 0) -> tuple[str, float, tuple[float, float, float, float]]:
    """Class, score (of float32) and corners of a box."""
    category, score, corners = BOXES[index][number]
    return CATEGORIES[category], float(np.float32(score)), corners


def photo(index: int) -> bytes:
    """A grey photo with a red rectangle where its first box is, turned as its EXIF says."""
    width, height = size_of(index)
    pixels = np.full((height, width, 3), 40 + index, np.uint8)
    for _, _, (x1, y1, x2, y2) in BOXES.get(index, [])[:1]:
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = (255, 0, 0)
    image, exif = Image.fromarray(pixels), Image.Exif()
    if index in TURNS:
        exif[0x0112] = TURNS[index]
        back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[TURNS[index]]
        image = image.transpose(back)
    file = io.BytesIO()
    if PHOTOS[index].endswith(".png"):
        image.save(file, "PNG", exif=exif)
    else:
        image.save(file, "JPEG", quality=95, subsampling=0, exif=exif)
    return file.getvalue()


def uri_of(folder: Path | str, index: int) -> str:
    """The URI of a photo below a folder, or a URL."""
    path = f"{folder}/photos/{PHOTOS[index]}"
    return f"tar://{PHOTOS[index]}::{folder}/photos/shard.tar" if index == 7 else path


def write_photos(folder: Path) -> None:
    for index in range(PLAN.rows):
        path = folder / "photos" / PHOTOS[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        if index != 7:
            path.write_bytes(photo(index))
    with tarfile.open(folder / "photos" / "shard.tar", "w") as tar:
        info = tarfile.TarInfo(PHOTOS[7])
        info.size = len(photo(7))
        tar.addfile(info, io.BytesIO(photo(7)))


def outcome(index: int, models: dict[str, ResolvedModel]) -> LabelledImage | RowError:
    if index not in LABELLED:
        return RowError(Stage.DECODE, ErrorCode.TRUNCATED, FAILURE, 1, AT)
    width, height = size_of(index)
    data = photo(index)
    facts = {
        "width": width,
        "height": height,
        "format": "PNG" if PHOTOS[index].endswith(".png") else "JPEG",
        "byte_size": len(data),
        "sha256": hashlib.sha256(data).digest(),
        "exif_orientation": TURNS.get(index, 1),
        "source_mode": "RGB",
        "frame_count": 1,
    }
    values: dict[str, Any] = {}
    if "classifier" in models:
        best = Classification(np.array([2, 0], np.int32), np.array([0.75, 0.125], np.float32))
        values |= label_values(best, CLASSIFIER)
    if "detector" in models:
        found = BOXES.get(index, [])
        objects = Detections(
            np.array([corners for _, _, corners in found], np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in found], np.float32),
            np.array([category for category, _, _ in found], np.int32),
        )
        values |= box_values(objects, DETECTOR)
    if models.get("embedder") == OBJECT_EMBEDDER:
        vectors = {n: np.array([index, n], np.float32) for n in range(len(BOXES.get(index, [])))}
        values |= embedding_values_of_objects(vectors, OBJECT_EMBEDDER)
    elif "embedder" in models:
        values |= embedding_values(np.array([index, 0.5, -1, 0.1], np.float32), EMBEDDER)
    if "taggers.scene" in models:
        tags = Classification(
            np.arange(index % 3, dtype=np.int32), np.array([0.9, 0.5][: index % 3], np.float32)
        )
        values |= tag_values(tags, SCENE, "scene")
    if "taggers.kind" in models:
        kinds = {
            n: Classification(
                np.array([n % 3, (n + 1) % 3], np.int32), np.array([0.75 + n / 16, 0.25], np.float32)
            )
            for n in range(len(BOXES.get(index, [])))
        }
        values = joined([values, tag_values_of_objects(kinds, KIND, "kind")])
    return LabelledImage(facts, values, AT)


def write_run(
    folder: Path,
    models: dict[str, ResolvedModel] | None = None,
    *,
    complete: bool = True,
    further: dict[str, pa.Array] | None = None,
    url: str | None = None,
    same: dict[int, int] | None = None,
) -> str:
    """Writes photos and a run over them; returns the run directory.

    Args:
        folder: for `photos` and `run`.
        models: of the run; None: all of `MODELS`.
        complete: whether it is marked so.
        further: columns of the manifest beside `CARRIED`.
        url: where the photos are by their URIs; None: in the folder.
        same: rows whose URI is that of another one, and that one.
    """
    models = MODELS if models is None else models
    write_photos(folder)
    rows = range(PLAN.rows)
    further = further or {}
    carried = pa.schema([*CARRIED, *((name, values.type) for name, values in further.items())])
    tables = tables_of(models, carried)
    columns = {column.name: str(column.type) for column in carried}
    spec = record().spec
    spec["fetch"]["max_bytes"] = spec["decode"]["max_pixels"] = 1_000_000
    run_record = record(models=models, plan=PLAN, manifest_columns=columns, spec=spec)
    store = Store(str(folder / "run"))
    begin_run(store, run_record)
    run = RunDirectory(store, run_record, Pass(PLAN), carried)
    manifest = pa.table(
        {
            "manifest_index": pa.array(rows, pa.int64()),
            "image_id": pa.array([None if n == 1 else f"id <{n}>, & more" for n in rows]),
            "uri": [uri_of(url or folder, (same or {}).get(n, n)) for n in rows],
            "split": pa.array([None if n == 0 else f"train, '{n}'" for n in rows]),
            "manifest_label": pa.array(rows, pa.int64()),
            "objects": [f"mine {n}" for n in rows],
            "at": pa.array([date(2026, 1, 1 + n) for n in rows]),
            **further,
            "manifest_uri": pa.nulls(len(rows), pa.string()),
            "uri_is_cut": pa.array([False] * len(rows)),
        }
    )
    commit_results(run, 1, results_table(0, manifest, [outcome(n, models) for n in rows], tables))
    publish_shard(run, 0)
    if complete:
        counts = {name: store.read_tables([f"{name}/shard-00000.parquet"]) for name in tables.names}
        store.write(
            SUCCESS, json.dumps({name: sum(map(len, found)) for name, found in counts.items()}).encode()
        )
    return str(folder / "run")


def red_box(file: Path) -> tuple[int, int, int, int]:
    """The red rectangle of a photo as a reader sees it that ignores EXIF: half-open corners."""
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    rows, columns = np.nonzero((pixels[..., 0] > 150) & (pixels[..., 1] < 100))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
