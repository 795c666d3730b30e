import os
import resource
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage
from tests.workers.decode.checks import MAX_PIXELS, fails, same
from tests.workers.image_files import (
    SHARED,
    by_pillow,
    deep_heic,
    encode,
    exif,
    heic,
    picture,
    png,
    png_bomb,
    png_chunk,
    tiff_12_bit,
)
from workers.decode import decode as module
from workers.decode.decode import _BYTES_A_PIXEL, decode

PHOTOS = sorted(path for folder in ("eval", "photos") for path in (SHARED / folder).rglob("*.jp*g"))

FILES = {
    "AVIF": encode(picture(), "AVIF"),
    "BMP": encode(picture(), "BMP"),
    "GIF": encode(picture(mode="P"), "GIF"),
    "HEIC": heic(picture()),
    "JPEG": encode(picture(), "JPEG", exif=exif(6)),
    "JPEG2000": encode(picture(), "JPEG2000"),
    "PNG": encode(picture(), "PNG"),
    "PPM": encode(picture(), "PPM"),
    "TIFF": encode(picture(), "TIFF"),
    "TIFF deflate": encode(picture(), "TIFF", compression="tiff_deflate"),
    "TIFF lzw": encode(picture(), "TIFF", compression="tiff_lzw"),
    "TIFF jpeg": encode(picture(), "TIFF", compression="jpeg"),
    "WEBP": encode(picture(), "WEBP"),
    "WEBP lossless": encode(picture(), "WEBP", lossless=True),
}
TURNS = {  # what undoes each EXIF orientation (Exif 2.32, 4.6.4, tag 274)
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
JPEG_OPTIONS = [
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"subsampling": "4:2:0"},
    {"optimize": True, "quality": 95},
    {"progressive": True},
    {"progressive": True, "restart_marker_blocks": 3},
    {"restart_marker_blocks": 3},
    {"keep_rgb": True},
]


def greys(data: bytes) -> list[int]:
    pixels = decode(data, max_pixels=MAX_PIXELS).pixels
    assert (pixels == pixels[:, :, :1]).all()
    found: list[int] = pixels[0, :, 0].tolist()
    return found


@pytest.mark.parametrize("size", [(83, 61), (16, 16), (1, 1), (7, 250)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEG_OPTIONS, ids=str)
def test_a_jpeg_equals_pillow_bit_for_bit(options: dict[str, Any], mode: str, size: tuple[int, int]) -> None:
    if mode != "RGB":
        options = {key: value for key, value in options.items() if key != "keep_rgb"}
    data = encode(picture(*size, mode=mode), "JPEG", **options)
    same(decode(data, max_pixels=MAX_PIXELS), DecodedImage(by_pillow(data), "JPEG", 1, mode, 1))


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
def test_a_jpeg_of_another_encoder_equals_pillow(subsampling: str) -> None:
    image = np.array(picture(mode="L"))[:, :, None] if subsampling == "Gray" else np.array(picture())
    colours = "GRAY" if subsampling == "Gray" else "RGB"
    data = simplejpeg.encode_jpeg(image, colorspace=colours, colorsubsampling=subsampling)
    mode = "L" if subsampling == "Gray" else "RGB"
    same(decode(data, max_pixels=MAX_PIXELS), DecodedImage(by_pillow(data), "JPEG", 1, mode, 1))


@pytest.mark.skipif(not PHOTOS, reason="the shared photos are not here")
def test_every_shared_photo_equals_pillow_bit_for_bit() -> None:
    for path in PHOTOS:
        data = path.read_bytes()
        with Image.open(path) as image:
            mode, orientation = image.mode, image.getexif().get(0x0112, 1)
            upright = np.array(ImageOps.exif_transpose(image).convert("RGB"))
        same(decode(data, max_pixels=MAX_PIXELS), DecodedImage(upright, "JPEG", orientation, mode, 1))


def test_a_12_megapixel_photo_decodes() -> None:
    data = encode(picture(400, 300).resize((4000, 3000)), "JPEG", exif=exif(6))
    got = decode(data, max_pixels=12_000_000)
    assert (got.width, got.height, got.exif_orientation) == (3000, 4000, 6)
    np.testing.assert_array_equal(got.pixels, np.rot90(by_pillow(data), -1))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEG_OPTIONS[1:7], ids=str)
