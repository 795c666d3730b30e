"""The first page of a TIFF, without the pages and tags that a picture does not need (TIFF 6.0; BigTIFF).

Pillow reads every page to count them, so that a damaged one costs the first; and every tag of a page.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from schemas.images import Content
from workers.decode.bands import Bands, Tag, bands_of
from workers.decode.errors import decode_error, ends_early, too_many
from workers.decode.orientation import Layout, first_directory, layout_of, orientation_of
from workers.decode.picture import MAX_FRAMES, Picture

MAX_TAGS = 4_096
"""Of a page; cameras write a hundred."""

MAX_VALUES = 400_000
"""Of the tags of a page that are read, together: two for each strip or tile."""

MAX_SUB_PAGES = 16
"""Pages below the first one that are looked at for a larger picture."""

WIDTH, HEIGHT, ORIENTATION, SUB_PAGES, XMP = 256, 257, 274, 330, 700
NEW_SUBFILE_TYPE, SUBFILE_TYPE, DNG_VERSION = 254, 255, 50_706

_PICTURE_TAGS = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 284, 292, 293, 317, 318, 319, 320, 321}
    | {322, 323, 324, 325, 332, 333, 334, 336, 338, 339, 347, *range(512, 522), *range(529, 533)}
)
"""What decoders read. ORIENTATION is not among them: Pillow would turn the picture."""

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Bytes of a value, and `struct`'s name of it, by the type of a tag."""


class _Entry(NamedTuple):
    """A tag of a page: its position, number, type, number of values, and its values or their offset."""

    position: int
    tag: int
    kind: int
    length: int
    value: bytes


class _Page(NamedTuple):
    """A directory of tags: its position, the first entry of each tag, and the position of the next page."""

    position: int
    entries: dict[int, _Entry]
    following: int


def first_picture(data: Content) -> Picture:
    """The first page of a TIFF as its only one; a large one in bands, where it can be.

    Raises:
        ImageError: TRUNCATED: the page's tags lie behind the end. UNSUPPORTED: the page is a preview of
            another picture in the file, as in raw photos; or it has more than `MAX_TAGS` tags.
    """
    layout = layout_of(data)
    if layout is None:
        raise ends_early("TIFF", "its header is cut")
    try:
        page = _page(data, layout, first_directory(data, layout))
    except struct.error as error:
        raise ends_early("TIFF", "the tags of its first page lie behind the end") from error
    reason = _why_preview(data, layout, page)
    if reason:
        raise decode_error(
            ErrorCode.UNSUPPORTED,
            f"The first page of this TIFF file is a preview of another picture in it ({reason}), as in raw "
            "photos. Export the photo as JPEG or TIFF.",
        )
    tags = [entry for tag, entry in sorted(page.entries.items()) if tag in _PICTURE_TAGS]
    kept = [entry for entry in tags if entry.length * _SIZES.get(entry.kind, len(data)) <= len(data)]
    values = sum(entry.length for entry in kept)
    if values > MAX_VALUES:
        raise too_many("TIFF", f"{values:,} strips, tiles and other values", MAX_VALUES)
    orientation = orientation_of(data, _xmp(data, layout, page))
    pages, bands = _count_pages(data, layout, page), _bands(data, layout, kept)
    file = b"" if bands else _with_page(data, layout, page, kept)
    return Picture(file, orientation, pages, exif=data, bands=bands)


def _page(data: Content, layout: Layout, position: int) -> _Page:
    """The page at a position; raises struct.error where it lies behind the end."""
    (count,) = layout.read(layout.number, data, position)
    size = struct.calcsize(layout.order + layout.entry)
    first = position + struct.calcsize(layout.order + layout.number)
    (following,) = layout.read(layout.offset, data, first + count * size)
    if count > MAX_TAGS:
        raise too_many("TIFF", f"{count:,} tags", MAX_TAGS)
    entries: dict[int, _Entry] = {}
    for place in range(first, first + count * size, size):
        tag, kind, values, value = layout.read(layout.entry, data, place)
        entries.setdefault(tag, _Entry(place, tag, kind, values, value))
    return _Page(position, entries, following)


def _bands(data: Content, layout: Layout, kept: list[_Entry]) -> Bands | None:
    """The bands of a page with some tags; None where it is not decoded in them."""
    tags = {}
    for entry in kept:
        size = entry.length * _SIZES.get(entry.kind, 0)
        source: Content
        source, position = entry.value, 0
        if size > len(entry.value):
            source, (position,) = data, layout.read(layout.offset, entry.value, 0)
        tags[entry.tag] = Tag(entry.kind, entry.length, source[position : position + size])
    return bands_of(data, layout, tags)


