"""Folders and globs of images, listed when the job is resolved."""

from collections.abc import Iterator

import pyarrow as pa

from schemas.locations import IMAGE_ENDINGS, NO_URI, Location
from workers.manifest.columns import strings
from workers.manifest.formats.base import Row, RowFormat
from workers.manifest.listing import root_of
from workers.manifest.partitions import partitions_of
from workers.manifest.sources import Source
from workers.storage.filesystem import file_system, full_url
from workers.storage.uris import text_uri


class Images(RowFormat):
    """The images themselves: the rows are the files of a listing."""

    suffixes = tuple(sorted(IMAGE_ENDINGS))
    is_listed = True

    def schema_of(self, source: Source) -> pa.Schema:
        """The URI, and the columns that folders and metadata beside the images say."""
        metadata = source.metadata.columns if source.metadata else ()
        return strings(list(dict.fromkeys(["uri", *source.folder_columns, *metadata])))

    def rows(self, source: Source) -> Iterator[Row]:
        """One row a listed file: its path or URL, and what metadata beside it says, or its folders."""
        fs, path = file_system(source.uri)
        root, start = root_of(fs, path), None
        for file in source.listing or ():
            if start is None:  # the same for all, and slow to find out
                start = full_url(fs, file.name, source.uri).removesuffix(file.name)
            folders = dict(partitions_of(file.name, root)) if source.folder_columns else {}
            further = source.metadata.row(file.name) if source.metadata else {}
            yield {**folders, **further, "uri": text_uri(f"{start}{file.name}")}

    def location(self, uri: str | None, origin: str) -> Location:
        """The path or URL itself: it is no person's, so spaces around it are its own."""
        return uri or NO_URI
