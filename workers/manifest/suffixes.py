"""The suffixes of file names that say what a file is."""

from workers.storage.uris import clean_uri

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""What a compressed file's name ends in, after the suffix of its format."""


def suffix_of(name: str) -> str:
    """Returns the suffix of a path or URL, lower case, a compression's left out; "" where it has none."""
    file = clean_uri(name).lower().rpartition("/")[2]
    if file.endswith(COMPRESSIONS):
        file = file.rpartition(".")[0]
    stem, _, suffix = file.rpartition(".")
    return f".{suffix}" if stem and suffix else ""
