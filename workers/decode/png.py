"""The first picture of a PNG, without the chunks that it does not need (PNG specification, 3rd edition).

Pillow refuses a whole picture for compressed text that is large, or for a wrong checksum of text.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from schemas.errors import ErrorCode
from workers.decode.errors import decode_error, ends_early, too_many
from workers.decode.orientation import orientation_of
from workers.decode.picture import MAX_FRAMES, Picture

MAX_CHUNKS = 500_000
"""Of a file; libpng writes one for 8 KB of pixels."""

MAX_METADATA = 2**20
"""Bytes of a chunk, compressed or not, in which an orientation is looked for."""

MAX_TEXTS = 8
"""With the same keyword that are looked at, whether they are damaged or not."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS"})
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_CHUNK_NAME = re.compile(rb"[A-Za-z]{4}")


class _Chunk(NamedTuple):
    """A chunk: its name, its content (the last one's may be cut), and all of it where it may be kept."""

    name: bytes
    content: memoryview
    whole: bytes


@dataclass
class _Parts:
    """What a picture is made of, as its chunks are taken one by one."""

    kept: dict[bytes, bytes] = field(default_factory=dict)
    pixels: list[memoryview] = field(default_factory=list)
    metadata: list[_Chunk] = field(default_factory=list)
    animation_frames: int = 0
    is_default_image_extra: bool = True
    is_cut: bool = True

    def take(self, chunk: _Chunk) -> None:
        match chunk.name:
            case b"IEND":
                self.is_cut = False
            case b"IDAT":
                self.pixels.append(chunk.content)
            case _ if chunk.name in _KEPT and not self.pixels and _is_sound(chunk):
                self.kept.setdefault(chunk.name, chunk.whole)
            case b"acTL" if not self.pixels and len(chunk.content) >= 4:
                self.animation_frames = int.from_bytes(chunk.content[:4])
            case b"fcTL" if not self.pixels:
                self.is_default_image_extra = False
            case b"eXIf" | b"tEXt" | b"zTXt" | b"iTXt" if len(chunk.content) <= MAX_METADATA:
                self.metadata.append(chunk)

    @property
    def frames(self) -> int:
        frames = self.animation_frames
        return min(frames + self.is_default_image_extra, MAX_FRAMES) if frames else 1


def first_picture(data: bytes) -> Picture:
    """The first picture of a PNG: header, palette, transparency and pixels.

    Raises:
        ImageError: TRUNCATED: it ends before any pixels. UNSUPPORTED: it is damaged before them, or has more
            than `MAX_CHUNKS` chunks.
    """
    parts = _Parts()
    for chunk in _chunks(data):
        parts.take(chunk)
    if not parts.pixels:
        missing = "it has no pixels"
        if parts.is_cut:
            raise ends_early("PNG", missing)
        raise decode_error(ErrorCode.UNSUPPORTED, f"This PNG file is damaged: {missing}.")
    size = struct.pack(">I", sum(map(len, parts.pixels)))
    file = b"".join([SIGNATURE, *parts.kept.values(), size, b"IDAT", *parts.pixels, bytes(4), _END])
    exif, xmp = _metadata(parts.metadata)
    return Picture(file, orientation_of(exif, xmp), parts.frames, parts.is_cut, exif)


def _is_sound(chunk: _Chunk) -> bool:
    """Whether a chunk counts: as in libpng, an ancillary one with a wrong checksum does not."""
    return chunk.name[:1].isupper() or int.from_bytes(chunk.whole[-4:]) == zlib.crc32(chunk.whole[4:-4])


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The chunks up to the end of the picture; what follows the pixels may be damaged."""
    view = memoryview(data)
    position, count, seen_pixels = len(SIGNATURE), 0, False
    while position + 8 <= len(data):
        length, name = int.from_bytes(view[position : position + 4]), data[position + 4 : position + 8]
        end = position + 8 + length
        if not _CHUNK_NAME.fullmatch(name):
            if seen_pixels:
                return
            raise decode_error(ErrorCode.UNSUPPORTED, f"This PNG file is damaged: it has a chunk {name!r}.")
        if end > len(data) and name != b"IDAT":
            return
        whole = data[position : end + 4] if name in _KEPT else b""
        yield _Chunk(name, view[position + 8 : end], whole)
        seen_pixels = seen_pixels or name == b"IDAT"
        if name == b"IEND":
            return
        position, count = end + 4, count + 1
        if count > MAX_CHUNKS:
            raise too_many("PNG", f"over {MAX_CHUNKS:,} chunks", MAX_CHUNKS)


def _metadata(metadata: list[_Chunk]) -> tuple[bytes, bytes]:
    """EXIF, of a PNG's chunk or its text, and XMP, each the first; empty if there is none."""
    exif = next((bytes(chunk.content) for chunk in metadata if chunk.name == b"eXIf"), b"")
    if not exif:
        texts = _texts(metadata, b"Raw profile type exif")
        exif = next(filter(None, map(_hexadecimal, texts)), b"")
    return exif, next(filter(None, _texts(metadata, b"XML:com.adobe.xmp")), b"")


def _texts(metadata: list[_Chunk], keyword: bytes) -> Iterator[bytes]:
    """The first texts with a keyword, up to `MAX_TEXTS`; empty ones for those that are damaged."""
    start = keyword + b"\0"
    named = (chunk for chunk in metadata if chunk.content[: len(start)] == start)
    for chunk in islice(named, MAX_TEXTS):
        yield _text(chunk.name, bytes(chunk.content[len(start) :]))


def _text(name: bytes, content: bytes) -> bytes:
    """The text behind a keyword, unpacked; empty if it is damaged or larger than `MAX_METADATA`."""
    compressed = name == b"zTXt"
    if name == b"iTXt":  # flag, method, language and translated keyword come first
        compressed, content = content[:1] == b"\1", content[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif compressed:
        content = content[1:]
    if not compressed:
        return content
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(content, MAX_METADATA)
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else text


def _hexadecimal(text: bytes) -> bytes:
    """The bytes of an ImageMagick profile: lines with its name and length, then hexadecimal digits."""
    try:
        return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
    except ValueError:
        return b""
