"""What a local file is known by: its contents, so that it stays the same when it is copied or touched."""

import hashlib
import os

WHOLE_BYTES = 64 * 2**20
"""Bytes up to which a file that may be sampled is read whole."""

SAMPLES, SAMPLE_BYTES = 64, 2**16
"""How many parts of a longer one are read, the first and the last of it among them, and bytes of each."""


def digest_of(path: str, *, sampled: bool) -> str:
    """Returns the sha256 of a file's bytes, or, where it may be sampled and is long, of parts of it."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not sampled or size <= WHOLE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for number in range(SAMPLES):
            file.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
        return f"{digest.hexdigest()} of {SAMPLES} parts"
