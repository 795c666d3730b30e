import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from schemas.errors import ErrorCode
from schemas.images import DecodedImage
from tests.workers.decode.checks import decoded, fails, same, unsupported
from tests.workers.image_files import by_pillow, encode, exif, picture

PLAIN = encode(picture(), "TIFF")
WANT = DecodedImage(by_pillow(PLAIN), "TIFF", 1, "RGB", 1)
SHORT, LONG, BYTE = 3, 4, 1


def directory(data: bytes, offset: int | None = None) -> tuple[int, dict[int, bytes], int]:
    """The position of a little-endian directory, its entries by tag, and the offset of the next."""
    start = struct.unpack_from("<I", data, 4)[0] if offset is None else offset
    (count,) = struct.unpack_from("<H", data, start)
    places = [start + 2 + 12 * index for index in range(count)]
    entries = {struct.unpack_from("<H", data, place)[0]: data[place : place + 12] for place in places}
    return start, entries, struct.unpack_from("<I", data, start + 2 + 12 * count)[0]


def packed(entries: dict[int, bytes], following: int = 0) -> bytes:
    tags = b"".join(entry for _, entry in sorted(entries.items()))
    return struct.pack("<H", len(entries)) + tags + struct.pack("<I", following)


def entry(tag: int, kind: int, value: int, count: int = 1) -> tuple[int, bytes]:
    return tag, struct.pack("<HHII", tag, kind, count, value)


def rewritten(*added: tuple[int, bytes], following: bytes = b"", data: bytes = PLAIN) -> bytes:
    """The file with a directory behind it that has more entries, and more behind that as its next page."""
    _, entries, _ = directory(data)
    merged = entries | dict(added)
    size = len(packed(merged))
    page = packed(merged, len(data) + size if following else 0)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + page + following


@pytest.mark.parametrize(
    "following",
    [
        packed({}),
        packed(dict([entry(256, SHORT, 9), entry(257, SHORT, 9), entry(277, SHORT, 60_000)])),
        packed({}, 0xFFFFFFF0),
        b"\xff\xff" + bytes(range(200)),
        b"\1",
    ],
)
def test_whatever_follows_the_first_page_does_not_spoil_it(following: bytes) -> None:
    np.testing.assert_array_equal(decoded(rewritten(following=following)).pixels, WANT.pixels)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
def test_pages_are_counted_and_none_is_read(compression: str | None) -> None:
    options = {"compression": compression} if compression else {}
    one = encode(picture(), "TIFF", **options)
    others = [picture(mode=mode).resize((20, 30)) for mode in ("L", "RGB")]
    data = encode(picture(), "TIFF", save_all=True, append_images=others, **options)
    same(decoded(data), DecodedImage(by_pillow(one), "TIFF", 1, WANT.source_mode, 3))
    start, entries, _ = directory(data)
    looped = bytearray(data)
    struct.pack_into("<I", looped, start + 2 + 12 * len(entries), start)
    assert decoded(bytes(looped)).frame_count == 1


def test_a_hundred_thousand_pages_are_one_picture() -> None:
    page = packed(dict([entry(256, SHORT, 1)]))
    first = len(rewritten(following=b"?")) - 1
    offsets = [first + number * len(page) for number in range(1, 100_001)]
    pages = b"".join(page[:-4] + struct.pack("<I", offset) for offset in offsets)
    same(decoded(rewritten(following=pages)), DecodedImage(WANT.pixels, "TIFF", 1, "RGB", 65_536))


@pytest.mark.parametrize(
    "tag",
    [
        entry(700, BYTE, 0xFFFFFFF0, 5_000),
        entry(34675, 7, 0xFFFFFFF0, 5_000),
        entry(34377, 7, 0xFFFFFFF0, 5_000),
        entry(34665, LONG, 0xFFFFFFF0),
        entry(270, 2, 0xFFFFFFF0, 5_000),
        entry(282, 5, 0xFFFFFFF0),
        entry(274, 2, 6),
        entry(60_000, 99, 6, 0xFFFFFFFF),
    ],
    ids=lambda tag: str(tag[0]),
)
def test_no_tag_of_metadata_costs_the_picture(tag: tuple[int, bytes]) -> None:
    same(decoded(rewritten(tag)), WANT)