def test_a_jpeg_cut_anywhere_is_truncated_never_half_grey(options: dict[str, Any], mode: str) -> None:
    data = encode(picture(41, 33, mode=mode), "JPEG", **options)
    for end in range(3, len(data), 3):
        assert fails(data[:end]).code == ErrorCode.TRUNCATED
    # The last two bytes of scan data may be padding: a picture that lacks nothing is a picture.
    for end in range(data.index(b"\xff\xdb"), len(data) - 4, 3):
        assert fails(data[:end] + b"\xff\xd9").code == ErrorCode.TRUNCATED


@pytest.mark.parametrize("options", JPEG_OPTIONS[2:7], ids=str)
def test_a_warning_before_the_cut_does_not_hide_it(options: dict[str, Any]) -> None:
    data = encode(picture(41, 33), "JPEG", **options)
    odd = data[:20] + b"\1\2\3" + data[20:]
    same(decode(odd, max_pixels=MAX_PIXELS), DecodedImage(by_pillow(data), "JPEG", 1, "RGB", 1))
    for end in range(odd.index(b"\xff\xda"), len(odd) - 40, 3):
        assert fails(odd[:end] + b"\xff\xd9").code == ErrorCode.TRUNCATED


@pytest.mark.parametrize("options", JPEG_OPTIONS, ids=str)
def test_harmless_oddities_of_a_jpeg_still_decode(options: dict[str, Any]) -> None:
    data = encode(picture(), "JPEG", **options)
    want = DecodedImage(by_pillow(data), "JPEG", 1, "RGB", 1)
    same(decode(data + b"trailing \xff\xd8\xff bytes", max_pixels=MAX_PIXELS), want)
    same(decode(data[:-2] + b"\0\0\x55" + data[-2:], max_pixels=MAX_PIXELS), want)
    tables = data.index(b"\xff\xdb")
    same(decode(data[:tables] + b"\1\2\3" + data[tables:], max_pixels=MAX_PIXELS), want)
    same(decode(data[:tables] + b"\xff\xff" + data[tables:], max_pixels=MAX_PIXELS), want)


def test_an_mpo_is_a_jpeg_of_one_frame() -> None:
    data = encode(picture(), "MPO", save_all=True, append_images=[picture(40, 30)])
    same(decode(data, max_pixels=MAX_PIXELS), DecodedImage(by_pillow(data), "JPEG", 1, "RGB", 1))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(name: str, orientation: int) -> None:
    options = {"lossless": True} if name == "WEBP" else {}
    plain = by_pillow(encode(picture(), name, **options))
    data = encode(picture(), name, exif=exif(orientation), **options)
    turn = TURNS[orientation]
    upright = Image.fromarray(plain) if turn is None else Image.fromarray(plain).transpose(turn)
    want = DecodedImage(np.array(upright), name, orientation, "RGB", 1)
    same(decode(data, max_pixels=MAX_PIXELS), want)


ASCII_6 = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\2\0\0\0" + b"6\0\0\0" + bytes(4)


