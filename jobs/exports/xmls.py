"""Text in XML 1.0, written piece by piece: what is in memory does not grow with the file."""

import re
from xml.sax.saxutils import escape, quoteattr

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write."""


def text(value: str) -> str:
    """A text between tags; U+FFFD stands for what XML cannot hold."""
    return escape(_ILLEGAL.sub("\ufffd", value))


def attribute(value: object) -> str:
    """A value of an attribute, in its quotes; see `text`."""
    return quoteattr(_ILLEGAL.sub("\ufffd", str(value)))
