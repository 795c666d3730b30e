"""A Lance dataset, a row for each image, with a vector column where the run has embeddings.

https://lancedb.github.io/lance/
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from jobs.exports.arrays import as_json
from jobs.exports.base import ALL, Export, Format
from jobs.exports.rows import batches, schema_of
from schemas.exceptions import RaylabelError, StorageError
from workers.printable import message_of

CLASSES = "raylabel.classes"
"""The key in the schema's metadata of the names of `objects.categories`, a JSON array."""


def write(export: Export, folder: Path) -> None:
    """Writes the dataset.

    Raises:
        StorageError: Lance cannot write it.
    """
    import lance

    schema = schema_of(export, {"classes": pa.list_(pa.string())} if export.has_classes else {})
    schema = schema.with_metadata({CLASSES: as_json(export.classes)})
    failures: list[RaylabelError] = []

    def read() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches(export, schema)
        except RaylabelError as failure:  # Lance makes a text of it
            failures.append(failure)
            raise

    try:
        lance.write_dataset(pa.RecordBatchReader.from_batches(schema, read()), str(folder))
    except Exception as error:  # Lance has no exceptions of its own
        written = StorageError(f"cannot write {export.into}: Lance says: {message_of(error)}")
        raise (failures or [written])[0] from None


FORMAT = Format(
    name="lance",
    about="Lance dataset: a table with a vector column; needs raylabel[lance]",
    keeps=ALL,
    write=write,
    needs=("lance", "pip install 'raylabel[lance]'"),
)
