import time
import zlib

import pytest

from schemas.errors import ErrorCode
from schemas.images import DecodedImage
from tests.workers.decode.checks import decoded, fails, same, unsupported
from tests.workers.image_files import by_pillow, encode, exif, picture, png, png_chunk
from workers.decode import png as module

PLAIN = encode(picture(), "PNG")
WANT = DecodedImage(by_pillow(PLAIN), "PNG", 1, "RGB", 1)
BOMB = zlib.compress(bytes(1 << 26), 9)


def behind_header(chunks: bytes, data: bytes = PLAIN) -> bytes:
    return data[:33] + chunks + data[33:]


def behind_pixels(chunks: bytes, data: bytes = PLAIN) -> bytes:
    return data[:-12] + chunks + data[-12:]


@pytest.mark.parametrize(
    "chunks",
    [
        png_chunk(b"zTXt", b"prompt\0\0" + BOMB),
        png_chunk(b"iTXt", b"prompt\0\1\0\0\0" + BOMB),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0no deflate"),
        png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\nno hexadecimal"),
        png_chunk(b"iCCP", b"profile\0\0" + BOMB),
        png_chunk(b"iCCP", b"no profile"),
        png_chunk(b"tEXt", b"prompt\0" + bytes(2**20)) * 70,
        png_chunk(b"tEXt", b"Comment\0text")[:-4] + b"\1\2\3\4",
        png_chunk(b"gAMA", b""),
        png_chunk(b"pHYs", b"\1"),
        png_chunk(b"eXIf", b"nothing"),
        png_chunk(b"acTL", bytes(3)),
        png_chunk(b"abCD", b""),
    ],
)
@pytest.mark.parametrize("place", [behind_header, behind_pixels])
def test_no_chunk_of_metadata_costs_the_picture(chunks: bytes, place: object) -> None:
    assert callable(place)
    same(decoded(place(chunks)), WANT)


def test_what_decides_the_pixels_must_be_sound() -> None:
    damaged = bytearray(PLAIN)
    damaged[29:33] = b"\1\2\3\4"
    assert "checksum in b'IHDR'" in unsupported(bytes(damaged))
    assert unsupported(PLAIN[:33] + PLAIN[-12:]) == "This PNG file is damaged: it has no pixels."
    assert unsupported(behind_header(b"\0\0\0\0\1\2\3\4")).endswith(r"it has a chunk b'\x01\x02\x03\x04'.")


def test_damaged_transparency_is_let_go() -> None:
    sound = png_chunk(b"tRNS", b"\0\1")
    image = {"width": 3, "height": 1, "bits": 8, "colour": 0}
    pixels = zlib.compress(b"\0\0\1\2")
    assert decoded(png(pixels, **image, chunks=sound)).pixels[0, :, 0].tolist() == [0, 255, 2]
    assert decoded(png(pixels, **image, chunks=sound[:-1] + b"?")).pixels[0, :, 0].tolist() == [0, 1, 2]


def test_orientation_is_found_in_each_place_that_has_it() -> None:
    block = exif(6).tobytes()
    profile = b"\nexif\n%8d\n%b\n" % (len(block), block.hex().encode())
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    for chunk in (
        png_chunk(b"eXIf", block.removeprefix(b"Exif\0\0")),
        png_chunk(b"tEXt", b"Raw profile type exif\0" + profile),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    ):
        for place in (behind_header, behind_pixels):
            got = decoded(place(chunk))
            assert (got.exif_orientation, got.width, got.height) == (6, 61, 83)


def test_damage_in_a_later_frame_costs_nothing() -> None:
    others = [picture().rotate(angle) for angle in (90, 180)]
    data = encode(picture(), "PNG", save_all=True, append_images=others)
    second = data.index(b"fdAT", data.index(b"fdAT") + 4)
    same(decoded(data[:second] + b"?" * 40), DecodedImage(WANT.pixels, "PNG", 1, "RGB", 3))
    with_default = encode(picture(), "PNG", save_all=True, append_images=others, default_image=True)
    assert decoded(with_default).frame_count == 3


def test_many_chunks_are_refused_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHUNKS", 9)
    error = fails(behind_header(png_chunk(b"abCD", b"") * 20))
    assert (error.code, error.message) == (
        ErrorCode.UNSUPPORTED,
        "This PNG file has over 9 chunks; allowed: 9. Save it again with an image program.",
    )


@pytest.mark.parametrize(
    "text",
    [
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(1 << 21), 9)),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(1 << 20), 9)),
    ],
    ids=["xmp", "exif"],
)
def test_many_texts_without_an_orientation_cost_hardly_any_time(text: bytes) -> None:
    began = time.thread_time()
    same(decoded(behind_header(text * 1_000)), WANT)
    assert time.thread_time() - began < 0.5


def test_orientation_is_found_behind_a_damaged_text() -> None:
    xmp = b"XML:com.adobe.xmp\0%b\0\0\0"
    sound = png_chunk(b"iTXt", xmp % b"\0" + b'<rdf:Description tiff:Orientation="6"/>')
    damaged = png_chunk(b"iTXt", xmp % b"\1" + b"no deflate")
    assert decoded(behind_header(damaged * 3 + sound)).exif_orientation == 6
