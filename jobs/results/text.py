"""Names of images and labels as the terminal, the report and the pictures show them."""

from collections.abc import Iterable
from itertools import takewhile

from rich.cells import cell_len

from workers.printable import one_line
from workers.storage.uris import CHAINS, split_chain


def shorten(text: str, width: int) -> str:
    """The text on one line, with "…" for its middle where it is wider than `width` terminal cells."""
    text, width = one_line(text), max(width, 1)
    if cell_len(text) <= width:
        return text
    half = max((width - 1) // 2, 0)
    start, end = text, text
    while cell_len(start) > width - 1 - half:
        start = start[:-1]
    while cell_len(end) > half:
        end = end[1:]
    return f"{start}…{end}"


def short_uris(uris: Iterable[str], width: int) -> list[str]:
    """The ends of URIs, all cut at the same depth: as many folders as fit, at least the file names.

    The folder that all of them are in is left out.
    """
    uris = _below_common_folder([one_line(as_path(uri)) for uri in uris])
    depths = range(max((uri.count("/") for uri in uris), default=0), -1, -1)
    for names in ([_tail(uri, depth) for uri in uris] for depth in depths):
        if all(cell_len(name) <= width for name in names):
            return names
    return [shorten(_tail(uri, 0), width) for uri in uris]


def _below_common_folder(uris: list[str]) -> list[str]:
    folders = zip(*(uri.split("/")[:-1] for uri in uris), strict=False)
    common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    return ["/".join(uri.split("/")[common:]) for uri in uris]


def as_path(uri: str) -> str:
    """A chained URI as one path: `tar://b.jpg::s3://x/a.tar` becomes `s3://x/a.tar/b.jpg`."""
    chain = split_chain(uri)
    if not chain or not chain[0].startswith(CHAINS):
        return uri
    inner, outer = chain
    return f"{outer}/{inner.partition('://')[2]}"


def _tail(uri: str, folders: int) -> str:
    """A file name with that many folders above it; "…/" stands for the others."""
    kept = "/".join(uri.split("/")[-folders - 1 :])
    if kept == uri or not folders:
        return kept
    return f"…/{kept.lstrip('/')}"


def scored(label: str, score: float) -> str:
    """A label with its score, as the terminal, the report and the pictures show it."""
    return f"{one_line(label)} {score:.2f}"
