"""The primary picture of a HEIC, without what a hostile file could make of the rest (ISO/IEC 23008-12).

libheif reads and decodes it, through pillow-heif, which is an extra. What that would read besides is hidden
from it here: metadata of any number and size, for each picture of the file. And what is put together from
other pictures (a phone's from tiles) is counted before, as each may be named any number of times.
"""

import functools
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from schemas.errors import ErrorCode
from workers.decode.errors import decode_error, ends_early, too_many
from workers.decode.orientation import layout_of, upright
from workers.decode.picture import MAX_FRAMES

NEEDED = (
    "HEIC images are decoded by pillow-heif, which is not installed: pip install 'raylabel[heif]' on every "
    "node, then raylabel retry OUTPUT --code UNSUPPORTED"
)

MAX_TABLES = 2**22
"""Bytes of the box that describes all pictures; a phone's photo has 4,000."""

MAX_ITEMS, MAX_EXTENTS = 1000, 32
"""Pictures, tiles and metadata of a file, and pieces of each; libheif reads no more."""

MAX_METADATA = 2**20
"""Bytes of EXIF that are looked at."""

MAX_DEPTH = 8
"""Pictures made of pictures made of pictures; a phone's photo is made of tiles, and no more."""

MAX_PARTS, SPARE_PARTS = 4, 2**24
"""Pixels that may be decoded for a picture: for each of its own, and besides. A phone's tiles are 1.03."""

MAX_PADDING = 64
"""Pixels more than are shown, which encoders add as they work in blocks."""

_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_HIDDEN = 1
_NO_REFERENCE = b"free"
_IN_FILE = 0


class HeifPicture(NamedTuple):
    """The primary picture of a file.

    Attributes:
        file: the same file, in which the primary picture is the only one, without metadata.
        sizes: width and height of each picture that is decoded for it, before turns, the largest first.
        orientation: that its turns and mirrorings amount to, 1 to 8 as in EXIF; the decoder applies it.
        frames: pictures in the original file, at most `MAX_FRAMES`; thumbnails and depth maps are none.
        exif: its EXIF block; may be empty. Orientation in it does not count.
    """

    file: bytes
    sizes: list[tuple[int, int]]
    orientation: int
    frames: int
    exif: bytes


class _Box(NamedTuple):
    """A box: its type, where that stands, and where its content begins and ends."""

    kind: bytes
    named: int
    start: int
    end: int


@dataclass
class _Item:
    """Something that a file holds: a picture, a tile, metadata.

    Attributes:
        kind: hvc1, grid, Exif, ...
        flags: position of the byte with the flag that hides it.
        extents: where its data lie, from and to; empty where they are not told so.
        properties: indices of its properties, counted from 1, in their order.
    """

    kind: bytes = b""
    flags: int = 0
    extents: list[tuple[int, int]] = field(default_factory=list)
    properties: list[int] = field(default_factory=list)


