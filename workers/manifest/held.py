"""Failed rows as a manifest, made of what a run holds of them: its errors table."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ManifestError
from schemas.locations import Location, MissingImage
from schemas.tables import KEYS, MANIFEST_URI, URI_IS_CUT, carried_names
from workers.fetch.locate import location_of
from workers.manifest.convert import write_table
from workers.manifest.files import FileRows, ManifestFile
from workers.manifest.manifest import Manifest, Rows

_ERROR = ("stage", "code", "message")


@dataclass
class HeldManifest(Manifest):
    """Some rows of a manifest, without the others.

    Attributes:
        index: their positions in the manifest, int64, ascending.
        lacking: of these the positions of rows that do not lead to their images themselves.
        located_by: a manifest that has the lacking rows in the same places; None where there are none.
    """

    index: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    lacking: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    located_by: Manifest | None = None

    def read(self, rows: Sequence[int]) -> Rows:
        """Returns the rows at some positions of the whole manifest, ascending.

        Raises:
            ManifestError: one of them is not held, or a file cannot be read.
        """
        if np.setdiff1d(rows, self.index).size:
            raise ManifestError(f"not all rows from {rows[0]:,} to {rows[-1]:,} are among those that failed")
        held = super().read(np.searchsorted(self.index, rows).tolist())
        locations = dict(zip(rows, held.locations, strict=True))
        if self.located_by and (lacking := np.intersect1d(rows, self.lacking).tolist()):
            locations |= zip(lacking, self.located_by.read(lacking).locations, strict=True)
        table = held.table.set_column(0, KEYS[0], pa.array(rows, pa.int64()))
        return Rows(table, list(locations.values()))

    def _wanted(self, file: ManifestFile) -> list[str]:
        return list(file.columns)

    def _arranged(self, rows: FileRows) -> Rows:
        table = _columns(self.carried).empty_table() if rows.table is None else rows.table
        where = zip(*(table[name].to_pylist() for name in ("uri", URI_IS_CUT.name, "error")), strict=True)
        locations = [_location(*one) for one in where]
        written = pc.coalesce(table[MANIFEST_URI.name], table["uri"])
        table = table.set_column(table.column_names.index("uri"), "uri", written)
        return Rows(table.drop_columns([MANIFEST_URI.name, URI_IS_CUT.name, "error"]), locations)


def _location(uri: str, is_cut: bool, error: dict[str, Any]) -> Location:
    """Where the image of a failed row is, as far as its URI says; of a row that has none, why."""
    if is_cut and error["stage"] == Stage.LIST.value:
        return MissingImage(ErrorCode(error["code"]), error["message"])
    return location_of(uri)


def not_held(failed: pa.Table) -> pa.Table:
    """Those of some rows of an errors table whose image is not found by their URI alone."""
    return with_image(failed).filter(pc.field(URI_IS_CUT.name))


def with_image(failed: pa.Table) -> pa.Table:
    """Those of some rows of an errors table whose manifest row has an image, wherever it is."""
    has_none = pc.and_(failed[URI_IS_CUT.name], pc.equal(failed["stage"], Stage.LIST.value))
    return failed.filter(pc.invert(has_none))


def held_manifest(
    failed: pa.Table, carried: pa.Schema, into: str, facts: Collection[str] = ()
) -> HeldManifest:
    """Writes failed rows as a file of a manifest.

    Args:
        failed: rows of an errors table, ascending.
        carried: the manifest's own columns, under their names in it.
        into: where to write: a path or URL that the rest of the name is appended to.
        facts: of the run.
    """
    schema, in_errors = _columns(carried), carried_names(carried, "errors", facts)
    error = pa.StructArray.from_arrays([failed[n].combine_chunks() for n in _ERROR], fields=list(_ERRORS))
    own = {name: failed[name] for name in ("image_id", "uri", MANIFEST_URI.name, URI_IS_CUT.name)}
    own |= {name: failed[in_errors[n]] for n, name in carried_names(carried).items()}
    table = pa.table({**own, "error": error}).select(schema.names)
    index = failed["manifest_index"].to_numpy().astype(np.int64)
    files = write_table(table.cast(schema), into, "/")
    lacking = not_held(failed)["manifest_index"].to_numpy().astype(np.int64)
    return HeldManifest(files, "uri", "image_id", carried, index=index, lacking=lacking)


def located(held: HeldManifest, manifest: Manifest) -> HeldManifest:
    """The same rows, with the locations that a manifest has of those that lack them."""
    return replace(held, located_by=manifest)


_ERRORS = pa.struct([(name, pa.string()) for name in _ERROR])


def _columns(carried: pa.Schema) -> pa.Schema:
    """The columns of the file: those of the rows, and what leads to their images."""
    names = carried_names(carried)
    own = [pa.field(names[f.name], f.type) for f in carried]
    return pa.schema(
        [("image_id", pa.string()), ("uri", pa.string()), *own, MANIFEST_URI, URI_IS_CUT, ("error", _ERRORS)]
    )
