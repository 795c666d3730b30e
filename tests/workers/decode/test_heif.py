import io
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from schemas.errors import ErrorCode
from schemas.images import DecodedImage
from tests.workers.decode.checks import decoded, fails, same, unsupported
from tests.workers.image_files import deep_heic, exif, heic, picture
from workers.decode import heif
from workers.decode.orientation import upright

pillow_heif = pytest.importorskip("pillow_heif")


def opened_plainly(data: bytes) -> NDArray[np.uint8]:
    """What Pillow makes of a file with pillow-heif's plugin, as anybody would open it."""
    with pillow_heif.HeifImageFile(io.BytesIO(data)) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def turned(orientation: int, image: Image.Image | None = None, **options: Any) -> bytes:
    image = image or picture()
    image.info["exif"] = exif(orientation).tobytes()
    return heic(image, **options)


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def made_of(parts: dict[int, list[int]], sizes: dict[int, tuple[int, int]], more: bytes = b"") -> bytes:
    """A HEIC whose picture 1 is put together from others, without their data."""
    items = b"".join(
        box(b"infe", b"\2\0\0\0", struct.pack(">HH4s", n, 0, b"grid" if n in parts else b"hvc1"), b"\0")
        for n in sizes
    )
    properties = b"".join(box(b"ispe", bytes(4), struct.pack(">II", *size)) for size in sizes.values())
    of_items = b"".join(struct.pack(">HBB", n, 1, min(k, 127)) for k, n in enumerate(sizes, 1))
    references = b"".join(
        box(b"dimg", struct.pack(f">HH{len(below)}H", n, len(below), *below)) for n, below in parts.items()
    )
    tables = [
        box(b"pitm", bytes(4), struct.pack(">H", 1)),
        box(b"iinf", bytes(4), struct.pack(">H", len(sizes)), items),
        box(b"iref", bytes(4), references),
        box(
            b"iprp", box(b"ipco", properties), box(b"ipma", bytes(4), struct.pack(">I", len(sizes)), of_items)
        ),
    ]
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(4), *tables, more)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("tiles", [{}, {"tile_size": 64}], ids=["one picture", "tiles"])
def test_a_turned_picture_equals_pillow_and_its_orientation_is_told(
    tiles: dict[str, int], orientation: int
) -> None:
    data = turned(orientation, picture(184, 120), **tiles)
    assert bool(b"irot" in data or b"imir" in data) == (orientation != 1)
    same(decoded(data), DecodedImage(opened_plainly(data), "HEIC", orientation, "RGB", 1))


@pytest.mark.parametrize(("angle", "orientation"), [(0, 1), (1, 8), (2, 3), (3, 6)])
def test_a_picture_is_turned_once_against_the_clock_whatever_its_exif_says(
    angle: int, orientation: int
) -> None:
    whole = turned(6, picture(96, 64), chroma=444)  # its EXIF says 6
    place = whole.index(b"irot") + 4
    stored = decoded(whole[:place] + b"\0" + whole[place + 1 :]).pixels
    got = decoded(whole[:place] + bytes([angle]) + whole[place + 1 :])
    np.testing.assert_array_equal(got.pixels, np.rot90(stored, angle))
    np.testing.assert_array_equal(got.pixels, upright(stored, orientation))
    assert got.exif_orientation == orientation


def test_a_picture_is_mirrored_once_by_the_axis_that_its_box_says() -> None:
    whole = turned(2, picture(96, 64), chroma=444)
    place = whole.index(b"imir") + 4
    across, down = (decoded(whole[:place] + axis + whole[place + 1 :]) for axis in (b"\1", b"\0"))
    assert (across.exif_orientation, down.exif_orientation) == (2, 4)
    np.testing.assert_array_equal(across.pixels, down.pixels[::-1, ::-1])
    np.testing.assert_array_equal(down.pixels, opened_plainly(whole[:place] + b"\0" + whole[place + 1 :]))


def test_an_orientation_in_exif_alone_turns_nothing() -> None:
    upright = turned(1)
    data = upright.replace(
        b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x01", b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06"
    )
    if data == upright:
        data = upright.replace(
            b"\x12\x01\x03\x00\x01\x00\x00\x00\x01", b"\x12\x01\x03\x00\x01\x00\x00\x00\x06"
        )
    assert data != upright
    same(decoded(data), decoded(upright))
    np.testing.assert_array_equal(decoded(data).pixels, opened_plainly(data))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("size", [(83, 61), (16, 16), (70, 250)], ids=str)
def test_modes_are_those_of_pillow_and_alpha_is_composited_on_white(mode: str, size: tuple[int, int]) -> None:
    data = heic(picture(*size, mode=mode))
    with pillow_heif.HeifImageFile(io.BytesIO(data)) as image:
        image.load()
        white = Image.new("RGBA", image.size, "white")
        flat = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    got = decoded(data)
    assert (got.source_mode, got.width, got.height) == (image.mode, *size)
    assert np.abs(got.pixels.astype(int) - np.array(flat).astype(int)).max() <= 1


