"""A large TIFF in bands: small TIFFs of some of its rows each, so that it is never decoded as a whole.

Strips and tiles of a TIFF are compressed one by one (TIFF 6.0, sections 3 and 15), so a file that has some of
them and the page's other tags is a picture of those rows, and Pillow decodes it to the same pixels.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from schemas.images import Content
from workers.decode.errors import ends_early
from workers.decode.orientation import Layout

MIN_PIXELS = 2**24
"""Of a picture that is decoded in bands; a smaller one is decoded as a whole."""

BAND_PIXELS = 2**20
"""Of a band, or more where a strip or a row of tiles has more."""

MIN_BANDS = 16
"""Of a picture whose bands are larger: then a band takes little beside the picture."""

WIDTH, HEIGHT, BITS, COMPRESSION, SAMPLES, PLANES = 256, 257, 258, 259, 277, 284
STRIP_OFFSETS, STRIP_ROWS, STRIP_SIZES = 273, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES = 322, 323, 324, 325

UNCOMPRESSED = 1
_COMPRESSIONS = frozenset({UNCOMPRESSED, 5, 7, 8, 32_773, 32_946, 50_000})
"""None, LZW, JPEG, deflate, PackBits, deflate's old number, zstd: strips and tiles need nothing else."""

LONG, LONG8 = 4, 16
"""Types of values: 4 and 8 bytes."""


class Tag(NamedTuple):
    """A tag of a page: its type, the number of its values, and their bytes, in the file's order."""

    kind: int
    length: int
    values: bytes


class Chunk(NamedTuple):
    """Where a strip or a tile lies in the file."""

    offset: int
    size: int


