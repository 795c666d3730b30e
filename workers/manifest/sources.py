"""What a manifest is made of, before it is opened."""

from dataclasses import dataclass, field

from schemas.ledger import SourceFile
from schemas.spec import ManifestFormat
from workers.manifest.files import Partitions
from workers.manifest.listing import Listing
from workers.manifest.metadata import ImageMetadata
from workers.manifest.passed_over import PassedOver


@dataclass(frozen=True)
class Source:
    """One file of a manifest, or one listed folder: what `find_sources` finds and `open_manifest` opens.

    Attributes:
        file: its URI without credentials, its version, and how it is read: what the run record pins.
        uri: where to read it, credentials included.
        format: its format, by its name or as the spec sets it.
        base: the folder that relative image paths in it are resolved against.
        listing: the images of a listed folder, on this process's disk; None for a file.
        metadata: what files beside the images of a listed folder say of them.
        folder_columns: columns that folders below a listed one say of their images.
        passed_over: what else is in the folder or glob that it is the first source of.
    """

    file: SourceFile
    uri: str
    format: ManifestFormat
    base: str
    listing: Listing | None = field(default=None, compare=False)
    metadata: ImageMetadata | None = field(default=None, compare=False)
    folder_columns: tuple[str, ...] = ()
    passed_over: PassedOver | None = field(default=None, compare=False)

    @property
    def partitions(self) -> Partitions:
        """Columns that the folders which it was found in say."""
        return tuple(self.file.partitions.items())
