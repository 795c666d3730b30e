"""Where the image of a manifest row is: decided when the row is read, and taken by all that read images."""

from dataclasses import dataclass

import pyarrow as pa

from schemas.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in a tar file that is not compressed: a range of it.

    Attributes:
        tar: the path or URL of the tar file, credentials included.
        name: of the member, as the tar has it.
        span: its first byte in the tar file and how many it has; None: to be looked up by its name.
    """

    tar: str
    name: str
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ParquetCell:
    """A value of a Parquet file's column.

    Attributes:
        file: the path or URL of the Parquet file, credentials included.
        column: of binary values, or of structs with a binary field `bytes`.
        row: its position in the file, from 0.
    """

    file: str
    column: str
    row: int


@dataclass(frozen=True, slots=True)
class MissingImage:
    """A row that has no image that could be read.

    Attributes:
        code: of the errors row that it becomes.
        why: for a person.
    """

    code: ErrorCode
    why: str


Location = str | TarMember | ParquetCell | MissingImage
"""Of one image. Text is the absolute path or the URL of a whole file, credentials included."""

NO_URI = MissingImage(ErrorCode.NOT_FOUND, "the manifest's row has no URI")

MEMBERS = pa.schema(
    [
        pa.field("image_id", pa.string()),  # the key of the sample
        pa.field("name", pa.string()),  # of the member; of a sample without an image its key
        pa.field("start", pa.int64()),  # of its bytes in the tar file; null where there is no image
        pa.field("size", pa.int64()),
        pa.field("code", pa.string()),  # of a MissingImage; null where there is an image
        pa.field("why", pa.string()),
    ]
)
"""What a tar file's headers are made into: one row a manifest row."""

IMAGE_ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "gif", "webp", "bmp", "dib", "tif", "tiff"),
        *("avif", "jp2", "ppm", "pgm", "pbm"),
    )
)
"""What is taken for an image in a folder or a tar file. A manifest may name anything."""