@dataclass(frozen=True)
class Bands:
    """A page that can be decoded in bands.

    Attributes:
        data: the whole file.
        layout: of its numbers.
        tags: of the page, by number.
        width: of the picture, pixels.
        height: of the picture, pixels.
        rows: of the picture in a strip or a row of tiles; fewer in the last one.
        chunks: the strips or tiles.
        across: of these side by side; 1 for strips.
        is_tiled: whether they are tiles.
    """

    data: Content
    layout: Layout
    tags: Mapping[int, Tag]
    width: int
    height: int
    rows: int
    chunks: tuple[Chunk, ...]
    across: int
    is_tiled: bool

    def files(self) -> Iterator[tuple[int, int, bytes]]:
        """The first row of each band, the one behind its last, and a TIFF of these.

        Raises:
            ImageError: TRUNCATED: a strip or a tile lies behind the end.
        """
        together = max(1, BAND_PIXELS // (self.rows * self.width))
        for first in range(0, len(self.chunks) // self.across, together):
            chunks = self.chunks[first * self.across : (first + together) * self.across]
            top, bottom = first * self.rows, min((first + together) * self.rows, self.height)
            yield top, bottom, self._file(bottom - top, chunks)

    def _file(self, rows: int, chunks: tuple[Chunk, ...]) -> bytes:
        """A TIFF of some chunks; not a BigTIFF, as it is small."""
        order = self.layout.order
        offsets, sizes = (TILE_OFFSETS, TILE_SIZES) if self.is_tiled else (STRIP_OFFSETS, STRIP_SIZES)
        own = self.tags.keys() - {offsets, sizes}
        tags = {number: _as_longs(self.layout, self.tags[number]) for number in own}
        tags[HEIGHT] = _longs(order, [rows])
        tags[sizes] = _longs(order, [chunk.size for chunk in chunks])
        if not self.is_tiled:
            tags[STRIP_ROWS] = _longs(order, [self.rows])
        tags[offsets] = _longs(order, [0] * len(chunks))  # they follow from the size of the page
        start = len(_page(order, tags))
        tags[offsets] = _longs(order, [*accumulate((chunk.size for chunk in chunks[:-1]), initial=start)])
        return b"".join([_page(order, tags), *map(self._bytes, chunks)])

    def _bytes(self, chunk: Chunk) -> bytes:
        end = chunk.offset + chunk.size
        if end > len(self.data):
            raise ends_early("TIFF", f"strips or tiles up to byte {end:,} of {len(self.data):,}")
        return self.data[chunk.offset : end]


def bands_of(data: Content, layout: Layout, tags: Mapping[int, Tag]) -> Bands | None:
    """A page's bands; None where it is small, or cannot be decoded in them, or its tags are damaged.

    Args:
        data: the whole file.
        layout: of its numbers.
        tags: what a decoder reads of the page, by number.
    """

    def numbers(tag: int) -> list[int]:
        return _integers(layout, tags[tag]) if tag in tags else []

    def number(tag: int, default: int) -> int:
        return next(iter(numbers(tag)), default)

    width, height = number(WIDTH, 0), number(HEIGHT, 0)
    samples = number(SAMPLES, 1)
    has_planes = samples > 1 and number(PLANES, 1) != 1
    if width * height < MIN_PIXELS or number(COMPRESSION, 1) not in _COMPRESSIONS or has_planes:
        return None
    is_tiled = TILE_OFFSETS in tags
    if is_tiled:
        chunks = list(map(Chunk, numbers(TILE_OFFSETS), numbers(TILE_SIZES)))
        rows, across = number(TILE_HEIGHT, 0), -(-width // max(number(TILE_WIDTH, 0), 1))
    else:
        chunks = list(map(Chunk, numbers(STRIP_OFFSETS), numbers(STRIP_SIZES)))
        rows, across = min(number(STRIP_ROWS, height), height), 1
        bits = numbers(BITS) or [1]
        if len(chunks) == 1 and number(COMPRESSION, 1) == UNCOMPRESSED:
            rows, chunks = _rows_of(chunks[0], height, -(-width * sum(bits) // 8), BAND_PIXELS // width or 1)
    if not rows or len(chunks) != -(-height // rows) * across:
        return None
    if rows * width > max(BAND_PIXELS, width * height // MIN_BANDS):
        return None
    return Bands(data, layout, tags, width, height, rows, tuple(chunks), across, is_tiled)


def _rows_of(strip: Chunk, height: int, row_size: int, rows: int) -> tuple[int, list[Chunk]]:
    """One strip that is not compressed as several of so many rows; no rows where its size is another."""
    if strip.size != height * row_size:
        return 0, []
    counts = [min(rows, height - top) for top in range(0, height, rows)]
    tops = range(0, height, rows)
    return rows, [
        Chunk(strip.offset + top * row_size, count * row_size)
        for top, count in zip(tops, counts, strict=True)
    ]


_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


def _integers(layout: Layout, tag: Tag) -> list[int]:
    """The values of a tag; none if they are no integers."""
    kind = _INTEGERS.get(tag.kind)
    if kind is None or len(tag.values) != tag.length * struct.calcsize(f"={kind}"):
        return []
    return list(struct.unpack(f"{layout.order}{tag.length}{kind}", tag.values))


def _longs(order: str, values: Sequence[int]) -> Tag:
    """A tag with some values."""
    return Tag(LONG, len(values), struct.pack(f"{order}{len(values)}I", *values))


def _as_longs(layout: Layout, tag: Tag) -> Tag:
    """A tag whose values have up to 4 bytes; those of 8 are numbers of a picture that is in memory."""
    return _longs(layout.order, _integers(layout, tag)) if tag.kind == LONG8 else tag


def _page(order: str, tags: Mapping[int, Tag]) -> bytes:
    """The start of a TIFF: its header, its only directory, and the values that do not fit into that."""
    mark = b"II" if order == "<" else b"MM"
    entries, values = [mark, struct.pack(order + "HIH", 42, 8, len(tags))], b""
    behind = 8 + 2 + 12 * len(tags) + 4
    for number, tag in sorted(tags.items()):
        value = tag.values
        if len(value) > 4:
            value = struct.pack(order + "I", behind + len(values))
            values += tag.values + b"\0" * (len(tag.values) % 2)
        entries.append(struct.pack(order + "HHI4s", number, tag.kind, tag.length, value))
    return b"".join([*entries, struct.pack(order + "I", 0), values])
