"""Tar files of images, as WebDataset and img2dataset write them: their headers are converted to rows."""

from collections.abc import Iterator
from itertools import groupby

import pyarrow as pa

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError, ManifestError
from schemas.locations import MEMBERS, Location, MissingImage, TarMember
from schemas.spec import FetchSpec, ManifestSpec
from workers.fetch.locate import uri_of
from workers.fetch.tar import Member, compressed_message, members
from workers.manifest.files import FileRows
from workers.manifest.formats.base import FoundImages, Row, RowFormat
from workers.manifest.sources import Source
from workers.manifest.suffixes import COMPRESSIONS
from workers.storage.uris import clean_uri


class Tar(RowFormat):
    """A plain tar file: one row an image in it, under `schemas.locations.MEMBERS`."""

    suffixes = (".tar",)
    refused = (*(f".tar{suffix}" for suffix in COMPRESSIONS), ".tgz", ".tbz2", ".txz", ".tzst")
    is_data_set = True  # img2dataset writes statistics next to each, and a table without the images
    is_sampled = True
    has_own_columns = True
    schema = MEMBERS

    def rows(self, source: Source) -> Iterator[Row]:
        """Its images, by its headers; see `rows_of_tar`."""
        return rows_of_tar(source.uri, FetchSpec())

    def check(self, spec: ManifestSpec, source: Source) -> None:
        """Reads up to its first image."""
        next(self.rows(source), None)

    def first_location(self, spec: ManifestSpec, source: Source) -> Location | None:
        """Its first member, where that is an image that can be read."""
        row = next(self.rows(source), {})
        return TarMember(source.uri, row["name"], (row["start"], row["size"])) if "start" in row else None

    def refusal(self, uri: str) -> str | None:
        """Refuses what is compressed."""
        name = clean_uri(uri)
        return compressed_message(name, "by its name") if name.lower().endswith(self.refused) else None

    def origin(self, source: Source) -> str:
        """The tar file."""
        return source.uri

    def image_columns(self, uri_column: str, image_column: str | None) -> list[str]:
        """All columns."""
        return list(MEMBERS.names)

    def images(self, rows: FileRows, uri_column: str, image_column: str | None) -> FoundImages:
        """Its members; a row without a name is of the tar file itself."""
        tar = rows.file.origin
        names, starts, sizes, codes, reasons = (
            rows.column(name, MEMBERS.field(name).type).to_pylist()
            for name in ("name", "start", "size", "code", "why")
        )
        uris: list[str] = []
        locations: list[Location] = []
        for name, start, size, code, why in zip(names, starts, sizes, codes, reasons, strict=True):
            member = TarMember(tar, name or "", (start or 0, size or 0))
            uris.append(uri_of(member) if name else clean_uri(tar))
            locations.append(MissingImage(ErrorCode(code), why) if code else member)
        return uris, locations

    def ids(self, rows: FileRows, image_column: str | None) -> pa.Array | None:
        """The keys of the samples; of several images in one the names of these."""
        return rows.column("image_id", pa.string())


def rows_of_tar(tar: str, spec: FetchSpec) -> Iterator[Row]:
    """Yields the manifest rows of a tar file, under `schemas.locations.MEMBERS`.

    There is one for each image. Rows without an image, which will fail, say what is missing: a sample that
    has none, an image that is not stored as it is, and the rest of a tar file that is cut.

    Args:
        tar: its path or URL.
        spec: how to read it.

    Raises:
        ManifestError: it is no tar file, it is compressed, or it cannot be read.
    """
    try:
        for key, sample in groupby(members(tar, spec), _key_of):
            files = list(sample)
            images = [file for file in files if not isinstance(file, Member) or file.is_image]
            is_one = len({image.name for image in images if isinstance(image, Member)}) == 1
            rows = [_row(image, is_one=is_one) for image in images]
            yield from rows or [_without_image(str(key), [f.name for f in files if isinstance(f, Member)])]
    except ImageError as error:
        raise ManifestError(f"cannot read the headers of {error.message}") from None


def _key_of(member: Member | MissingImage) -> str | None:
    return member.key if isinstance(member, Member) else None


def _row(image: Member | MissingImage, *, is_one: bool) -> Row:
    """The row of an image, or of what is lost; `is_one`: no other image is in its sample."""
    if isinstance(image, MissingImage):
        return {"code": image.code.value, "why": image.why}
    row = {"image_id": image.key if is_one else image.name, "name": image.name}
    if image.fault:
        return {**row, "code": ErrorCode.UNSUPPORTED.value, "why": image.fault}
    start, size = image.span
    return {**row, "start": start, "size": size}


def _without_image(key: str, names: list[str]) -> Row:
    why = f"sample {key!r} has no image; it has: {', '.join(names)}"
    return {"image_id": key, "name": key, "code": ErrorCode.NOT_FOUND.value, "why": why}
