import time

import pytest

from schemas.errors import ErrorCode
from schemas.images import DecodedImage
from tests.workers.decode.checks import decoded, fails, same, unsupported
from tests.workers.image_files import by_pillow, encode, exif, picture

PLAIN = encode(picture(), "JPEG")
PROGRESSIVE = encode(picture(), "JPEG", progressive=True)
WANT = DecodedImage(by_pillow(PLAIN), "JPEG", 1, "RGB", 1)


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2) + payload


def with_segments(segments: bytes, data: bytes = PLAIN) -> bytes:
    return data[:2] + segments + data[2:]


@pytest.mark.parametrize(
    "segments",
    [
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1"),
        segment(0xE2, b"ICC_PROFILE\0\1\0"),
        segment(0xE2, b"MPF\0nonsense"),
        segment(0xE2, b"FPXR\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM"),
        segment(0xED, b"Photoshop 3.0\x008BIM\3\xed\xff"),
        segment(0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\xff\xff"),
        segment(0xEE, b"Adobe"),
        segment(0xEE, b"Adobe\0"),
        segment(0xE0, b"JFIF"),
        segment(0xE0, b"JFIF\0\1"),
        segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta"),
        b"".join(segment(marker, b"") for marker in [*range(0xE0, 0xF0), 0xFE]),
        b"\xff\xff\xff" + segment(0xFE, b"\xff\xd8\xff\xda"),
    ],
)
def test_no_segment_of_metadata_costs_the_picture(segments: bytes) -> None:
    same(decoded(with_segments(segments)), WANT)
    short_jfif = PLAIN[:2] + PLAIN[20:]
    same(decoded(with_segments(segments, short_jfif)), WANT)


def test_adobe_and_jfif_decide_the_colours_as_for_libjpeg() -> None:
    rgb = encode(picture(), "JPEG", keep_rgb=True)
    same(decoded(rgb), DecodedImage(by_pillow(rgb), "JPEG", 1, "RGB", 1))
    cmyk = encode(picture(mode="CMYK"), "JPEG")
    assert b"Adobe" in cmyk
    damaged = with_segments(segment(0xE2, b"ICC_PROFILE\0"), cmyk)
    same(decoded(damaged), DecodedImage(by_pillow(cmyk), "JPEG", 1, "CMYK", 1))


def test_megabytes_of_metadata_cost_no_time() -> None:
    block = exif(6).tobytes()
    megabytes = segment(0xE1, block) + segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 300
    began = time.process_time()
    for segments in (megabytes, segment(0xFE, bytes(65_000)) * 600, segment(0xED, bytes(65_000)) * 300):
        got = decoded(with_segments(segments))
        assert {got.width, got.height} == {83, 61}
    assert decoded(with_segments(megabytes)).exif_orientation == 6
    assert time.process_time() - began < 5


def test_a_jpeg_of_many_segments_tables_or_scans_is_refused_by_their_number() -> None:
    advice = "Save it again with an image program."
    comments = with_segments(segment(0xFE, b"") * 20_001)
    assert unsupported(comments) == f"This JPEG file has over 20,000 segments; allowed: 20,000. {advice}"
    tables = with_segments(segment(0xDB, b"\0" + bytes(64)) * 16_000)
    assert unsupported(tables).endswith(f" bytes of tables; allowed: 1,048,576. {advice}")
    last = PROGRESSIVE.rindex(b"\xff\xda")
    scans = PROGRESSIVE[:last] + PROGRESSIVE[last:-2] * 99 + b"\xff\xd9"
    assert unsupported(scans) == f"This JPEG file has over 100 scans; allowed: 100. {advice}"
    same(decoded(PROGRESSIVE), DecodedImage(by_pillow(PROGRESSIVE), "JPEG", 1, "RGB", 1))


def test_a_jpeg_without_a_scan_ends_early() -> None:
    for data in (PLAIN[: PLAIN.index(b"\xff\xda")], PLAIN[: PLAIN.index(b"\xff\xda")] + b"\xff\xd9"):
        assert fails(data).code == ErrorCode.TRUNCATED
