"""File names of exported images: decided here and nowhere else.

A name is made of the image's own row alone, so it is the same whichever other images are exported. It starts
with the manifest row, which makes it unique in its run, whatever the case of its letters; the rest is for
people. It has letters, digits, "-" and "_" of ASCII: legal on every file system and in every archive.
"""

import re
import unicodedata

from jobs.results.images import ImageRow
from jobs.results.text import as_path
from workers.storage.uris import is_data

LONGEST = 60
"""Characters that are kept of an image's own name."""

_ENDINGS = {"JPEG": "jpg", "TIFF": "tif", "JPEG2000": "jp2", "PPM": "ppm"}
"""By format; those of others are the format in small letters."""


def file_name(image: ImageRow) -> str:
    """The name of an image's file: `00000012-beach.jpg` of row 12, `s3://photos/beach.jpeg`."""
    return f"{image.manifest_index:08d}-{_stem(image.uri)}.{_ending(image)}"


def _stem(uri: str) -> str:
    """What is left of the name in a URI."""
    if is_data(uri):
        return "image"
    stem = as_path(uri).rsplit("/", 1)[-1].rsplit(".", 1)[0]
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_-]+", "_", plain)[:LONGEST].strip("_") or "image"


def _ending(image: ImageRow) -> str:
    """The ending for what a copy is: a photo that is turned is written anew, without loss unless a JPEG."""
    if image.exif_orientation != 1 and image.format != "JPEG":
        return "png"
    return _ENDINGS.get(image.format, re.sub(r"[^a-z0-9]", "", image.format.lower()) or "bin")
