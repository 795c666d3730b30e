import datetime
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from schemas.tables import FACTS_OF
from tests.workers.decode.checks import decoded
from tests.workers.image_files import encode, heic, picture, png_chunk
from workers.decode.exif import exif_facts

NOTHING = dict.fromkeys(field.name for field in FACTS_OF["exif"])
WHOLE = {
    "taken_at": datetime.datetime(2024, 5, 6, 7, 8, 9, 123_000),
    "taken_at_offset": 120,
    "latitude": pytest.approx(48 + 8 / 60 + 30 / 3600, abs=1e-12),
    "longitude": pytest.approx(-(11 + 34 / 60 + 12 / 3600), abs=1e-12),
    "altitude": pytest.approx(-12.5),
    "camera_make": "Apple",
    "camera_model": "iPhone 12",
    "lens": "iPhone 12 back camera 4.2mm f/1.6",
}
LENS = 0xA434


def photo_exif(main: dict[int, Any], own: dict[int, Any], gps: dict[int, Any]) -> Image.Exif:
    tags = Image.Exif()
    tags.update(main)
    tags.get_ifd(0x8769).update(own)
    tags.get_ifd(0x8825).update(gps)
    return tags


def whole() -> Image.Exif:
    return photo_exif(
        {0x010F: "Apple", 0x0110: "iPhone 12"},
        {0x9003: "2024:05:06 07:08:09", 0x9291: "123", 0x9011: "+02:00", LENS: WHOLE["lens"]},
        {1: "N", 2: (48.0, 8.0, 30.0), 3: "W", 4: (11.0, 34.0, 12.0), 5: b"\1", 6: 12.5},
    )


