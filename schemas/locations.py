"""The location of a manifest row's image: set when the row is read, used by all that read images."""

from dataclasses import dataclass

import pyarrow as pa

from schemas.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of an uncompressed tar file: a range of its bytes.

    Attributes:
        tar: the path or URL of the tar file, credentials included.
        name: the member's path in the tar file.
        span: its first byte in the tar file and its size in bytes; None: not known, it is looked up by name.
    """

    tar: str
    name: str
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ParquetCell:
    """A value in a column of a Parquet file.

    Attributes:
        file: the path or URL of the Parquet file, credentials included.
        column: name of the column; it has binary values, or structs with a binary field `bytes`.
        row: the value's row in the file, from 0.
    """

    file: str
    column: str
    row: int


@dataclass(frozen=True, slots=True)
class MissingImage:
    """A row without an image that could be read.

    Attributes:
        code: code of its row in the errors table.
        why: message of that row.
    """

    code: ErrorCode
    why: str


Location = str | TarMember | ParquetCell | MissingImage
"""The location of one image. A string is the absolute path or URL of a whole file, credentials included."""

NO_URI = MissingImage(ErrorCode.NOT_FOUND, "the manifest's row has no URI")

MEMBERS = pa.schema(
    [
        pa.field("image_id", pa.string()),  # key of the sample; of several images in one their names
        pa.field("name", pa.string()),  # of the member; the key for a sample without an image
        pa.field("start", pa.int64()),  # first byte in the tar file; null without an image
        pa.field("size", pa.int64()),
        pa.field("code", pa.string()),  # of a MissingImage; null if there is an image
        pa.field("why", pa.string()),
    ]
)
"""Schema of the members of a tar file, from its headers: one row for each manifest row."""

IMAGE_ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "gif", "webp", "bmp", "dib", "tif", "tiff"),
        *("avif", "heic", "heif", "hif", "jp2", "ppm", "pgm", "pbm"),
    )
)
"""Endings of the names that count as images in a folder or tar file. A manifest may name any file."""
