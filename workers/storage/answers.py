"""What of a file a store is asked for, and what can be wrong with its answer."""

from typing import NamedTuple


class Part(NamedTuple):
    """What of a file is wanted.

    Attributes:
        start: its first byte.
        size: its bytes; None: all to the end of the file.
        most: bytes that are read, and held in memory, where there is no `size`.
    """

    start: int
    size: int | None
    most: int


COMPRESSED = "its server sends it compressed (Content-Encoding), so not in parts"
"""Why a part of a file cannot be read."""


class NotPartialError(OSError):
    """The server does not send the part of a file that it was asked for."""


class TooManyBytesError(OSError):
    """A file is larger than wanted."""
