import io
import itertools
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from schemas.errors import ErrorCode
from tests.workers.decode.checks import decoded, fails
from tests.workers.image_files import encode, exif, picture
from workers.decode import bands
from workers.decode.decode import decode
from workers.decode.orientation import layout_of
from workers.decode.tiff import first_picture


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures are decoded in bands too, of a few rows each."""
    monkeypatch.setattr(bands, "MIN_PIXELS", 1)
    monkeypatch.setattr(bands, "BAND_PIXELS", 900)
    monkeypatch.setattr(bands, "MIN_BANDS", 2)
    monkeypatch.setattr(TiffImagePlugin, "STRIP_SIZE", 700)


def whole(data: bytes) -> np.ndarray:
    """The pixels of a TIFF that is not decoded in bands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "MIN_PIXELS", 2**40)
        return decoded(data).pixels


def tiff(
    image: Image.Image,
    chunk: tuple[int, int],
    *,
    compression: int = 1,
    tiled: bool = True,
    order: str = "<",
    big: bool = False,
) -> bytes:
    """A TIFF in tiles, or strips, of so many columns and rows; Pillow writes none in tiles."""
    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    height, width, samples = pixels.shape
    columns, rows = chunk if tiled else (width, chunk[1])
    pieces = []
    for top, left in itertools.product(range(0, height, rows), range(0, width, columns)):
        piece = pixels[top : top + rows, left : left + columns]
        if tiled:
            piece = np.pad(piece, ((0, rows - piece.shape[0]), (0, columns - piece.shape[1]), (0, 0)))
        raw = np.ascontiguousarray(piece).tobytes()
        if compression == 7:
            raw = encode(Image.fromarray(piece.squeeze()), "JPEG", quality=90, subsampling=0)
        pieces.append(zlib.compress(raw, 1) if compression == 8 else raw)
    colour = 1 if samples == 1 else 6 if compression == 7 else 2
    start = 16 if big else 8
    offsets = list(itertools.accumulate(map(len, pieces[:-1]), initial=start))
    kind, number, room = (16, "Q", 8) if big else (4, "I", 4)
    tags = {
        256: [width],
        257: [height],
        258: [8] * samples,
        259: [compression],
        262: [colour],
        277: [samples],
    }
    if tiled:
        tags |= {322: [columns], 323: [rows], 324: offsets, 325: [*map(len, pieces)]}
    else:
        tags |= {273: offsets, 278: [rows], 279: [*map(len, pieces)]}
    if samples == 4:
        tags[338] = [2]
    body = b"".join(pieces) + b"\0" * (sum(map(len, pieces)) % 2)
    page = start + len(body)
    values, entries = b"", b""
    behind = page + (8 if big else 2) + len(tags) * (20 if big else 12) + room
    for tag, numbers in sorted(tags.items()):
        short = 258 <= tag <= 277 and tag != 273
        packed = struct.pack(f"{order}{len(numbers)}{'H' if short else number}", *numbers)
        if len(packed) > room:
            place = struct.pack(order + number, behind + len(values))
            values += packed
            packed = place
        entries += struct.pack(order + "HH" + number, tag, 3 if short else kind, len(numbers)) + packed.ljust(
            room, b"\0"
        )
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, page) if big else struct.pack(order + "HI", 42, page)
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    return mark + head + body + count + entries + struct.pack(order + number, 0) + values


