"""The tables a run writes: column names and types, declared here and nowhere else.

Boxes are half-open [x1, y1, x2, y2] in float32 pixels of the full-resolution, EXIF-oriented image.
Rows are sorted by `manifest_index` (boxes and embeddings of objects: then by `object_index`).
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

FIRST_VERSION, SCHEMA_VERSION = "2.0", "2.1"
"""The earliest version in the metadata of files that are still read, and that of files which are written
now; within a major version columns are only added."""

ADDED = {"2.1": {"tags": ("object_index",)}}
"""The columns that files of earlier versions lack, by the version that added them, and by table."""

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
    pa.field("uri", pa.string(), nullable=False),  # absolute, without credentials and query
    pa.field("key", pa.string(), nullable=False),  # of the image in any run, made of `uri`
    pa.field("run_id", pa.string(), nullable=False),  # of run.json
)
"""The first columns of every table."""

IN_MANIFEST = KEYS[:3]
"""Those of them that a row brings; the others are made when its results become tables."""

MANIFEST_URI = pa.field("manifest_uri", pa.string())  # as in the manifest, where that differs from `uri`

URI_IS_CUT = pa.field("uri_is_cut", pa.bool_(), nullable=False)  # it lacks a password, a query or the image

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

FACTS_OF = {
    "exif": (
        pa.field("taken_at", pa.timestamp("us")),  # by the camera's clock, which knows no zone
        pa.field("taken_at_offset", pa.int32()),  # minutes that it was ahead of UTC
        pa.field("latitude", pa.float64()),  # degrees, WGS 84, north is positive; null if longitude is
        pa.field("longitude", pa.float64()),  # east is positive
        pa.field("altitude", pa.float64()),  # metres above the sea
        pa.field("camera_make", pa.string()),
        pa.field("camera_model", pa.string()),
        pa.field("lens", pa.string()),
    ),
    "phash": (pa.field("phash", pa.int64(), nullable=False),),  # 64 bits, the first one is the sign
}
"""Columns that labels have where `facts` of the job spec asks for them, by what is written there."""

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
        MANIFEST_URI,
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

TAGS = pa.schema(
    [
        *KEYS,
        pa.field("tagger", pa.string(), nullable=False),  # its name in the job spec; "classifier" for its own
        pa.field("label_id", pa.int32(), nullable=False),  # the model's own index
        pa.field("label", LABEL, nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("object_index", pa.int32()),  # of boxes: whose tag it is; null: the whole image's
    ]
)

EMBEDDINGS = pa.schema(
    [
        *KEYS,
        pa.field("embedding", pa.list_(pa.float32()), nullable=False),  # in a run: of fixed size
        pa.field("embedder", pa.string(), nullable=False),  # fingerprint
    ]
)

OBJECT_EMBEDDINGS = pa.schema(
    [
        *KEYS,
        pa.field("object_index", pa.int32(), nullable=False),  # of boxes
        *list(EMBEDDINGS)[len(KEYS) :],
    ]
)
"""A table of its own, so that who reads embeddings has one of each image."""

ERRORS = pa.schema(
    [
        *KEYS,
        pa.field("stage", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("retryable", pa.bool_(), nullable=False),
        pa.field("failed_at", pa.timestamp("us", "UTC"), nullable=False),
        MANIFEST_URI,
        URI_IS_CUT,
    ]
)


@dataclass(frozen=True)
class Table:
    """A table that a run may have, of which each shard has a file.

    Attributes:
        schema: its columns, without those that the manifest brings.
        has_carried: whether it ends with the manifest's own columns.
        of_labelled: whether it has any number of rows for a labelled image; otherwise one, or none.
        from_image: of those rows the columns that the image has.
        number: of those rows the column with their number, 0.. within the image.
        hardly_repeated: columns stored without a dictionary, which would only add to them; paths in Parquet.
        row_group_rows: rows that a reader has to read at once, at most.
    """

    schema: pa.Schema
    has_carried: bool = False
    of_labelled: bool = False
    from_image: tuple[str, ...] = ()
    number: str | None = None
    hardly_repeated: tuple[str, ...] = ()
    row_group_rows: int = 2**20

    @property
    def order(self) -> list[str]:
        """The columns that its rows ascend by; rows that are equal in them keep their order."""
        return ["manifest_index", *([self.number] if self.number else [])]

    @property
    def own(self) -> list[str]:
        """Of rows of labelled images: the columns that each brings."""
        others = {*(field.name for field in KEYS), *self.from_image, self.number}
        return [name for name in self.schema.names if name not in others]


TABLES = {
    "labels": Table(
        LABELS,
        has_carried=True,
        hardly_repeated=("sha256", "key", "score", "topk.list.element.score"),
    ),
    "boxes": Table(
        BOXES,
        of_labelled=True,
        from_image=("width", "height", "detector"),
        number="object_index",
        hardly_repeated=("score", "x1", "y1", "x2", "y2"),
    ),
    "tags": Table(TAGS, of_labelled=True, hardly_repeated=("score",)),
    "embeddings": Table(
        EMBEDDINGS,
        of_labelled=True,
        hardly_repeated=("key", "embedding.list.element"),
        row_group_rows=4096,
    ),
    "object_embeddings": Table(
        OBJECT_EMBEDDINGS,
        of_labelled=True,
        hardly_repeated=("key", "embedding.list.element"),
        row_group_rows=4096,
    ),
    "errors": Table(ERRORS, has_carried=True, hardly_repeated=("key",)),
}
"""The tables by the name of their folder in the run directory, in the order in which they are told."""

ALWAYS = ("labels", "boxes", "errors")
"""The tables that every run has; the others are those of its models."""

MODERN_CALENDAR = {"org.apache.spark.version": "3.5.0"}
"""What Spark wants to see in a file that has a date before 1582 or a time before 1900.

