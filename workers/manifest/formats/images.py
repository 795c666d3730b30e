"""Folders and globs of images, listed when the job is resolved."""

from collections.abc import Iterator

import pyarrow as pa

from schemas.locations import IMAGE_ENDINGS
from workers.manifest.columns import strings
from workers.manifest.formats.base import Row, RowFormat
from workers.manifest.sources import Source
from workers.storage.filesystem import file_system, full_url


class Images(RowFormat):
    """The images themselves: the rows are the files of a listing."""

    suffixes = tuple(sorted(IMAGE_ENDINGS))
    is_listed = True

    def schema_of(self, source: Source) -> pa.Schema:
        """The URI, and the columns of metadata beside the images."""
        return strings(["uri", *(source.metadata.columns if source.metadata else ())])

    def rows(self, source: Source) -> Iterator[Row]:
        """One row a listed file: its path or URL, and what metadata beside it says."""
        fs, _ = file_system(source.uri)
        start = None
        for file in source.listing or ():
            if start is None:  # the same for all, and slow to find out
                start = full_url(fs, file.name, source.uri).removesuffix(file.name)
            further = source.metadata.row(file.name) if source.metadata else {}
            yield {**further, "uri": f"{start}{file.name}"}