def test_a_transparent_part_is_white() -> None:
    clear = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    assert decoded(heic(clear)).pixels.min() >= 253


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_grey_is_scaled_by_its_own_white(bits: int) -> None:
    values = np.linspace(0, 2**16 - 1, 64 * 64).astype(np.uint16).reshape(64, 64)
    data = deep_heic("L;16", values, quality=-1, bit_depth=bits)
    got = decoded(data)
    with pillow_heif.HeifImageFile(io.BytesIO(data)) as image:
        plain = np.array(image).astype(np.float64)
    assert got.source_mode == "I;16"
    want = np.floor(plain / (2**16 - 2 ** (16 - bits)) * 255 + 0.5)
    np.testing.assert_array_equal(got.pixels, np.repeat(want[:, :, None], 3, 2).astype(np.uint8))
    assert (got.pixels.min(), got.pixels.max()) == (0, 255)


def test_ten_bit_colour_equals_pillow() -> None:
    values = np.array(picture(120, 90)).astype(np.uint16) * 257
    data = deep_heic("RGB;16", values)
    same(decoded(data), DecodedImage(opened_plainly(data), "HEIC", 1, "RGB", 1))


def test_of_several_pictures_the_primary_one_is_decoded_and_all_are_counted() -> None:
    file = pillow_heif.from_pillow(picture(64, 48))
    file.add_from_pillow(picture(96, 80))
    file.add_from_pillow(picture(48, 64))
    whole = io.BytesIO()
    file.save(whole, primary_index=1)
    got = decoded(whole.getvalue())
    same(got, DecodedImage(opened_plainly(whole.getvalue()), "HEIC", 1, "RGB", 3))
    assert (got.width, got.height) == (96, 80)


def test_a_thumbnail_is_no_further_picture() -> None:
    file = pillow_heif.from_pillow(picture(300, 200))
    file.info["thumbnails"] = [64]
    whole = io.BytesIO()
    file.save(whole)
    assert b"thmb" in whole.getvalue()
    got = decoded(whole.getvalue())
    same(got, DecodedImage(opened_plainly(whole.getvalue()), "HEIC", 1, "RGB", 1))


def test_a_colour_profile_is_passed_over_as_of_other_formats() -> None:
    image = picture()
    plain = heic(image)
    image.info["icc_profile"] = b"no profile that anything could read" * 4
    np.testing.assert_array_equal(decoded(heic(image)).pixels, decoded(plain).pixels)


def test_damaged_or_large_metadata_cost_nothing() -> None:
    image = picture()
    plain = decoded(heic(image))
    for block in (
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\x08\0\0\0" + bytes(3_000_000),
    ):
        image.info["exif"] = block
        got = decoded(heic(image))
        same(got, plain)


def test_a_sequence_without_a_still_picture_is_unsupported_with_what_to_do() -> None:
    data = box(b"ftyp", b"msf1\0\0\0\0hevc") + box(b"moov", bytes(40)) + box(b"mdat", bytes(100))
    assert unsupported(data) == (
        "This HEIC file is a sequence without a still picture, as a video is. Export one of its pictures."
    )


def test_a_picture_of_another_codec_is_unsupported() -> None:
    data = heic(picture()).replace(b"hvc1", b"vvc1").replace(b"hvcC", b"vvcC")
    assert unsupported(data).startswith("This HEIC file cannot be decoded: ")


@pytest.mark.parametrize("side", [100_000, 2**31])
def test_a_bomb_is_refused_by_what_its_boxes_say_before_it_is_decoded(side: int) -> None:
    whole = heic(picture(64, 48))
    position = whole.index(b"ispe") + 8
    data = whole[:position] + struct.pack(">II", side, side) + whole[position + 8 :]
    error = fails(data)
    assert error.code == ErrorCode.TOO_LARGE
    assert error.message.startswith(f"{side} x {side} = {side * side:,} pixels, over the limit of 50,000,000")


def test_a_crop_does_not_hide_the_size_of_what_is_decoded() -> None:
    whole = heic(picture(64, 48), chroma=420)
    crop = struct.pack(">8I", 10, 1, 10, 1, 0, 1, 0, 1)
    data = made_of({}, {1: (40_000, 40_000)}, box(b"clap", crop))
    assert fails(data).code == ErrorCode.TOO_LARGE
    assert decoded(whole).width == 64