@dataclass
class _Tables:
    """What a file says of what it holds.

    Attributes:
        primary: the item that is the picture.
        items: by their ids.
        properties: of all items.
        references: for each type the items that an item names, by its id, in their order.
        described: positions of the types of references from metadata to pictures.
    """

    primary: int = 0
    items: dict[int, _Item] = field(default_factory=lambda: defaultdict(_Item))
    properties: list[_Box] = field(default_factory=list)
    references: dict[bytes, dict[int, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    described: list[int] = field(default_factory=list)


@functools.cache
def installed() -> str | None:
    """The versions of pillow-heif and libheif as text; None where HEIC images cannot be decoded.

    To import it makes pillow-heif decode in the thread that asks, without threads for the tiles.
    """
    try:
        import pillow_heif

        version = f"{pillow_heif.__version__}, libheif {pillow_heif.libheif_version()}"
    except (ImportError, OSError):
        return None
    pillow_heif.options.DECODE_THREADS = 0
    return version


def plugin() -> Any:
    """The plugin of Pillow that reads a HEIC.

    Raises:
        ImageError: UNSUPPORTED: it is not installed.
    """
    if installed() is None:
        raise decode_error(ErrorCode.UNSUPPORTED, NEEDED)
    from pillow_heif import HeifImageFile

    return HeifImageFile


def primary_picture(data: bytes) -> HeifPicture:
    """The primary picture of a file.

    Raises:
        ImageError: TRUNCATED: the file ends before the picture's data do. UNSUPPORTED: it has no still
            picture, is damaged, or the picture is put together from so much that it would take long.
    """
    meta = _meta_box(data)
    try:
        tables = _read_tables(data, meta)
        parts = _parts(data, tables)
    except struct.error as error:
        raise _damaged(str(error)) from error
    for item in parts:
        if any(end > len(data) for _, end in tables.items[item].extents):
            raise ends_early("HEIC", "data of its picture lie behind the end")
    shown = _shown(data, tables)
    file = bytearray(data)
    for position in tables.described:
        file[position : position + 4] = _NO_REFERENCE
    for item in shown:
        if item != tables.primary:
            file[tables.items[item].flags] |= _HIDDEN
    return HeifPicture(
        bytes(file),
        sorted(set(parts.values()), key=lambda size: -size[0] * size[1]),
        _orientation(data, tables),
        min(max(len(shown), 1), MAX_FRAMES),
        _exif(data, tables),
    )


def is_padded(coded: tuple[int, int], shown: tuple[int, int]) -> bool:
    """Whether a coded picture is one that is shown, turned perhaps, with what encoders add at its edges."""
    return all(0 <= a - b < MAX_PADDING for a, b in zip(sorted(coded), sorted(shown), strict=True))


def _damaged(what: str) -> Exception:
    return decode_error(ErrorCode.UNSUPPORTED, f"This HEIC file is damaged: {what}.")


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    """The boxes of a part of a file (ISO/IEC 14496-12, 4.2); the last may reach behind it."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, start + 8), 16
        elif size == 0:
            size = end - start
        if size < head:
            raise struct.error(f"a box {kind!r} of {size} bytes")
        yield _Box(kind, start + 4, start + head, start + size)
        start += size


def _meta_box(data: bytes) -> _Box:
    """The box that describes what the file holds."""
    kinds, last = [], 0
    try:
        for box in _boxes(data, 0, len(data)):
            kinds.append(box.kind)
            last = box.end
            if box.kind != b"meta":
                continue
            if box.end > len(data):
                break
            if box.end - box.start > MAX_TABLES:
                raise too_many("HEIC", f"{box.end - box.start:,} bytes of tables", MAX_TABLES)
            return box
    except struct.error as error:
        if not kinds or len(data) < 16:
            raise ends_early("HEIC", "within its first box") from error
        raise _damaged(str(error)) from error
    if last != len(data) or kinds == [b"ftyp"]:
        raise ends_early("HEIC", "before its pictures are described")
    if b"moov" in kinds:
        message = (
            "This HEIC file is a sequence without a still picture, as a video is. Export one of its pictures."
        )
        raise decode_error(ErrorCode.UNSUPPORTED, message)
    raise _damaged("it has no picture")


def _whole(boxes: Iterator[_Box], end: int) -> Iterator[_Box]:
    for box in boxes:
        if box.end > end:
            raise struct.error(f"a box {box.kind!r} is longer than what it is in")
        yield box


def _read_tables(data: bytes, meta: _Box) -> _Tables:
    """Reads the tables; raises struct.error where they are damaged."""
    tables = _Tables()
    for box in _whole(_boxes(data, meta.start + 4, meta.end), meta.end):
        match box.kind:
            case b"pitm":
                (tables.primary,) = _Fields(data, box).take("I" if data[box.start] else "H")
            case b"iinf":
                _read_items(data, box, tables)
            case b"iloc":
                _read_places(data, box, tables)
            case b"iref":
                _read_references(data, box, tables)
            case b"iprp":
                for inner in _whole(_boxes(data, box.start, box.end), box.end):
                    if inner.kind == b"ipco":
                        tables.properties += _whole(_boxes(data, inner.start, inner.end), inner.end)
                    elif inner.kind == b"ipma":
                        _read_properties(data, inner, tables)
    if tables.primary not in tables.items:
        raise struct.error("it has no primary picture")
    return tables


class _Fields:
    """The values of a full box, behind its version and flags, one after the other."""

    def __init__(self, data: bytes, box: _Box) -> None:
        self.version, self.flags = data[box.start], int.from_bytes(data[box.start + 1 : box.start + 4])
        self.position = box.start + 4
        self._data, self._end = data, box.end

    def take(self, kinds: str) -> tuple[Any, ...]:
        """The next values, as `struct` names them."""
        values = struct.unpack_from(f">{kinds}", self._data, self.position)
        self.position += struct.calcsize(f">{kinds}")
        if self.position > self._end:
            raise struct.error("a table is cut")
        return values

    def number(self, size: int) -> int:
        """The next number of so many bytes; 0 of none."""
        if size not in {0, 4, 8}:
            raise struct.error(f"a number of {size} bytes")
        return int(self.take({4: "I", 8: "Q"}[size])[0]) if size else 0


def _assert_few(count: int, what: str, most: int) -> None:
    if count > most:
        raise too_many("HEIC", f"{count:,} {what}", most)


def _read_items(data: bytes, box: _Box, tables: _Tables) -> None:
    head = _Fields(data, box)
    head.take("I" if head.version else "H")
    for entry in _whole(_boxes(data, head.position, box.end), box.end):
        fields = _Fields(data, entry)
        if entry.kind != b"infe" or fields.version < 2:
            continue
        number, _, kind = fields.take("IH4s" if fields.version > 2 else "HH4s")
        tables.items[number].kind, tables.items[number].flags = kind, entry.start + 3
        _assert_few(len(tables.items), "items", MAX_ITEMS)


def _read_places(data: bytes, box: _Box, tables: _Tables) -> None:
    fields = _Fields(data, box)
    (sizes,) = fields.take("H")
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if fields.version else 0
    (count,) = fields.take("I" if fields.version > 1 else "H")
    _assert_few(count, "items", MAX_ITEMS)
    for _ in range(count):
        (number,) = fields.take("I" if fields.version > 1 else "H")
        (method,) = fields.take("H") if fields.version else (_IN_FILE,)
        fields.take("H")
        base = fields.number(base_size)
        _assert_few(len(tables.items), "items", MAX_ITEMS)
        (extents,) = fields.take("H")
        _assert_few(extents, "pieces of an item", MAX_EXTENTS)
        for _ in range(extents):
            fields.number(index_size)
            start = base + fields.number(offset_size)
            length = fields.number(length_size)
            if method & 15 == _IN_FILE:
                tables.items[number].extents.append((start, start + length))


def _read_references(data: bytes, box: _Box, tables: _Tables) -> None:
    wide = data[box.start] > 0
    for entry in _whole(_boxes(data, box.start + 4, box.end), box.end):
        fields = _Fields(data, entry._replace(start=entry.start - 4))  # it has no version of its own
        source, count = fields.take("IH" if wide else "HH")
        tables.references[entry.kind][source] += fields.take(f"{count}{'I' if wide else 'H'}")
        if entry.kind == b"cdsc":
            tables.described.append(entry.named)


def _read_properties(data: bytes, box: _Box, tables: _Tables) -> None:
    fields = _Fields(data, box)
    (count,) = fields.take("I")
    for _ in range(count):
        number, properties = fields.take("IB" if fields.version else "HB")
        found = fields.take(f"{properties}{'H' if fields.flags & 1 else 'B'}")
        _assert_few(len(tables.items), "items", MAX_ITEMS)
        tables.items[number].properties += [index & (0x7FFF if fields.flags & 1 else 0x7F) for index in found]


def _properties(tables: _Tables, item: int) -> Iterator[_Box]:
    """The properties of an item, in their order."""
    for index in tables.items[item].properties:
        if 1 <= index <= len(tables.properties):
            yield tables.properties[index - 1]


def _size(data: bytes, tables: _Tables, item: int) -> tuple[int, int] | None:
    """Width and height of a picture, before turns and crops; None of what is none."""
    for box in _properties(tables, item):
        if box.kind == b"ispe":
            width, height = _Fields(data, box).take("II")
            return width, height
    return None


def _shown(data: bytes, tables: _Tables) -> list[int]:
    """The pictures of the file: not hidden, and no thumbnail or map of another one."""
    below = {item for kind in (b"thmb", b"auxl") for item in tables.references[kind]}
    shown = (n for n, item in tables.items.items() if item.flags and not data[item.flags] & _HIDDEN)
    return [number for number in [*shown] if number not in below and _size(data, tables, number)]


def _parts(data: bytes, tables: _Tables) -> dict[int, tuple[int, int]]:
    """The size of each picture that is decoded for the primary one, that itself included.

    Raises:
        struct.error: one has no size, is a part of itself, or is too deep below it.
        ImageError: UNSUPPORTED: their pixels together, each as often as it is named, are too many.
    """
    sizes: dict[int, tuple[int, int]] = {}
    pixels: dict[int, int] = {}

    def work(item: int, depth: int) -> int:
        if item in pixels:
            return pixels[item]
        size = _size(data, tables, item)
        if size is None or not size[0] * size[1]:
            raise struct.error(f"picture {item} has no size")
        if depth > MAX_DEPTH:
            raise struct.error("it is put together from pictures that are put together, too often")
        sizes[item] = size
        inner = sum(work(part, depth + 1) for part in tables.references[b"dimg"].get(item, ()))
        pixels[item] = size[0] * size[1] + inner
        return pixels[item]

    primary = tables.primary
    total = work(primary, 0) + sum(work(item, 1) for item in _alphas(data, tables))
    own = sizes[primary][0] * sizes[primary][1]
    if total > own + (most := MAX_PARTS * own + SPARE_PARTS):
        raise too_many("HEIC", f"{total - own:,} pixels in the pictures that it is put together from", most)
    return sizes


def _alphas(data: bytes, tables: _Tables) -> Iterator[int]:
    """The pictures that are the transparency of the primary one."""
    for item, masters in tables.references[b"auxl"].items():
        kinds = [data[box.start + 4 : box.end] for box in _properties(tables, item) if box.kind == b"auxC"]
        if tables.primary in masters and any(kind.startswith(_ALPHA) for kind in kinds):
            yield item


def _orientation(data: bytes, tables: _Tables) -> int:
    """The EXIF orientation that the picture's turns and mirrorings (irot, imir) amount to."""
    corners = np.arange(4, dtype=np.uint8).reshape(2, 2)
    turned = corners
    for box in _properties(tables, tables.primary):
        if box.start >= box.end:
            continue
        if box.kind == b"irot":
            turned = np.rot90(turned, data[box.start] & 3)
        elif box.kind == b"imir":
            turned = turned[:, ::-1] if data[box.start] & 1 else turned[::-1]
    return next(n for n in range(1, 9) if np.array_equal(upright(corners, n), turned))


def _exif(data: bytes, tables: _Tables) -> bytes:
    """The EXIF block of the primary picture; empty if there is none, or it is large."""
    for item, described in tables.references[b"cdsc"].items():
        extents = tables.items[item].extents
        size = sum(end - start for start, end in extents)
        if tables.items[item].kind == b"Exif" and tables.primary in described and 8 < size <= MAX_METADATA:
            block = b"".join(data[start:end] for start, end in extents)
            behind = block[4 + int.from_bytes(block[:4]) :]  # it begins with the position of the TIFF in it
            return behind if layout_of(behind) else block[4:]
    return b""
