"""Text for a terminal: what comes from files, class names and URIs passes here before it is printed.

A control character moves the cursor or changes colours, and a mark of direction turns text around: what is
seen is then not what was said.
"""

import re

_UNSEEN = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but the line break, further line breaks, marks of direction, and what is no Unicode."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def printable(text: str) -> str:
    r"""A message with escapes such as `\x1b` for what would act on a terminal; its lines stay lines."""
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def printable_log(text: str) -> str:
    """Lines of another program's log: without colours, with tabs, all else as `printable` has it."""
    return "\t".join(printable(part) for part in _COLOUR.sub("", text).split("\t"))


def one_line(text: str) -> str:
    """A text for a cell of a table, with spaces for control characters and line breaks."""
    return "".join(c if c.isprintable() else " " for c in text)


def short_line(text: str, length: int = 160) -> str:
    """A text of a file as part of a message: in one line, and cut where it is longer than that."""
    text = one_line(text)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def message_of(error: BaseException) -> str:
    """An exception's message in one line; "" where it has none."""
    return " ".join(str(error).split())