def _with_page(data: Content, layout: Layout, page: _Page, kept: list[_Entry]) -> bytes:
    """The same file, but its first page is the only one and has only some of its tags.

    They are written over the page's own, so that all else stays where it is.
    """
    size = struct.calcsize(layout.order + layout.entry)
    tags = [data[entry.position : entry.position + size] for entry in kept]
    count, following = (struct.pack(layout.order + kind, value) for kind, value in _ends(layout, kept))
    written = b"".join([count, *tags, following])
    view = memoryview(data[:])
    return b"".join([view[: page.position], written, view[page.position + len(written) :]])


def _ends(layout: Layout, kept: list[_Entry]) -> list[tuple[str, int]]:
    return [(layout.number, len(kept)), (layout.offset, 0)]


def _why_preview(data: Content, layout: Layout, page: _Page) -> str | None:
    """Why the first page is a preview of another picture in the file; None if it is none."""
    if DNG_VERSION in page.entries:
        return "it is a DNG"
    sub_pages = list(_sub_pages(data, layout, page))
    new_type, old_type = (
        next(_integers(data, layout, page.entries.get(tag)), 0) for tag in (NEW_SUBFILE_TYPE, SUBFILE_TYPE)
    )
    if (new_type & 0b101 or old_type == 2) and (page.following or SUB_PAGES in page.entries):
        return "it says so itself"
    area = _area(data, layout, page)
    if any(_area(data, layout, sub_page) > area for sub_page in sub_pages):
        return "a page below it is larger"
    return None


def _sub_pages(data: Content, layout: Layout, page: _Page) -> Iterator[_Page]:
    """The pages below one, as far as they can be read."""
    for position in _integers(data, layout, page.entries.get(SUB_PAGES)):
        try:
            yield _page(data, layout, position)
        except (struct.error, ImageError):
            continue


def _area(data: Content, layout: Layout, page: _Page) -> int:
    width, height = (next(_integers(data, layout, page.entries.get(tag)), 0) for tag in (WIDTH, HEIGHT))
    return width * height


def _integers(data: Content, layout: Layout, entry: _Entry | None) -> Iterator[int]:
    """The first values of a tag, up to `MAX_SUB_PAGES`; none if it is absent, damaged or no integers."""
    number = _INTEGERS.get(entry.kind) if entry else None
    if entry is None or number is None:
        return
    source, position = data, 0
    size = struct.calcsize(f"={number}")
    if entry.length * size <= len(entry.value):
        source = entry.value
    else:
        (position,) = layout.read(layout.offset, entry.value, 0)
    for index in range(min(entry.length, MAX_SUB_PAGES)):
        try:
            yield layout.read(number, source, position + index * size)[0]
        except struct.error:
            return


def _xmp(data: Content, layout: Layout, page: _Page) -> bytes:
    """The page's XMP packet; empty if there is none."""
    entry = page.entries.get(XMP)
    if entry is None or _SIZES.get(entry.kind) != 1:
        return b""
    if entry.length <= len(entry.value):
        return entry.value
    (position,) = layout.read(layout.offset, entry.value, 0)
    return data[position : position + entry.length]


def _count_pages(data: Content, layout: Layout, first: _Page) -> int:
    """The pages that follow one another, the first included, as far as they can be read."""
    seen = {first.position}
    following: int | None = first.following
    while following and following not in seen and len(seen) < MAX_FRAMES:
        try:
            behind = _following(data, layout, following)
        except struct.error:
            break
        if behind is None:
            break
        seen.add(following)
        following = behind
    return len(seen)


def _following(data: Content, layout: Layout, position: int) -> int | None:
    """The position of the page behind the one at a position, 0 behind the last; None if there is no page."""
    (count,) = layout.read(layout.number, data, position)
    size = struct.calcsize(layout.order + layout.entry)
    first = position + struct.calcsize(layout.order + layout.number)
    # tags are sorted, and only two of a picture's come before its width
    tags = [layout.read("H", data, first + index * size)[0] for index in range(min(count, 3))]
    if count > MAX_TAGS or WIDTH not in tags:
        return None
    return int(layout.read(layout.offset, data, first + count * size)[0])
