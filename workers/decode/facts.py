"""What a job asks to be told of an image beside its labels."""

from collections.abc import Collection
from typing import Any

from schemas.images import DecodedImage
from workers.decode.exif import exif_facts
from workers.decode.phash import phash


def facts_of_picture(image: DecodedImage, facts: Collection[str]) -> dict[str, Any]:
    """The values of the columns in `schemas.tables.FACTS_OF` that some facts stand for, by name."""
    values: dict[str, Any] = {}
    if "exif" in facts:
        values |= exif_facts(image.exif)
    if "phash" in facts:
        values["phash"] = phash(image.pixels)
    return values
