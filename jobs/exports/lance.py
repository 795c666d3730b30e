"""A Lance dataset, a row for each image, with a vector column where the run has embeddings.

https://lancedb.github.io/lance/
"""

from pathlib import Path

import pyarrow as pa

from jobs.exports.base import ALL, Export, Format
from jobs.exports.rows import batches, schema_of


def write(export: Export, folder: Path) -> None:
    """Writes the dataset."""
    import lance

    schema = schema_of(export, {"classes": pa.list_(pa.string())} if export.has_classes else {})
    reader = pa.RecordBatchReader.from_batches(schema, batches(export, schema))
    lance.write_dataset(reader, str(folder))


FORMAT = Format(
    name="lance",
    about="Lance dataset: a table with a vector column; needs raylabel[lance]",
    keeps=ALL,
    write=write,
    needs=("lance", "pip install 'raylabel[lance]'"),
)
