"""What a manifest is made of, before it is opened."""

from dataclasses import dataclass, field

from schemas.ledger import SourceFile
from schemas.spec import ManifestFormat
from workers.manifest.listing import Listing


@dataclass(frozen=True)
class Source:
    """One file of a manifest, or one listed folder: what `find_sources` finds and `open_manifest` opens.

    Attributes:
        file: its URI without credentials, and its version: what the run record pins.
        uri: where to read it, credentials included.
        format: its format, by its name or as the spec sets it.
        base: the folder that relative image paths in it are resolved against.
        listing: the images of a listed folder, on this process's disk; None for a file.
    """

    file: SourceFile
    uri: str
    format: ManifestFormat
    base: str
    listing: Listing | None = field(default=None, compare=False)
