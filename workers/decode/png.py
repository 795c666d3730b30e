"""The first picture of a PNG, without the chunks that it does not need (PNG specification, 3rd edition).

Pillow refuses a whole picture for compressed text that is large, or for a wrong checksum of text.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from schemas.errors import ErrorCode
from workers.decode.errors import decode_error, ends_early, too_many
from workers.decode.orientation import orientation_of
from workers.decode.picture import MAX_FRAMES, Picture

MAX_CHUNKS = 500_000
"""Of a file; libpng writes one for 8 KB of pixels."""

MAX_METADATA = 2**20
"""Bytes of a chunk, compressed or not, in which an orientation is looked for."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS"})
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_CHUNK_NAME = re.compile(rb"[A-Za-z]{4}")


class _Chunk(NamedTuple):
    """A chunk: its name, its content (the last one's may be cut), and all of it where it may be kept."""

    name: bytes
    content: memoryview
    whole: bytes


def first_picture(data: bytes) -> Picture:
    """The first picture of a PNG: header, palette, transparency and pixels.

    Raises:
        ImageError: TRUNCATED: it ends before any pixels. UNSUPPORTED: it is damaged before them, or has more
            than `MAX_CHUNKS` chunks.
    """
    kept: dict[bytes, bytes] = {}
    pixels: list[memoryview] = []
    metadata: list[_Chunk] = []
    frames, default_image, is_cut = 0, True, True
    for chunk in _chunks(data):
        match chunk.name:
            case b"IEND":
                is_cut = False
            case b"IDAT":
                pixels.append(chunk.content)
            case _ if chunk.name in _KEPT and not pixels and _is_sound(chunk):
                kept.setdefault(chunk.name, chunk.whole)
            case b"acTL" if not pixels and len(chunk.content) >= 4:
                frames = int.from_bytes(chunk.content[:4])
            case b"fcTL" if not pixels:
                default_image = False
            case b"eXIf" | b"tEXt" | b"zTXt" | b"iTXt" if len(chunk.content) <= MAX_METADATA:
                metadata.append(chunk)
    if not pixels:
        missing = "it has no pixels"
        raise (
            ends_early("PNG", missing)
            if is_cut
            else decode_error(ErrorCode.UNSUPPORTED, f"This PNG file is damaged: {missing}.")
        )
    body = b"".join(pixels)
    file = b"".join([SIGNATURE, *kept.values(), struct.pack(">I", len(body)), b"IDAT", body, bytes(4), _END])
    frames = frames + default_image if frames else 1
    return Picture(file, _orientation(metadata), min(frames, MAX_FRAMES), is_cut)


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


def _orientation(metadata: list[_Chunk]) -> int:
    """The orientation that a PNG's EXIF chunk, its text with EXIF, or its XMP tells; the first of each."""
    exif: dict[bool, bytes] = {}
    xmp = b""
    for chunk in metadata:
        if chunk.name == b"eXIf":
            exif.setdefault(True, bytes(chunk.content))
            continue
        keyword = bytes(chunk.content[:80]).partition(b"\0")[0]
        text = bytes(chunk.content[len(keyword) + 1 :])
        if keyword == b"Raw profile type exif":
            exif.setdefault(False, _hexadecimal(_text(chunk.name, text)))
        elif keyword == b"XML:com.adobe.xmp":
            xmp = xmp or _text(chunk.name, text)
    return orientation_of(exif.get(True) or exif.get(False) or b"", xmp)


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
