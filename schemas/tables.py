"""The tables a run writes: column names and types, declared here and nowhere else.

Boxes are half-open [x1, y1, x2, y2] in float32 pixels of the full-resolution, EXIF-oriented image.
Rows are sorted by `manifest_index` (boxes: then by `object_index`).
"""

import pyarrow as pa

SCHEMA_VERSION = "2.0"
"""Version in the metadata of each file; within a major version columns are only added."""

LABEL = pa.dictionary(pa.int32(), pa.string())

TOPK = pa.list_(
    pa.struct(
        [
            pa.field("label_id", pa.int32(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("score", pa.float32(), nullable=False),
        ]
    )
)

KEYS = (
    pa.field("manifest_index", pa.int64(), nullable=False),  # position in the manifest: a row's identity
    pa.field("image_id", pa.string()),  # the manifest's own, if it has one
    pa.field("uri", pa.string(), nullable=False),  # as in the manifest, without credentials and query
)
"""The first columns of every table."""

SIZE = (
    pa.field("width", pa.int32(), nullable=False),  # pixels, after orientation
    pa.field("height", pa.int32(), nullable=False),
)

FACTS = (
    *SIZE,
    pa.field("format", pa.string(), nullable=False),  # sniffed: JPEG, PNG, WEBP, ...
    pa.field("byte_size", pa.int64(), nullable=False),
    pa.field("sha256", pa.binary(), nullable=False),  # of the file's bytes, 32 of them
    pa.field("exif_orientation", pa.int8(), nullable=False),  # 1 to 8, as applied
    pa.field("source_mode", pa.string(), nullable=False),  # the file's colour mode: RGB, L, CMYK, ...
    pa.field("frame_count", pa.int32(), nullable=False),  # only the first frame is labelled
)
"""Columns of the labels table about the file itself."""

LABELS = pa.schema(
    [
        *KEYS,
        *FACTS,
        pa.field("label_id", pa.int32()),  # null if no classifier ran; so are the next four
        pa.field("label", LABEL),
        pa.field("score", pa.float32()),
        pa.field("score_type", pa.string()),  # softmax or sigmoid
        pa.field("topk", TOPK),
        pa.field("object_count", pa.int32()),  # null if no detector ran; 0: it found nothing
        pa.field("class_counts", pa.map_(pa.string(), pa.int32())),  # class name to number of boxes
        pa.field("classifier", pa.string()),  # fingerprints; run.json has the models
        pa.field("detector", pa.string()),
        pa.field("processed_at", pa.timestamp("us", "UTC"), nullable=False),
    ]
)

BOXES = pa.schema(
    [
        *KEYS,
        pa.field("object_index", pa.int32(), nullable=False),  # 0.. within the image, by descending score
        pa.field("class_id", pa.int32(), nullable=False),  # the model's own index
        pa.field("class_name", LABEL, nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("x1", pa.float32(), nullable=False),
        pa.field("y1", pa.float32(), nullable=False),
        pa.field("x2", pa.float32(), nullable=False),
        pa.field("y2", pa.float32(), nullable=False),
        *SIZE,  # repeated here, so that normalising boxes needs no join
        pa.field("detector", pa.string(), nullable=False),
    ]
)

ABSOLUTE_URI = pa.field("absolute_uri", pa.string())  # null where `uri` lacks a secret, or there is none

ERRORS = pa.schema(
    [
        *KEYS,
        pa.field("stage", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("retryable", pa.bool_(), nullable=False),
        pa.field("failed_at", pa.timestamp("us", "UTC"), nullable=False),
        ABSOLUTE_URI,
    ]
)

TABLES = {"labels": LABELS, "boxes": BOXES, "errors": ERRORS}
"""The tables by the name of their folder in the run directory."""

MODERN_CALENDAR = {"org.apache.spark.version": "3.5.0"}
"""What Spark wants to see in a file that has a date before 1582 or a time before 1900.

Of any other file it holds that the calendar is not known (SPARK-31404), and refuses to read the table.
"""

HARDLY_REPEATED = {
    "labels": ("sha256", "score", "topk.list.element.score"),
    "boxes": ("score", "x1", "y1", "x2", "y2"),
    "errors": (),
}
"""Columns stored without a dictionary, which would only add to them, by their paths in Parquet."""

WITH_CARRIED = ("labels", "errors")
"""Tables that end with the manifest's own columns."""

WORKING = ("boxes", "error", "unit", ABSOLUTE_URI.name)
"""Columns that rows have in the workers, in addition to those of the labels table."""


def carried_names(carried: pa.Schema, table: str = "labels") -> dict[str, str]:
    """The names of the manifest's own columns in a table, by their names in the manifest.

    A name stays the same, unless labels or the table uses it, or an earlier column does, in whatever case:
    then `manifest_` is put in front. Spark, Hive and DuckDB take names that differ only in their case for the
    same.
    """
    taken = {name.casefold() for name in (*LABELS.names, *WORKING, *TABLES[table].names)}
    names: dict[str, str] = {}
    for name in carried.names:
        if name.casefold() not in taken:
            names[name] = name
            taken.add(name.casefold())
    for name in carried.names:
        if name not in names:
            free = f"manifest_{name}"
            while free.casefold() in taken:
                free = f"manifest_{free}"
            names[name] = free
            taken.add(free.casefold())
    return {name: names[name] for name in carried.names}


def table_schema(name: str, carried: pa.Schema) -> pa.Schema:
    """The schema of a table of one run.

    Args:
        name: "labels", "boxes" or "errors".
        carried: the manifest's own columns, under their names in the manifest; labels and errors end with
            them.
    """
    fields = list(TABLES[name])
    if name in WITH_CARRIED:
        names = carried_names(carried, name)
        fields += [pa.field(names[f.name], f.type) for f in carried]
    own = {"raylabel.table": name, "raylabel.schema_version": SCHEMA_VERSION}
    return pa.schema(fields, metadata={**own, **MODERN_CALENDAR})


BOX = pa.struct(
    [
        pa.field(name, pa.string() if name == "class_name" else BOXES.field(name).type)
        for name in ("class_id", "class_name", "score", "x1", "y1", "x2", "y2")
    ]
)
ERROR = pa.struct([f.with_nullable(True) for f in ERRORS if f not in (*KEYS, ABSOLUTE_URI)])


def results_schema(carried: pa.Schema) -> pa.Schema:
    """The schema of results, from the models to the writer: one row for each manifest row, without pixels.

    It has the columns of the labels table, the boxes, the error, and the row's unit. A row with an error goes
    to the errors table, any other to labels and boxes. No column has a dictionary (each block would have its
    own), and all but the keys may be null (a failed image has no size).
    """
    plain = [f.with_type(pa.string()) if f.type == LABEL else f for f in table_schema("labels", carried)]
    return pa.schema(
        [
            *(f if f in KEYS else f.with_nullable(True) for f in plain),
            pa.field("boxes", pa.list_(BOX)),
            pa.field("error", ERROR),
            ABSOLUTE_URI,
            pa.field("unit", pa.int64(), nullable=False),
        ]
    )


DECODED = pa.schema(
    [
        pa.field("data", pa.large_binary()),  # pixels, as in `schemas.images.DecodedImage`
        pa.field("input_shape", pa.list_(pa.int32())),  # or the classifier's input: float32 (3, h, w)
        *(f.with_nullable(True) for f in FACTS),
        pa.field("error", ERROR),
    ]
)
"""Schema of decoded images, from the decoder to the models: one row for each manifest row of a unit.

A row has facts and data, or an error, or neither: the labelling process then fetches and decodes that image.
"""
