"""A Hugging Face ImageFolder: `metadata.parquet`, and the photos in `images` where they are copied.

https://huggingface.co/docs/datasets/image_dataset; `objects.categories` is a ClassLabel with the names.
`datasets` calls the photos `image`, and takes any column that ends in `_file_name` for further ones.
"""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.exports.base import ALL, Export, Format
from jobs.exports.rows import batches, schema_of


def write(export: Export, folder: Path) -> None:
    """Writes the metadata, a row for each image."""
    schema = schema_of(export, {"file_name": pa.string()}, ["image"], _spelled)
    if export.has_classes:
        schema = schema.with_metadata({"huggingface": json.dumps(_features(export.classes))})
    with pq.ParquetWriter(folder / "metadata.parquet", schema, compression="zstd") as writer:
        for batch in batches(export, schema):
            writer.write_batch(batch)


def _spelled(name: str) -> str:
    """The name of one of the manifest's columns, which names no photos."""
    return re.sub("file_name$", "filename", name)


def _features(classes: tuple[str, ...]) -> dict[str, object]:
    """What `datasets` reads of types that Arrow does not have: the names of classes."""
    number = {"dtype": "float32", "_type": "Value"}
    objects = {
        "bbox": {"feature": {"feature": number, "_type": "Sequence"}, "_type": "Sequence"},
        "categories": {"feature": {"names": list(classes), "_type": "ClassLabel"}, "_type": "Sequence"},
        "scores": {"feature": number, "_type": "Sequence"},
    }
    return {"info": {"features": {"objects": objects}}}


FORMAT = Format(
    name="hf",
    about="Hugging Face ImageFolder: metadata.parquet beside the photos",
    keeps=ALL,
    write=write,
    photos="images",
    names_files=True,
)