Of any other file it holds that the calendar is not known (SPARK-31404), and refuses to read the table.
"""


def rows_of(table: str) -> str:
    """The column of results with the rows that an image has in a table."""
    return f"rows of {table}"


def fact_in_results(name: str) -> str:
    """The column of results with a fact: the manifest may have a column of its name, and rows have both."""
    return f"fact {name}"


def fact_fields(facts: Collection[str]) -> list[pa.Field]:
    """The columns for what `facts` of a job spec asks for, in their order in the labels table."""
    return [field for name, fields in FACTS_OF.items() if name in facts for field in fields]


WORKING = (
    *(rows_of(name) for name in TABLES),
    *(fact_in_results(field.name) for field in fact_fields(FACTS_OF)),
    *("error", "unit", URI_IS_CUT.name),
)
"""Columns that rows have in the workers, in addition to those of the labels table."""


def carried_names(carried: pa.Schema, table: str = "labels", facts: Collection[str] = ()) -> dict[str, str]:
    """The names of the manifest's own columns in a table, by their names in the manifest.

    A name stays the same, unless labels or the table uses it, or an earlier column does, in whatever case:
    then `manifest_` is put in front. Spark, Hive and DuckDB take names that differ only in their case for the
    same.

    Args:
        carried: the columns.
        table: whose.
        facts: of the job, whose columns have names, too; in rows of the workers none.
    """
    used = (*LABELS.names, *WORKING, *TABLES[table].schema.names, *(f.name for f in fact_fields(facts)))
    taken = {name.casefold() for name in used}
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


ERROR = pa.struct(
    [f.with_nullable(True) for f in ERRORS if f not in (*KEYS, MANIFEST_URI, URI_IS_CUT)],
)


@dataclass(frozen=True)
class RunTables:
    """The tables of one run.

    Attributes:
        names: of them, in the order of `TABLES`.
        carried: the manifest's own columns, under their names in the manifest; labels and errors end with
            them.
        embedding_width: how many numbers an embedding has; None where there are none.
        facts: of the job: keys of `FACTS_OF`.
    """

    names: tuple[str, ...] = ALWAYS
    carried: pa.Schema = field(default_factory=lambda: pa.schema([]))
    embedding_width: int | None = None
    facts: tuple[str, ...] = ()

    def schema(self, name: str) -> pa.Schema:
        """The schema of one of them."""
        fields = [self._of_fixed_size(column) for column in TABLES[name].schema]
        if name == "labels":
            fields += fact_fields(self.facts)
        if TABLES[name].has_carried:
            names = self.carried_names(name)
            fields += [pa.field(names[f.name], f.type) for f in self.carried]
        own = {"raylabel.table": name, "raylabel.schema_version": SCHEMA_VERSION}
        return pa.schema(fields, metadata={**own, **MODERN_CALENDAR})

    def _of_fixed_size(self, column: pa.Field) -> pa.Field:
        if column != EMBEDDINGS.field("embedding"):
            return column
        return column.with_type(pa.list_(pa.float32(), self.embedding_width or 0))

    def carried_names(self, table: str = "labels") -> dict[str, str]:
        """The names of the manifest's own columns in one of them; see `carried_names`."""
        return carried_names(self.carried, table, self.facts)

    @property
    def of_labelled(self) -> list[str]:
        """The names of those that have any number of rows for a labelled image."""
        return [name for name in self.names if TABLES[name].of_labelled]

    @property
    def carried_in_results(self) -> list[str]:
        """The names of the manifest's own columns in results, in their order."""
        return list(carried_names(self.carried).values())

    def row(self, name: str) -> pa.StructType:
        """What a row of such a table brings, as a value in a column of results."""
        schema = self.schema(name)
        fields = [schema.field(column) for column in TABLES[name].own]
        return pa.struct([f.with_type(pa.string()) if f.type == LABEL else f for f in fields])

    @cached_property
    def results(self) -> pa.Schema:
        """The schema of results, from the models to the writer: one row a manifest row, without pixels.

        It has the columns of the labels table but for those that are made when it is written, the rows of
        further tables, the error, and the row's unit. A row with an error goes to the errors table, any other
        to the others. No column has a dictionary (each block would have its own), and all but the keys may be
        null (a failed image has no size). Facts have the names of `fact_in_results`, the manifest's columns
        those that `carried_names` gives them without facts.
        """
        made = KEYS[len(IN_MANIFEST) :]
        plain = [f.with_type(pa.string()) if f.type == LABEL else f for f in LABELS]
        plain += [f.with_name(fact_in_results(f.name)) for f in fact_fields(self.facts)]
        plain += [f.with_name(name) for f, name in zip(self.carried, self.carried_in_results, strict=True)]
        return pa.schema(
            [
                *(f if f in KEYS else f.with_nullable(True) for f in plain if f not in made),
                *(pa.field(rows_of(name), pa.list_(self.row(name))) for name in self.of_labelled),
                pa.field("error", ERROR),
                URI_IS_CUT,
                pa.field("unit", pa.int64(), nullable=False),
            ]
        )


ALL_FACTS = (*FACTS, *fact_fields(FACTS_OF))
"""Columns about the file that any run may have."""

DECODED = pa.schema(
    [
        pa.field("data", pa.large_binary()),  # pixels, as in `schemas.images.DecodedImage`
        pa.field("input_shape", pa.list_(pa.int32())),  # or the models' input: float32 (3, h, w)
        *(f.with_nullable(True) for f in ALL_FACTS),
        pa.field("error", ERROR),
    ]
)
"""Schema of decoded images, from the decoder to the models: one row for each manifest row of a unit.

A row has facts and data, or an error, or neither: the labelling process then fetches and decodes that image.
"""