def count_bands(data: bytes) -> int:
    found = first_picture(data).bands
    return len(list(found.files())) if found else 0


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    "compression", [None, "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "jpeg", "packbits", "zstd"]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "1", "I;16", "LA"])
def test_a_picture_in_strips_has_the_same_pixels_in_bands(
    mode: str, compression: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compression == "jpeg" and mode not in ("RGB", "L"):
        pytest.skip("libtiff writes no such JPEG")
    if mode == "1":
        monkeypatch.setattr(TiffImagePlugin, "STRIP_SIZE", 100)
    image = picture(mode="L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    data = encode(image, "TIFF", **({"compression": compression} if compression else {}))
    assert count_bands(data) > 2
    np.testing.assert_array_equal(decoded(data).pixels, whole(data))
    assert decoded(data).source_mode == Image.open(io.BytesIO(data)).mode


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 7, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_picture_in_tiles_has_the_same_pixels_in_bands(
    mode: str, compression: int, order: str, big: bool
) -> None:
    if compression == 7 and mode == "RGBA":
        pytest.skip("a JPEG has no alpha")
    data = tiff(picture(mode=mode), (32, 16), compression=compression, order=order, big=big)
    assert layout_of(data) is not None
    assert count_bands(data) == 4
    if not (big and order == ">"):  # Pillow reads no such file, but these of it
        np.testing.assert_array_equal(decoded(data).pixels, whole(data))
    elif compression != 7 and mode != "RGBA":
        np.testing.assert_array_equal(decoded(data).pixels, np.asarray(picture(mode=mode).convert("RGB")))


@pytest.mark.usefixtures("_small")
def test_one_strip_is_cut_where_it_is_not_compressed_and_else_decoded_as_a_whole() -> None:
    plain = tiff(picture(), (0, 61), tiled=False)
    assert count_bands(plain) == 7
    np.testing.assert_array_equal(decoded(plain).pixels, np.asarray(picture()))
    packed = tiff(picture(), (0, 61), tiled=False, compression=8)
    assert count_bands(packed) == 0
    np.testing.assert_array_equal(decoded(packed).pixels, np.asarray(picture()))


@pytest.mark.usefixtures("_small")
def test_a_turned_picture_is_upright_and_its_pages_are_counted() -> None:
    data = encode(picture(), "TIFF", compression="tiff_lzw", exif=exif(6))
    assert count_bands(data) > 2
    np.testing.assert_array_equal(decoded(data).pixels, np.rot90(np.asarray(picture()), -1))
    several = encode(picture(), "TIFF", save_all=True, append_images=[picture()] * 2)
    assert decoded(several).frame_count == 3


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("missing", [1, 700, 1_536])
@pytest.mark.parametrize("compression", [1, 8])
def test_a_picture_whose_last_tile_lies_behind_the_end_is_truncated(compression: int, missing: int) -> None:
    data = bytearray(tiff(picture(), (32, 16), compression=compression))
    (page,) = struct.unpack_from("<I", data, 4)
    (offsets,) = struct.unpack_from("<I", data, data.index(struct.pack("<HHI", 324, 4, 12), page) + 8)
    (sizes,) = struct.unpack_from("<I", data, data.index(struct.pack("<HHI", 325, 4, 12), page) + 8)
    (size,) = struct.unpack_from("<I", data, sizes + 4 * 11)
    struct.pack_into("<I", data, offsets + 4 * 11, len(data) - max(size - missing, 0))
    error = fails(bytes(data))
    assert error.code == ErrorCode.TRUNCATED
    assert f"strips or tiles up to byte {len(data) + min(missing, size):,} of {len(data):,}" in error.message


@pytest.mark.usefixtures("_small")
def test_damage_within_a_strip_fails_as_it_does_as_a_whole() -> None:
    data = bytearray(tiff(picture(), (32, 16), compression=8))
    data[8:10] = b"??"  # of the first tile's deflate
    error = fails(bytes(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "MIN_PIXELS", 2**40)
        assert (error.code, error.message) == (fails(bytes(data)).code, fails(bytes(data)).message)


PEAK = """
import sys
from pathlib import Path
from workers.decode.decode import decode
data = Path(sys.argv[1]).read_bytes()
decode(Path(sys.argv[2]).read_bytes(), max_pixels=10**9)
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = kilobytes("VmRSS")
image = decode(data, max_pixels=10**9, memory=4 * 4_200 * 4_200)
print((kilobytes("VmHWM") - before) * 1024 / (image.width * image.height))
"""


@pytest.mark.parametrize("tiled", [True, False])
def test_a_large_picture_takes_little_more_memory_than_its_pixels(tiled: bool, tmp_path: Path) -> None:
    pixels = np.tile(np.asarray(picture()), (70, 52, 1))[:4200, :4200]
    (tmp_path / "large.tif").write_bytes(
        tiff(Image.fromarray(pixels), (256, 256 if tiled else 10), tiled=tiled, compression=8)
    )
    (tmp_path / "small.tif").write_bytes(tiff(picture(), (32, 16)))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path / "large.tif", tmp_path / "small.tif"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=True,
    )
    assert 2.9 < float(done.stdout) < 4


def test_a_small_picture_is_decoded_as_a_whole() -> None:
    assert count_bands(encode(picture(), "TIFF")) == 0
    assert decode(encode(picture(), "TIFF"), max_pixels=10**6).width == 83
