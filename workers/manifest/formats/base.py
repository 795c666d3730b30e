"""What a manifest format has to say of its files and of their rows."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from schemas.locations import NO_URI, Location
from schemas.spec import ManifestSpec
from workers.fetch.locate import locate, shown_uri
from workers.manifest.columns import image_column, strings
from workers.manifest.files import FileRows
from workers.manifest.sources import Source
from workers.storage.uris import clean_uri

Row = Mapping[str, Any]
"""One row of a manifest, by column name."""

FoundImages = tuple[list[str], Sequence[Location]]
"""Of some rows: the URIs of their images, without credentials and query, and their locations."""


def _shown(uri: str | None, location: Location) -> str:
    """A URI as the manifest has it, without what may be secret: of a relative one its location tells."""
    shown = clean_uri(uri or "")
    return re.split(r"[?#]", shown, maxsplit=1)[0] if uri and shown_uri(location)[1] else shown


class Format(ABC):
    """A format of manifests. What is here holds where each row names its image in a column.

    Attributes:
        suffixes: what the names of its files end in, lower case, without a compression's.
        refused: more endings of names, of files of this format that cannot be read; see `refusal`.
        is_listed: whether a folder with one such file is listed as a whole, its files being the images.
        is_data_set: whether other files in a folder with such files only describe these, and are passed over.
        is_sampled: whether a local file of it is known by parts of it, being too large to be read twice.
        has_own_columns: whether its rows have columns of ours, of which none goes into the labels table.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    refused: ClassVar[tuple[str, ...]] = ()
    is_listed: ClassVar[bool] = False
    is_data_set: ClassVar[bool] = False
    is_sampled: ClassVar[bool] = False
    has_own_columns: ClassVar[bool] = False

    @abstractmethod
    def columns(self, source: Source) -> pa.Schema:
        """Returns the columns of a source, by its metadata or its first row.

        Raises:
            ManifestError: it is not what its format says.
        """

    @abstractmethod
    def has_rows(self, source: Source) -> bool:
        """Returns whether a source has any row.

        Raises:
            ManifestError: it is not what its format says.
        """

    @abstractmethod
    def first_location(self, spec: ManifestSpec, source: Source) -> Location | None:
        """Returns where the first image of a source is; None where it has none.

        Raises:
            ManifestError: it is not what its format says.
        """

    def check(self, spec: ManifestSpec, source: Source) -> None:
        """Refuses a source that cannot say where its images are, by its metadata or its first row.

        Raises:
            ManifestError: with the columns that it has, or with what it is instead.
        """
        image_column(spec, source.file.uri, self.columns(source))

    def refusal(self, uri: str) -> str | None:
        """Returns why a file cannot be read, by its name, with what to do; None where it can."""
        return None

    def origin(self, source: Source) -> str:
        """Returns what the images of a source are found from; see `ManifestFile.origin`."""
        return source.base

    def image_columns(self, uri_column: str, image_column: str | None) -> list[str]:
        """The columns that `images` needs, those within a struct by their paths.

        Args:
            uri_column: the manifest's column that names the images.
            image_column: the manifest's column that holds the images themselves, which is never read with
                its rows; None: `uri_column` names them.
        """
        return [uri_column]

    def images(self, rows: FileRows, uri_column: str, image_column: str | None) -> FoundImages:
        """Returns where the images of some rows are, from the columns of `image_columns`."""
        uris = rows.column(uri_column, pa.string()).to_pylist()
        locations = [self.location(uri, rows.file.origin) for uri in uris]
        return [_shown(*one) for one in zip(uris, locations, strict=True)], locations

    def location(self, uri: str | None, origin: str) -> Location:
        """Returns where the image of a row is that names it, as a person wrote it."""
        return locate(uri, origin) if uri and not uri.isspace() else NO_URI

    def ids(self, rows: FileRows, image_column: str | None) -> pa.Array | None:
        """Returns the ids that the format itself has for some rows, string; None: none."""
        return None


class RowFormat(Format):
    """A format that is converted to Parquet, once a run.

    Attributes:
        schema: of the Parquet files; None: each has the columns of its own rows, all of them strings.
    """

    schema: ClassVar[pa.Schema | None] = None

    @abstractmethod
    def rows(self, source: Source) -> Iterator[Row]:
        """Yields the rows of a source, in order, without holding all of them in memory.

        Raises:
            ManifestError: it is not what its format says.
        """

    def schema_of(self, source: Source) -> pa.Schema | None:
        """The schema of the Parquet files that a source is converted to; None: see `schema`."""
        return self.schema

    def columns(self, source: Source) -> pa.Schema:
        """The columns of its schema, or of its first row."""
        return self.schema_of(source) or strings(next(self.rows(source), {}))

    def has_rows(self, source: Source) -> bool:
        """Whether there is a first one."""
        return next(self.rows(source), None) is not None

    def first_location(self, spec: ManifestSpec, source: Source) -> Location | None:
        """What its first row names."""
        uri = next(self.rows(source), {}).get(spec.uri_column)
        return self.location(uri, source.base) if uri else None
