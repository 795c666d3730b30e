"""What a child process prints, as plain text: a model may print what moves a terminal's cursor."""

import codecs
import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
"""Control sequences of terminals: of one letter, of colours and the cursor, of titles and links."""

_CUT = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,4000}\x1b?)?\Z")
"""A control sequence at the end of a text whose rest may follow."""

_KEPT = "\n\r\t"
"""Control characters that only text and progress bars use."""


def plain(text: str) -> str:
    """A text without the control sequences and characters that it has beside line ends and tabs."""
    return "".join(c for c in _ESCAPES.sub("", text) if c.isprintable() or c in _KEPT)


def relay_to_stderr() -> tuple[int, threading.Thread]:
    """A pipe whose text is written to this process's stderr, as plain text.

    Returns:
        The end of the pipe to write to, and the thread that ends when all copies of that end are closed.
    """
    reader, writer = os.pipe()
    thread = threading.Thread(target=_relay, args=[reader], name="output of a child", daemon=True)
    thread.start()
    return writer, thread


def _relay(reader: int) -> None:
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        for text in plain_parts(iter(lambda: pipe.read(2**16), b"")):
            with contextlib.suppress(OSError):  # nobody reads it any more; the child still writes
                os.write(2, text.encode(errors="replace"))


def plain_parts(parts: Iterable[bytes]) -> Iterator[str]:
    """The plain text of UTF-8 in parts; a control sequence may begin in one and end in the next."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    for part in parts:
        text = rest + decoder.decode(part)
        cut = _CUT.search(text)
        rest = cut[0] if cut else ""
        yield plain(text.removesuffix(rest))
    yield plain(rest + decoder.decode(b"", final=True))
