"""The formats of a manifest, one class each.

A new one is a module here, its entry in `FORMATS`, and its name in `schemas.spec.ManifestFormat`.
"""

from schemas.spec import ManifestFormat
from workers.manifest.formats.base import Format
from workers.manifest.formats.csv import Csv
from workers.manifest.formats.images import Images
from workers.manifest.formats.jsonl import JsonLines
from workers.manifest.formats.parquet import Parquet
from workers.manifest.formats.tar import Tar
from workers.manifest.formats.text import Text
from workers.manifest.suffixes import suffix_of

FORMATS: dict[ManifestFormat, Format] = {
    "parquet": Parquet(),
    "csv": Csv(),
    "jsonl": JsonLines(),
    "text": Text(),
    "tar": Tar(),
    "images": Images(),
}

_BY_SUFFIX = {suffix: name for name, fmt in FORMATS.items() for suffix in (*fmt.suffixes, *fmt.refused)}


def format_of(name: str) -> ManifestFormat | None:
    """Returns the format that a file has by its name; None where its suffix is not known."""
    return _BY_SUFFIX.get(suffix_of(name))


def manifest_suffixes() -> list[str]:
    """The suffixes of manifest files, for a person."""
    return [suffix for fmt in FORMATS.values() if not fmt.is_listed for suffix in fmt.suffixes]
