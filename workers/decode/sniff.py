"""Recognises the format of a file by its first bytes; its name is ignored."""

import re

# The first match counts. Not all of these formats can be decoded.
_IMAGES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF....WEBP",
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "AVIF": rb"....ftyp(avi[fs]|(mif1|msf1|miaf).{4,64}avi[fs])",
    "HEIC": rb"....ftyp(hei|hev|mif1|msf1)",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "PPM": rb"P[1-6][\s#]",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "PSD": rb"8BPS",
    "ICO": rb"\0\0[\x01\x02]\0[^\0]\0",
    "EPS": rb"%!PS",
    "SVG": rb"(\xef\xbb\xbf)?\s*(<\?xml.{0,400}?)?<svg",
}
_OTHERS = {
    "HTML": rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)",
    "XML": rb"(\xef\xbb\xbf)?\s*<[?!a-z]",
    "JSON": rb"\s*[{\[]\s*[\"{\[]",
    "PDF": rb"%PDF",
    "a ZIP archive": rb"PK[\x03\x05]",
    "gzip data": rb"\x1f\x8b",
    "a video": rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ",
    "text": rb"[\t\r\n\x20-\x7e]+\Z",
}
_IMAGE_PATTERNS = {name: re.compile(magic, re.DOTALL) for name, magic in _IMAGES.items()}
_OTHER_PATTERNS = {name: re.compile(magic, re.DOTALL | re.IGNORECASE) for name, magic in _OTHERS.items()}


def image_format(data: bytes) -> str | None:
    """The image format of a file, with Pillow's name if it has one; None if it is no known format."""
    return _first(_IMAGE_PATTERNS, data)


def describe(data: bytes) -> str:
    """What a file that is not an image looks like, for a message: "HTML", "a video", "no known format"."""
    return _first(_OTHER_PATTERNS, data) or "no known format"


def _first(patterns: dict[str, re.Pattern[bytes]], data: bytes) -> str | None:
    return next((name for name, pattern in patterns.items() if pattern.match(data[:512])), None)
