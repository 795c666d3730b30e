"""Failed rows as a manifest, made of what a run holds of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.exceptions import ManifestError
from schemas.tables import KEYS
from workers.manifest.convert import write_parquet
from workers.manifest.manifest import Manifest, Rows
from workers.storage.uris import QUERY_SCHEMES, file_of, is_data, is_local, scheme_of


@dataclass
class HeldManifest(Manifest):
    """Some rows of a manifest, without the others.

    Attributes:
        index: their positions in the manifest, int64, ascending.
    """

    index: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def read(self, rows: Sequence[int]) -> Rows:
        """Returns the rows at some positions of the whole manifest, ascending.

        Raises:
            ManifestError: one of them is not held.
        """
        places = np.searchsorted(self.index, rows)
        if not np.array_equal(self.index[places.clip(max=len(self.index) - 1)], rows):
            raise ManifestError(f"not all rows from {rows[0]:,} to {rows[-1]:,} are among those that failed")
        held = super().read(places.tolist())
        return Rows(held.table.set_column(0, KEYS[0], pa.array(rows, pa.int64())), held.locations)


def is_enough(uri: str) -> bool:
    """Whether a URI, as tables hold it, leads to its image by itself."""
    file = file_of(uri)
    if is_local(file):
        return file.startswith("/")
    return not is_data(file) and scheme_of(file) not in QUERY_SCHEMES  # both are cut in tables


def held_manifest(failed: pa.Table, into: str) -> HeldManifest:
    """Writes failed rows as the files of a manifest.

    Args:
        failed: manifest_index, image_id and uri of each, ascending.
        into: where to write: a path or URL that file names are appended to.
    """
    columns = failed.select(["uri", "image_id"])
    rows = (row for batch in columns.to_batches(1024) for row in batch.to_pylist())
    files = write_parquet(rows, into, "/", columns.schema)
    return HeldManifest(
        files, "uri", "image_id", pa.schema([]), index=failed["manifest_index"].to_numpy().astype(np.int64)
    )