def test_orientation_is_read_from_the_tag_or_from_xmp() -> None:
    assert decoded(encode(picture(), "TIFF", exif=exif(6))).exif_orientation == 6
    xmp = b'<rdf:Description tiff:Orientation="8"/>'
    got = decoded(rewritten(entry(700, BYTE, len(PLAIN), len(xmp)), data=PLAIN + xmp))
    assert (got.exif_orientation, got.width, got.height) == (8, 61, 83)
    np.testing.assert_array_equal(got.pixels, np.rot90(WANT.pixels))


PREVIEW = "The first page of this TIFF file is a preview of another picture in it ({}), as in raw photos. "


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (rewritten(entry(254, LONG, 1), entry(330, LONG, 8)), "it says so itself"),
        (rewritten(entry(254, LONG, 1), following=packed(directory(PLAIN)[1])), "it says so itself"),
        (rewritten(entry(255, SHORT, 2), following=packed(directory(PLAIN)[1])), "it says so itself"),
        (rewritten(entry(50_706, BYTE, 0x0401, 4)), "it is a DNG"),
    ],
)
def test_a_preview_of_a_raw_photo_is_refused(data: bytes, reason: str) -> None:
    assert unsupported(data) == PREVIEW.format(reason) + "Export the photo as JPEG or TIFF."


def test_a_picture_below_the_first_page_must_be_smaller() -> None:
    def below(width: int) -> bytes:
        sub_page = packed(dict([entry(256, SHORT, width), entry(257, SHORT, 100)]))
        return rewritten(entry(330, LONG, len(PLAIN)), data=PLAIN + sub_page)

    assert unsupported(below(6_000)).startswith(PREVIEW.format("a page below it is larger"))
    same(decoded(below(40)), WANT)  # a pyramid
    same(decoded(rewritten(entry(254, LONG, 1))), WANT)  # there is no other picture


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_16_bit_grey_whose_zero_is_white_is_inverted(compression: str | None) -> None:
    values = np.tile(np.array([0, 128, 129, 1000, 32768, 65535], np.uint16), (8, 1))
    options = {"compression": compression} if compression else {}
    data = bytearray(encode(Image.fromarray(values), "TIFF", **options))
    start, entries, _ = directory(bytes(data))
    place = start + 2 + 12 * sorted(entries).index(262)
    assert decoded(bytes(data)).pixels[0, :, 0].tolist() == [0, 0, 1, 4, 128, 255]
    data[place : place + 12] = entry(262, SHORT, 0)[1]
    assert decoded(bytes(data)).pixels[0, :, 0].tolist() == [255, 255, 254, 251, 127, 0]


def test_many_tags_or_strips_are_refused_by_their_number() -> None:
    tags = [entry(tag, SHORT, 1) for tag in range(1_000, 6_000)]
    assert unsupported(rewritten(*tags)).startswith("This TIFF file has 5,010 tags; allowed: 4,096.")
    strips = rewritten(entry(273, LONG, 8, 500_000), data=PLAIN + bytes(2_000_000))
    assert unsupported(strips).startswith("This TIFF file has 500,0")


def test_a_cut_directory_ends_early() -> None:
    data = rewritten()
    assert fails(data[:-20]).code == ErrorCode.TRUNCATED
    assert fails(b"II*\0\x08\0").code == ErrorCode.TRUNCATED


def test_the_file_is_copied_once() -> None:
    data = rewritten(data=PLAIN + bytes(20_000_000))
    tracemalloc.start()
    try:
        decoded(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * len(data)