def block(
    main: list[tuple[int, int, int, bytes]],
    own: list[tuple[int, int, int, bytes]] = [],  # noqa: B006 - not changed
    gps: list[tuple[int, int, int, bytes]] = [],  # noqa: B006
    order: str = "<",
) -> bytes:
    """EXIF byte for byte: tags with type, number of values and their bytes, in the order given."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)

    def size(tags: list[tuple[int, int, int, bytes]]) -> int:
        return 2 + 12 * len(tags) + 4 + sum(len(value) for *_, value in tags if len(value) > 4)

    pointers = [(0x8769, own), (0x8825, gps)]
    first = 8
    filled = [*main, *((tag, 4, 1, b"????") for tag, below in pointers if below)]
    position = first + size(filled)
    for index, (tag, below) in enumerate([(tag, below) for tag, below in pointers if below], len(main)):
        filled[index] = (tag, 4, 1, struct.pack(order + "I", position))
        position += size(below)
    result = head
    for tags in (filled, own, gps):
        if not tags:
            continue
        start, entries, values = len(result), b"", b""
        for tag, kind, count, value in tags:
            where = value.ljust(4, b"\0")
            if len(value) > 4:
                where = struct.pack(order + "I", start + 2 + 12 * len(tags) + 4 + len(values))
                values += value
            entries += struct.pack(order + "HHI", tag, kind, count) + where
        result += struct.pack(order + "H", len(tags)) + entries + bytes(4) + values
    return result


def text(tag: int, value: bytes, kind: int = 2) -> tuple[int, int, int, bytes]:
    return tag, kind, len(value), value


def rationals(tag: int, *pairs: tuple[int, int], order: str = "<") -> tuple[int, int, int, bytes]:
    return tag, 5, len(pairs), b"".join(struct.pack(order + "II", *pair) for pair in pairs)


def place(latitude: tuple[tuple[int, int], ...], reference: bytes = b"N\0", *more: Any) -> Any:
    gps = [
        text(1, reference),
        rationals(2, *latitude),
        text(3, b"E\0"),
        rationals(4, (11, 1), (0, 1), (0, 1)),
        *more,
    ]
    facts = exif_facts(block([], [], gps))
    return facts["latitude"], facts["longitude"]


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIC", "AVIF"])
def test_facts_are_those_of_the_file_in_every_format_that_has_exif(name: str) -> None:
    tags = whole()
    if name == "HEIC":
        image = picture()
        image.info["exif"] = tags.tobytes()
        data = heic(image)
    elif name == "TIFF":
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info.update(tags)
        info[0x8769], info[0x8825] = dict(tags.get_ifd(0x8769)), dict(tags.get_ifd(0x8825))
        data = encode(picture(), "TIFF", tiffinfo=info)
    else:
        data = encode(picture(), name, exif=tags)
    assert exif_facts(decoded(data).exif) == WHOLE


def test_facts_are_found_in_the_text_that_imagemagick_makes_of_exif_in_a_png() -> None:
    body = b"Exif\0\0" + whole().tobytes().removeprefix(b"Exif\0\0")
    content = b"Raw profile type exif\0\nexif\n" + f"{len(body):8d}\n{body.hex()}\n".encode()
    data = encode(picture(), "PNG")
    data = data[:33] + png_chunk(b"tEXt", content) + data[33:]
    assert exif_facts(decoded(data).exif) == WHOLE


@pytest.mark.parametrize("name", ["BMP", "GIF", "JPEG2000", "PPM", "JPEG", "PNG"])
def test_a_file_without_exif_has_no_facts(name: str) -> None:
    image = picture(mode="P") if name == "GIF" else picture()
    assert exif_facts(decoded(encode(image, name)).exif) == NOTHING


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_orders_of_bytes_are_read(order: str) -> None:
    own = [text(0x9003, b"2024:05:06 07:08:09\0")]
    gps = [
        text(1, b"S\0"),
        rationals(2, (33, 1), (5160, 100), (0, 1), order=order),
        text(3, b"E\0"),
        rationals(4, (151, 1), (12, 1), (3, 1), order=order),
        rationals(6, (29, 2), order=order),
    ]
    assert exif_facts(block([text(0x0110, b"X\0")], own, gps, order)) == NOTHING | {
        "taken_at": datetime.datetime(2024, 5, 6, 7, 8, 9),
        "latitude": -(33 + 51.6 / 60),
        "longitude": 151 + 12 / 60 + 3 / 3600,
        "altitude": 14.5,
        "camera_model": "X",
    }


def test_numbers_in_the_other_order_of_bytes_than_the_block_says_are_no_facts() -> None:
    data = block([text(0x0110, b"Camera\0")], [text(0x9003, b"2024:05:06 07:08:09\0")], order=">")
    assert exif_facts(b"II*\0" + data[4:]) == NOTHING


@pytest.mark.parametrize(
    ("written", "want"),
    [
        (b"2024:05:06 07:08:09\0", datetime.datetime(2024, 5, 6, 7, 8, 9)),
        (b"2024-05-06T07:08:09", datetime.datetime(2024, 5, 6, 7, 8, 9)),
        (b"0000:00:00 00:00:00\0", None),
        (b"    :  :     :  :  \0", None),
        (b"2023:02:29 10:00:00\0", None),
        (b"2024:13:01 10:00:00\0", None),
        (b"2024:01:01 24:00:00\0", None),
        (b"2024:01:01 10:00:60\0", None),
        (b"0001:01:01 00:00:00\0", None),
        (b"1825:12:31 23:59:59\0", None),
        (b"2024:05:06\0", None),
        (b"", None),
        (b"\xd9\xa2\xd9\xa0\xd9\xa2\xd9\xa4:05:06 07:08:09\0", None),
        (b"2024:05:06 07:08:09\x07\0", None),
    ],
)
def test_a_time_that_cannot_be_is_none(written: bytes, want: datetime.datetime | None) -> None:
    assert exif_facts(block([], [text(0x9003, written)]))["taken_at"] == want


@pytest.mark.parametrize(
    ("parts", "want"),
    [
        (b"5\0", 500_000),
        (b"123456789\0", 123_456),
        (b"12 \0", 120_000),
        (b"\0", 0),
        (b"1a\0", 0),
        (b"-1\0", 0),
    ],
)
def test_parts_of_a_second_are_digits_behind_the_point(parts: bytes, want: int) -> None:
    own = [text(0x9003, b"2024:05:06 07:08:09\0"), text(0x9291, parts)]
    assert exif_facts(block([], own))["taken_at"].microsecond == want


@pytest.mark.parametrize(
    ("written", "want"),
    [
        (b"+02:00\0", 120),
        (b"-03:30\0", -210),
        (b"Z\0", 0),
        (b"+14:00\0", 840),
        (b"+14:01\0", None),
        (b"+02:60\0", None),
        (b"   :  \0", None),
        (b"", None),
    ],
)
def test_an_offset_is_minutes_ahead_of_utc(written: bytes, want: int | None) -> None:
    own = [text(0x9003, b"2024:05:06 07:08:09\0"), text(0x9011, written)]
    assert exif_facts(block([], own))["taken_at_offset"] == want


def test_the_time_of_digitizing_counts_where_there_is_none_of_taking_with_its_own_parts_and_offset() -> None:
    own = [
        text(0x9003, b"0000:00:00 00:00:00\0"),
        text(0x9004, b"2020:01:02 03:04:05\0"),
        text(0x9011, b"+09:00\0"),
        text(0x9012, b"+01:00\0"),
        text(0x9291, b"9\0"),
        text(0x9292, b"25\0"),
    ]
    assert exif_facts(block([text(0x0132, b"2025:01:01 00:00:00\0")], own)) == NOTHING | {
        "taken_at": datetime.datetime(2020, 1, 2, 3, 4, 5, 250_000),
        "taken_at_offset": 60,
    }
    assert exif_facts(block([text(0x0132, b"2025:01:01 00:00:00\0")])) == NOTHING  # when the file was changed


@pytest.mark.parametrize(
    ("written", "want"),
    [
        (b"Canon\0\0\0\0\0", "Canon"),
        (b"  NIKON CORPORATION  ", "NIKON CORPORATION"),
        ("Caméra é".encode(), "Caméra é"),
        ("Caméra".encode("latin-1"), "Caméra"),
        (b"A\0B", "A"),
        (b"A\x1b[31mB\0", None),
        (b"A\nB\0", None),
        (b"\0\0\0\0\0\0", None),
        (b"     \0", None),
        (b"x" * 256, "x" * 256),
        (b"x" * 257, None),
    ],
)
def test_a_text_is_without_what_fills_it_up_and_none_with_control_characters(
    written: bytes, want: str | None
) -> None:
    assert exif_facts(block([text(0x010F, written)]))["camera_make"] == want


def test_a_place_is_of_degrees_alone_or_with_minutes_and_seconds() -> None:
    assert place(((485, 10),)) == (48.5, 11)
    assert place(((48, 1), (305, 10))) == (48 + 30.5 / 60, 11)
    assert place(((48, 1), (30, 1), (60, 1)), b"s\0") == (-(48 + 31 / 60), 11)
    assert place(((90, 1), (0, 1), (0, 1))) == (90, 11)


@pytest.mark.parametrize(
    "latitude",
    [
        ((0, 0), (0, 0), (0, 0)),
        ((48, 1), (8, 0), (1, 1)),
        ((91, 1),),
        ((90, 1), (1, 1)),
        ((48, 1), (61, 1)),
        (),
    ],
)
def test_a_place_with_one_bad_number_is_none(latitude: tuple[tuple[int, int], ...]) -> None:
    assert place(latitude) == (None, None)


@pytest.mark.parametrize("reference", [b"", b"X\0", b"\0\0", b"1\0"])
def test_a_place_without_its_half_of_the_earth_is_none(reference: bytes) -> None:
    assert place(((48, 1),), reference) == (None, None)


@pytest.mark.parametrize(
    ("datum", "is_known"), [(b"WGS-84\0", True), (b"wgs 84   \0", True), (b"\0\0", True), (b"TOKYO\0", False)]
)
def test_a_place_of_another_datum_is_none(datum: bytes, is_known: bool) -> None:
    assert place(((48, 1),), b"N\0", text(18, datum)) == ((48, 11) if is_known else (None, None))


@pytest.mark.parametrize(
    ("reference", "metres", "want"),
    [
        (b"\0", (1234, 10), 123.4),
        (b"\1", (5, 1), -5.0),
        (b"1", (5, 1), -5.0),
        (b"\2", (5, 1), 5.0),
        (b"\3", (5, 1), -5.0),
        (b"\0", (0, 0), None),
        (b"\0", (2**32 - 1, 1), None),
    ],
)
def test_an_altitude_below_the_sea_is_negative(
    reference: bytes, metres: tuple[int, int], want: float | None
) -> None:
    gps = [(5, 1, 1, reference), rationals(6, metres)]
    assert exif_facts(block([], [], gps))["altitude"] == want


def test_broken_exif_never_costs_the_picture() -> None:
    data = encode(picture(), "JPEG", exif=b"Exif\0\0" + block([text(0x0110, b"X\0")])[:-3] + b"\xff" * 40)
    got = decoded(data)
    assert got.pixels.shape == (61, 83, 3)
    assert exif_facts(got.exif)["camera_model"] == "X"


def test_a_directory_that_leads_to_itself_or_behind_the_end_ends() -> None:
    loop = [(0x8769, 4, 1, struct.pack("<I", 8)), (0x8825, 4, 1, struct.pack("<I", 2**32 - 1))]
    assert exif_facts(block(loop)) == NOTHING
    assert exif_facts(b"II*\0\x08\0\0\0\xff\xff") == NOTHING


@given(st.binary(max_size=80), st.integers(0, 400), st.integers(0, 255))
def test_any_bytes_give_facts_of_the_declared_types(tail: bytes, position: int, value: int) -> None:
    kinds = {"taken_at": datetime.datetime, "taken_at_offset": int, "latitude": float, "longitude": float}
    kinds |= {"altitude": float, "camera_make": str, "camera_model": str, "lens": str}
    data = bytearray(whole().tobytes() + tail)
    data[position % len(data)] = value
    for damaged in (bytes(data), tail, b"II*\0\x08\0\0\0" + tail, b"MM\0*\0\0\0\x08" + tail):
        facts = exif_facts(damaged)
        assert facts.keys() == NOTHING.keys()
        assert all(found is None or isinstance(found, kinds[name]) for name, found in facts.items())
