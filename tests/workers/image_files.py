"""Image files made on the fly, for tests: real bytes by real encoders."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared"


def picture(width: int = 83, height: int = 61, mode: str = "RGB") -> Image.Image:
    """A picture with smooth parts, edges and noise; no symmetry, so that a wrong orientation shows."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 60, (height, width))
    channels = [x * 190 // width + noise, y * 255 // height, (x > width // 3) * 200 + noise // 2]
    return Image.fromarray(np.stack(channels, 2).astype(np.uint8)).convert(mode)


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


QUICKLY = {"preset": "ultrafast"}
"""How x265 encodes in tests."""


def heic(image: Image.Image, **options: Any) -> bytes:
    """A HEIC by x265. With an EXIF orientation in `info` it is stored turned, with the boxes that undo it."""
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **{"enc_params": QUICKLY, **options})
    return file.getvalue()


def deep_heic(mode: str, values: NDArray[np.uint16], **options: Any) -> bytes:
    """A HEIC of 10 bits, or of 12 by `bit_depth`.

    Args:
        mode: "L;16", "RGB;16" or "RGBA;16".
        values: (height, width) or (height, width, channels), of 16 bits, of which the upper ones are kept.
        options: of pillow-heif.
    """
    import pillow_heif

    file = io.BytesIO()
    size = (values.shape[1], values.shape[0])
    pillow_heif.encode(mode, size, values.tobytes(), file, **{"enc_params": QUICKLY, **options})
    return file.getvalue()


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    """What Pillow alone makes of a file."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def exif(orientation: object) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(  # the encoder is zlib: Pillow cannot write these
    compressed: bytes, width: int, height: int, *, bits: int, colour: int, chunks: bytes = b""
) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + png_chunk(b"IDAT", compressed) + png_chunk(b"IEND", b"")


def png_bomb(width: int, height: int) -> bytes:
    """A whole 1-bit black PNG of a few hundred bytes a megapixel."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    compressed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png(compressed, width, height, bits=1, colour=0)


def tiff_12_bit(packed: bytes, width: int) -> bytes:
    """One row of a grey TIFF of 12 bits a sample."""
    values = [
        (256, 3, width),
        (257, 3, 1),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (278, 3, 1),
        (279, 4, len(packed)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in values)
    head = b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4)
    return head.ljust(200, b"\0") + packed
