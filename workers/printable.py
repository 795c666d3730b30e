"""Text for a terminal: what comes from files, class names and URIs passes here before it is printed.

A control character moves the cursor or changes colours, and a mark of direction turns text around: what is
seen is then not what was said.
"""

import re

from workers.storage.uris import clean_uri

_UNSEEN = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but the line break, further line breaks, marks of direction, and what is no Unicode."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_LONGEST = 8_000
"""Characters of an exception's message that are read."""

_QUERY = re.compile(r"((?:://|^/)[^?]*)\?.*=.*")
"""The query of a web address that a library has brought into another form."""

_CLOSING = "'\")>]},.;:"
"""What may follow a URL in a sentence."""


def printable(text: str) -> str:
    r"""A message with escapes such as `\x1b` for what would act on a terminal; its lines stay lines."""
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def printable_log(text: str) -> str:
    """Lines of another program's log: without colours, with tabs, all else as `printable` has it."""
    return "\t".join(printable(part) for part in _COLOUR.sub("", text).split("\t"))


def is_unicode(text: str) -> bool:
    """Whether a text has whole characters alone: no table can hold halves of them (surrogates)."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def one_line(text: str) -> str:
    """A text for a cell of a table, with spaces for control characters and line breaks."""
    return "".join(c if c.isprintable() else " " for c in text)


def short_line(text: str, length: int = 160) -> str:
    """A text of a file as part of a message: in one line, and cut where it is longer than that."""
    text = one_line(text)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def message_of(error: BaseException, uri: str = "", name: str = "") -> str:
    """An exception's message in one line, without passwords and queries of URLs; "" where it has none.

    Every exception that becomes a part of a message passes here: libraries write URLs as they asked for them,
    those of proxies and redirects too.

    Args:
        error: the exception.
        uri: what it may hold as it was written, credentials included; "" for nothing.
        name: what is shown in its place.
    """
    text = str(error)
    for written in (uri, repr(uri)[1:-1]):  # Python quotes the path of an OSError
        text = text.replace(written, name) if written else text
    return " ".join(_without_secrets(word) for word in text[:_LONGEST].split())


def _without_secrets(word: str) -> str:
    """A word of a message without the user, password and query of a URL in it."""
    bare = word.rstrip(_CLOSING)
    return _QUERY.sub(r"\1", clean_uri(bare)) + word[len(bare) :]