@pytest.mark.parametrize("tags", [exif(0), exif(9), exif(65535), ASCII_6], ids=["0", "9", "65535", "text"])
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_a_bad_orientation_means_upright(name: str, tags: Image.Exif | bytes) -> None:
    data = encode(picture(), name, exif=tags)
    same(decode(data, max_pixels=MAX_PIXELS), DecodedImage(by_pillow(data), name, 1, "RGB", 1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize(
    "content", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"], ids=repr
)
def test_damaged_exif_does_not_spoil_the_picture(content: bytes) -> None:
    data = encode(picture(), "JPEG", exif=b"Exif\0\0" + content)
    same(decode(data, max_pixels=MAX_PIXELS), DecodedImage(by_pillow(data), "JPEG", 1, "RGB", 1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes_become_rgb_as_pillow_converts_them(mode: str) -> None:
    data = encode(picture(mode=mode), "TIFF")
    same(decode(data, max_pixels=MAX_PIXELS), DecodedImage(by_pillow(data), "TIFF", 1, mode, 1))


@pytest.mark.parametrize("name", ["PNG", "TIFF", "JPEG2000"])
def test_16_bit_grey_is_scaled_not_clipped(name: str) -> None:
    values = np.tile(np.array([0, 128, 129, 1000, 32768, 65535], np.uint16), (8, 1))
    assert greys(encode(Image.fromarray(values), name)) == [0, 0, 1, 4, 128, 255]


def test_other_deep_grey_is_scaled_by_its_own_white() -> None:
    assert greys(b"P5 4 1 65535\n" + bytes.fromhex("0000 03e8 8000 ffff")) == [0, 4, 128, 255]
    assert greys(b"P5 3 1 1000\n" + bytes.fromhex("0000 01f4 03e8")) == [0, 128, 255]
    assert greys(tiff_12_bit(bytes.fromhex("fff800"), 2)) == [255, 128]


def test_16_bit_colour_keeps_its_high_byte() -> None:
    data = png(zlib.compress(b"\0" + bytes.fromhex("12ff 34ff 56ff ffff 0000 0100")), 2, 1, bits=16, colour=2)
    want = np.array([[[0x12, 0x34, 0x56], [255, 0, 1]]], np.uint8)
    same(decode(data, max_pixels=MAX_PIXELS), DecodedImage(want, "PNG", 1, "RGB", 1))


@pytest.mark.parametrize(("mode", "dtype"), [("I", np.int32), ("F", np.float32)])
def test_pixels_of_unknown_range_are_unsupported(mode: str, dtype: type) -> None:
    data = encode(Image.fromarray(np.ones((4, 4), dtype)), "TIFF")
    assert decode(encode(picture(), "TIFF"), max_pixels=MAX_PIXELS).source_mode == "RGB"
    kind = {"I": "signed or 32-bit integers", "F": "floats"}[mode]
    error = fails(data)
    assert (error.code, error.message) == (ErrorCode.UNSUPPORTED, f"TIFF pixels are {kind} of unknown range.")


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_on_white(name: str) -> None:
    colour, alpha = np.array(picture()), np.array(picture(mode="L").rotate(180))
    rgba = Image.fromarray(np.dstack([colour, alpha]))
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    weight = alpha[:, :, None] / 255
    want = np.rint(colour * weight + 255 * (1 - weight)).astype(np.uint8)
    data = encode(rgba, name, **options)
    same(decode(data, max_pixels=MAX_PIXELS), DecodedImage(want, name, 1, "RGBA", 1))


def test_every_kind_of_png_transparency_is_composited_on_white() -> None:
    assert greys(png(zlib.compress(b"\0\x64\x80\x64\0\0\xff"), 3, 1, bits=8, colour=4)) == [177, 255, 0]
    one = png_chunk(b"tRNS", b"\0\1")
    assert greys(png(zlib.compress(b"\0\0\1\2"), 3, 1, bits=8, colour=0, chunks=one)) == [0, 255, 2]
    assert greys(png(zlib.compress(b"\0\xa0"), 4, 1, bits=1, colour=0, chunks=one)) == [255, 0, 255, 0]
    deep = png(zlib.compress(b"\0\0\1\x80\0"), 2, 1, bits=16, colour=0, chunks=one)
    assert greys(deep) == [255, 128]
    palette = png_chunk(b"PLTE", bytes([9] * 3 + [100] * 3 + [8] * 3)) + png_chunk(b"tRNS", b"\0\x80")
    assert greys(png(zlib.compress(b"\0\0\1\2"), 3, 1, bits=8, colour=3, chunks=palette)) == [255, 177, 8]
    key = png_chunk(b"tRNS", b"\0\7\0\7\0\7")
    assert greys(png(zlib.compress(b"\0\6\6\6\7\7\7"), 2, 1, bits=8, colour=2, chunks=key)) == [6, 255]


def test_a_transparent_gif_is_composited_on_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10] * 3 + [20] * 3 + [30] * 3)
    image.putdata([0, 1, 2])
    assert greys(encode(image, "GIF", transparency=1)) == [10, 255, 30]


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_is_decoded_and_frames_are_counted(name: str) -> None:
    mode = "P" if name == "GIF" else "RGB"
    others = [picture(mode=mode).rotate(angle) for angle in (90, 180)]
    data = encode(picture(mode=mode), name, save_all=True, append_images=others)
    same(decode(data, max_pixels=MAX_PIXELS), DecodedImage(by_pillow(data), name, 1, mode, 3))


@pytest.mark.parametrize("name", FILES)
def test_the_format_is_sniffed(name: str) -> None:
    got = decode(FILES[name], max_pixels=MAX_PIXELS)
    assert (got.format, got.frame_count) == (name.partition(" ")[0], 1)
    assert sorted(got.pixels.shape) == [3, 61, 83]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_an_error_or_the_whole_picture(name: str) -> None:
    data = FILES[name]
    whole = decode(data, max_pixels=MAX_PIXELS)
    tail = {"BMP": 3, "GIF": 2, "PNG": 20}.get(name, 0)  # padding, the trailer, checksums
    for end in [*range(20, 200, 7), *range(200, len(data) - tail - 4, 97), len(data) - tail - 4]:
        assert fails(data[:end]).code == ErrorCode.TRUNCATED, end
    for end in range(len(data) - tail + 1, len(data)):
        same(decode(data[:end], max_pixels=MAX_PIXELS), whole)


def test_a_gif_cut_behind_its_first_frame_gives_that_frame() -> None:
    frames = [picture(mode="P").rotate(90 * turn) for turn in range(3)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    got = decode(data[: len(data) - 500], max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(got.pixels, by_pillow(data))


def test_png_pixels_that_run_out_inside_whole_chunks_are_truncated() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in np.array(picture()))
    size: dict[str, Any] = {"width": 83, "height": 61, "bits": 8, "colour": 2}
    assert fails(png(zlib.compress(rows[: len(rows) // 2]), **size)).code == ErrorCode.TRUNCATED
    assert fails(png(zlib.compress(rows)[:3000], **size)).code == ErrorCode.TRUNCATED


@pytest.mark.parametrize("name", FILES)
def test_more_pixels_than_allowed_are_refused_with_both_numbers(name: str) -> None:
    assert decode(FILES[name], max_pixels=83 * 61).pixels.size == 83 * 61 * 3
    error = fails(FILES[name], max_pixels=83 * 61 - 1)
    want = (
        "83 x 61 = 5,063 pixels, over the limit of 5,062. In a new run set decode.max_pixels to 5063 or "
        "more, if you trust the file."
    )
    assert (error.code, error.message) == (ErrorCode.TOO_LARGE, want)


BOMB_SCRIPT = """
import resource, sys
from schemas.exceptions import ImageError
from workers.decode.decode import decode
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
for line in sys.stdin:
    try:
        decode(bytes.fromhex(line), max_pixels=100_000_000)
    except ImageError as error:
        print(error.code)
"""


def test_a_bomb_is_refused_before_its_pixels_are_allocated() -> None:
    webp = bytearray(FILES["WEBP lossless"])
    webp[21:25] = (0x3FFF | 0x3FFF << 14).to_bytes(4, "little")
    jpeg = bytearray(FILES["JPEG"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    gif = bytearray(FILES["GIF"])
    gif[6:10] = b"\xff\xff\xff\xff"
    bombs = [png_bomb(30_000, 30_000), bytes(webp), bytes(jpeg), bytes(gif)]
    done = subprocess.run(
        [sys.executable, "-c", BOMB_SCRIPT, str(_own_address_space() + 200_000_000)],
        input="\n".join(bomb.hex() for bomb in bombs),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["TOO_LARGE"] * 4, "")


def _own_address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def test_a_picture_above_pillows_own_limit_decodes_without_a_warning() -> None:
    got = decode(png_bomb(9_600, 9_600), max_pixels=100_000_000)  # Pillow warns above 89 megapixels
    assert (got.width, got.height, got.source_mode, int(got.pixels.max())) == (9_600, 9_600, "1", 0)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0)])
def test_a_picture_without_pixels_is_an_error(width: int, height: int) -> None:
    data = png(zlib.compress(b""), width, height, bits=8, colour=2)
    assert fails(data).code == ErrorCode.UNSUPPORTED
    bmp = bytearray(FILES["BMP"])
    bmp[18:22] = width.to_bytes(4, "little")
    bmp[22:26] = height.to_bytes(4, "little")
    assert fails(bytes(bmp)).code == ErrorCode.UNSUPPORTED


def test_no_bytes_are_empty() -> None:
    assert str(fails(b"")) == "decode: EMPTY: The file has no bytes."


def test_more_memory_than_a_process_may_take_is_refused_before_it_is_taken_and_not_to_be_retried() -> None:
    error = fails(FILES["WEBP"], memory=80_000)
    assert (error.code, error.code.retryable) == (ErrorCode.TOO_LARGE, False)
    assert error.message == (
        "To decode this WEBP file of 83 x 61 pixels takes about 0 MB, this process's share of the memory is "
        "0 MB. Set compute.cpus to more for each actor (next to a GPU: to fewer), or use more memory."
    )
    assert decode(FILES["WEBP"], max_pixels=MAX_PIXELS, memory=90_000).width == 83


PEAK_SCRIPT = """
import sys
from workers.decode.decode import decode

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

decode(bytes.fromhex(sys.stdin.readline()), max_pixels=10**9)
for line in sys.stdin:
    data = bytes.fromhex(line)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = kilobytes("VmRSS")
    size = decode(data, max_pixels=10**9).pixels.size
    print(1024 * (kilobytes("VmHWM") - before) // (size // 3))
"""


def test_a_picture_takes_no_more_memory_than_is_counted() -> None:
    colour = picture(300, 200).resize((1_500, 1_000))
    alpha = colour.copy()
    alpha.putalpha(colour.convert("L"))
    files = {
        "AVIF": encode(alpha, "AVIF", speed=10),
        "BMP": encode(alpha, "BMP"),
        "GIF": encode(colour.convert("P"), "GIF", transparency=1),
        "HEIC": deep_heic("RGB;16", np.array(colour).astype(np.uint16) * 257, chroma=444),
        "HEIC RGBA": deep_heic("RGBA;16", np.array(alpha).astype(np.uint16) * 257, chroma=444),
        "JPEG": encode(colour, "JPEG", progressive=True, subsampling=0, exif=exif(6)),
        "JPEG CMYK": encode(colour.convert("CMYK"), "JPEG", progressive=True, subsampling=0),
        "JPEG2000": encode(colour, "JPEG2000"),
        "JPEG2000 RGBA": encode(alpha, "JPEG2000"),
        "PNG": encode(alpha, "PNG", compress_level=0, exif=exif(6)),
        "TIFF": encode(alpha, "TIFF", exif=exif(6)),
        "WEBP": encode(alpha, "WEBP", method=0, exif=exif(6)),
    }
    done = subprocess.run(
        [sys.executable, "-c", PEAK_SCRIPT],
        input="\n".join([FILES["PNG"].hex(), *(data.hex() for data in files.values())]),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"},
        check=True,
    )
    peaks = dict(zip(files, map(int, done.stdout.split()), strict=True))
    fixed = 4  # 6 MB of code and buffers
    assert {name: peak for name, peak in peaks.items() if peak > _BYTES_A_PIXEL[name] + fixed} == {}


@pytest.mark.parametrize("name", ["AVIF", "WEBP"])
def test_all_time_of_decoding_is_that_of_the_thread_that_decodes(name: str) -> None:
    data = encode(picture(400, 300).resize((1_000, 800)), name, method=0, speed=10)
    process, thread = time.process_time(), time.thread_time()
    for _ in range(3):
        decode(data, max_pixels=MAX_PIXELS)
    process, thread = time.process_time() - process, time.thread_time() - thread
    assert process < 1.3 * thread


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize("piece", [1, 7, 100, 200])
def test_a_picture_is_the_same_whatever_its_pieces_are(
    mode: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(picture(29, 13).convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    whole = decode(data, max_pixels=MAX_PIXELS)
    monkeypatch.setattr(module, "PIECE", piece)
    same(decode(data, max_pixels=MAX_PIXELS), whole)


def test_threads_decode_alike_and_leave_pillow_as_it_was() -> None:
    before = (Image.MAX_IMAGE_PIXELS, threading.active_count())
    files = list(FILES.values()) * 8
    want = [decode(data, max_pixels=MAX_PIXELS) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for got, one in zip(
            pool.map(lambda data: decode(data, max_pixels=MAX_PIXELS), files), want, strict=True
        ):
            same(got, one)
    assert (Image.MAX_IMAGE_PIXELS, threading.active_count()) == before


def outcome(data: bytes) -> None:
    """Decodes to a sound image or raises an ImageError; anything else escapes and fails the test."""
    try:
        image = decode(data, max_pixels=1_000_000)
    except ImageError as error:
        assert error.stage == Stage.DECODE  # noqa: PT017 - an image is as good an outcome
    else:
        assert image.pixels.shape == (image.height, image.width, 3)
        assert image.pixels.dtype == np.uint8
        assert image.frame_count >= 1


quickly = settings(suppress_health_check=[HealthCheck.too_slow])
MAGICS = [data[:size] for data in FILES.values() for size in (4, 12, 30)]


@settings(quickly, max_examples=200)
@given(st.sampled_from([b"", *MAGICS]), st.binary(max_size=200))
def test_random_bytes_give_an_image_or_an_image_error(magic: bytes, data: bytes) -> None:
    outcome(magic + data)


@settings(quickly, max_examples=500)
@given(st.data(), st.sampled_from(sorted(FILES)))
def test_damaged_files_give_an_image_or_an_image_error(draw: st.DataObject, name: str) -> None:
    data = bytearray(FILES[name])
    places = st.one_of(st.integers(0, 200), st.integers(0, len(data) - 1))
    for place, value in draw.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=4)):
        data[place] = value
    outcome(bytes(data[: draw.draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))]))
