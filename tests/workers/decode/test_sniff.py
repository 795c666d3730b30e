import pytest

from schemas.errors import ErrorCode
from tests.workers.decode.checks import fails
from tests.workers.image_files import encode, picture, png_chunk


@pytest.mark.parametrize(
    ("data", "looks"),
    [
        (b"\n <!DOCTYPE html><html>404</html>", "HTML"),
        (b"<HTML>", "HTML"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "XML"),
        (b'{"error": 1}', "JSON"),
        (b"Not found.\n", "text"),
        (b"P1 is the first priority\n", "text"),
        (b"<!-- a page --><html><svg></svg></html>", "XML"),
        (b"<!-->" * 900, "XML"),
        (b"BMW is a word that begins like a bitmap", "text"),
        (b"%PDF-1.7\n\xff", "PDF"),
        (b"PK\3\4" + bytes(40), "a ZIP archive"),
        (b"\x1f\x8b\x08" + bytes(40), "gzip data"),
        (b"\0\0\0\x20ftypisom" + bytes(40), "a video"),
        (bytes(range(1, 200)), "no known format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_not_an_image_and_the_message_says_what_it_is(data: bytes, looks: str) -> None:
    error = fails(data)
    want = f"Not an image: looks like {looks}, begins {data[:32]!r}."
    assert (error.code, error.message) == (ErrorCode.NOT_AN_IMAGE, want)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"8BPS\0\1" + bytes(40), "PSD"),
        (encode(picture(32, 32), "ICO"), "ICO"),
        (encode(picture(), "EPS"), "EPS"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<svg/>", "SVG"),
        (
            b"<?xml version='1.0'?><!-- a --><!-- b -->\n<!DOCTYPE svg [<!ENTITY a 'b>'>]>\n<svg:svg x='1'>",
            "SVG",
        ),
        (png_chunk(b"CgBI", b"\0\0\0\0").join([b"\x89PNG\r\n\x1a\n", b"\0\0\0\x0dIHDR"]), "Apple CgBI"),
        (encode(picture(), "TGA"), "TGA"),
        (encode(picture(mode="P"), "TGA")[:-26], "TGA"),
        (encode(picture(), "TGA", compression="tga_rle")[:-26], "TGA"),
        (encode(picture(), "PCX"), "PCX"),
        (encode(picture(), "SGI"), "SGI"),
        (encode(picture(), "DDS"), "DDS"),
        (encode(picture(), "ICNS"), "ICNS"),
        (encode(picture(mode="F"), "PPM"), "PFM"),
        (encode(picture(mode="1"), "XBM"), "XBM"),
        (encode(picture(mode="1"), "MSP"), "MSP"),
        (b"qoif\0\0\0\x53\0\0\0\x3d\3\0", "QOI"),
        (b"\0\0\2\0\1\0\x20\x20\0\0" + bytes(30), "CUR"),
        (b"P7\nWIDTH 4\n", "PAM"),
        (b"\xff\xd8\xff\xf7\0\x0b", "JPEG-LS"),
        (b"II\xbc\1\x20\0\0\0", "JPEG XR"),
        (b"II*\0\x10\0\0\0CR\2\0", "Canon raw (CR2)"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "Canon raw (CR3)"),
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm raw (RAF)"),
        (b"IIU\0\x18\0\0\0", "Panasonic raw (RW2)"),
        (b"IIRO\x08\0\0\0", "Olympus raw (ORF)"),
        (b"\x76\x2f\x31\1\2\0\0\0", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"SIMPLE  =                    T", "FITS"),
        (bytes(128) + b"DICM\2\0", "DICOM"),
        (b"gimp xcf v011\0", "XCF"),
        (b"AT&TFORM\0\0\0\1DJVU", "DjVu"),
        (b"/* XPM */\nstatic char *x[] = {", "XPM"),
        (b"\xd7\xcd\xc6\x9a" + bytes(18), "WMF"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_image_format_that_is_not_decoded_is_unsupported_by_name(data: bytes, name: str) -> None:
    error = fails(data)
    want = f"{name} images are not decoded; found {data[:16]!r}."
    assert (error.code, error.message) == (ErrorCode.UNSUPPORTED, want)