def test_tiles_that_are_larger_than_the_picture_count() -> None:
    data = made_of({1: [2]}, {1: (64, 64), 2: (60_000, 1000)})
    assert "60,000,000 pixels in the pictures that it is put together from" in unsupported(data)
    data = made_of({1: [2]}, {1: (8000, 5000), 2: (10_000, 6000)})
    assert fails(data).message.startswith("10000 x 6000 = 60,000,000 pixels, over the limit of 50,000,000")


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ({1: [2] * 1000}, {1: (512, 512), 2: (512, 512)}),
        ({1: [2] * 500, 2: [3] * 500}, dict.fromkeys(range(1, 4), (64, 64))),
        ({n: [n + 1] * 50 for n in range(1, 7)}, dict.fromkeys(range(1, 8), (64, 64))),
    ],
    ids=["one tile a thousand times", "tiles of tiles", "more than any machine decodes in a year"],
)
def test_a_picture_put_together_from_too_much_is_refused_at_once(
    parts: dict[int, list[int]], sizes: dict[int, tuple[int, int]]
) -> None:
    message = unsupported(made_of(parts, sizes))
    assert "pixels in the pictures that it is put together from; allowed: " in message


@pytest.mark.parametrize(
    ("parts", "sizes", "what"),
    [
        ({1: [1]}, {1: (64, 64)}, "too often"),
        ({1: [2], 2: [1]}, {1: (64, 64), 2: (64, 64)}, "too often"),
        ({n: [n + 1] for n in range(1, 12)}, dict.fromkeys(range(1, 13), (64, 64)), "too often"),
        ({1: [7]}, {1: (64, 64)}, "picture 7 has no size"),
        ({}, {1: (0, 64)}, "picture 1 has no size"),
        ({}, {2: (64, 64)}, "it has no primary picture"),
    ],
)
def test_tables_that_make_no_sense_are_damage(
    parts: dict[int, list[int]], sizes: dict[int, tuple[int, int]], what: str
) -> None:
    message = unsupported(made_of(parts, sizes))
    assert message.startswith("This HEIC file is damaged: ")
    assert what in message


def test_items_and_pieces_that_cost_no_bytes_are_counted_before_they_are_read() -> None:
    sizes = dict.fromkeys(range(1, 1200), (64, 64))
    assert "1,001 items; allowed: 1,000" in unsupported(made_of({}, sizes))
    head = struct.pack(">HHHHH", 0, 1, 1, 0, 65_535)
    assert "65,535 pieces of an item; allowed: 32" in unsupported(
        made_of({}, {1: (64, 64)}, box(b"iloc", bytes(4), head))
    )
    many = struct.pack(">HI", 0, 2**32 - 1)
    assert "4,294,967,295 items; allowed: 1,000" in unsupported(
        made_of({}, {1: (64, 64)}, box(b"iloc", b"\2\0\0\0", many))
    )
    places = struct.pack(">HH", 0, 900) + b"".join(struct.pack(">HHH", n, 0, 1) for n in range(900))
    others = places[:4] + b"".join(struct.pack(">HHH", n, 0, 1) for n in range(900, 1800))
    tables = (box(b"iloc", bytes(4), some) for some in (places, others))
    assert "1,001 items; allowed: 1,000" in unsupported(made_of({}, {1: (64, 64)}, b"".join(tables)))
    bare = b"".join(struct.pack(">HB", n, 0) for n in range(2000))
    table = box(b"iprp", box(b"ipma", bytes(4), struct.pack(">I", 2000), bare))
    assert "1,001 items; allowed: 1,000" in unsupported(made_of({}, {1: (64, 64)}, table))


def test_tables_of_many_megabytes_are_refused() -> None:
    message = unsupported(made_of({}, {1: (64, 64)}, box(b"free", bytes(heif.MAX_TABLES))))
    assert "bytes of tables; allowed: 4,194,304" in message


def test_metadata_of_any_number_is_read_for_no_other_picture() -> None:
    """With pillow-heif alone each picture would hold a copy of each block."""
    file = pillow_heif.from_pillow(picture(64, 48))
    for _ in range(20):
        file.add_from_pillow(picture(64, 48))
    whole = io.BytesIO()
    file.save(whole, exif=b"II*\0\x08\0\0\0" + bytes(500_000))
    assert len(heif.primary_picture(whole.getvalue()).file) == len(whole.getvalue())
    cleaned = pillow_heif.open_heif(io.BytesIO(heif.primary_picture(whole.getvalue()).file))
    assert len(cleaned) == 1
    assert not cleaned.info["metadata"]
    assert not cleaned.info["exif"]
    assert decoded(whole.getvalue()).frame_count == 21


WITHOUT = """
import sys
sys.modules["pillow_heif"] = None  # as where it is not installed
from schemas.exceptions import ImageError
from workers.decode.decode import decode
from workers.decode.heif import installed
assert installed() is None
try:
    decode(bytes.fromhex(sys.stdin.read()), max_pixels=10**6)
except ImageError as error:
    print(error)
"""


def test_without_the_extra_the_message_names_heic_and_says_how_to_install_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        input=heic(picture()).hex(),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ,
        check=True,
    )
    assert done.stdout == (
        "decode: UNSUPPORTED: HEIC images are decoded by pillow-heif, which is not installed: pip install "
        "'raylabel[heif]' on every node, then raylabel retry OUTPUT --code UNSUPPORTED\n"
    )
