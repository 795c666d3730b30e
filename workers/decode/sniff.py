"""Recognises the format of a file by its first bytes; its name is ignored."""

import re

from schemas.images import Content

SNIFFED = 4_096
"""Bytes of a file that are looked at."""

_XML_BEFORE_ROOT = rb"""(?x:(?:\xef\xbb\xbf)?\s*
    (?:<\?(?:(?!\?>).)*\?>\s* | <!--(?:(?!-->).)*-->\s* | <!DOCTYPE\s+svg[^\[>]*(?:\[[^\]]*\]\s*)?>\s*)*)"""

# The first match counts. Only those whose name is one of Pillow's may be decodable.
_IMAGES = {
    "JPEG-LS": rb"\xff\xd8\xff\xf7",
    "JPEG": rb"\xff\xd8\xff",
    "Apple CgBI": rb"\x89PNG\r\n\x1a\n....CgBI",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "MNG": rb"\x8aMNG\r\n\x1a\n",
    "JNG": rb"\x8bJNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF....WEBP",
    "ANI": rb"RIFF....ACON",
    "CorelDRAW": rb"RIFF....CDR",
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "OS/2 bitmap array": rb"BA.{12}(BM|IC|PT|CI|CP)",
    "Canon raw (CR2)": rb"II\*\0.{4}CR",
    "Phase One raw (IIQ)": rb"II\*\0.{4}IIII|MM\0\*.{4}MMMM",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "Olympus raw (ORF)": rb"IIR[OS]|MMOR",
    "Panasonic raw (RW2)": rb"IIU\0",
    "Canon raw (CRW)": rb"II\x1a\0\0\0HEAP",
    "Canon raw (CR3)": rb"....ftypcrx ",
    "Fujifilm raw (RAF)": rb"FUJIFILM",
    "Sigma raw (X3F)": rb"FOVb",
    "Minolta raw (MRW)": rb"\0MRM",
    "JPEG XR": rb"II\xbc[\0\x01]",
    "AVIF": rb"....ftyp(avi[fs]|(mif1|msf1|miaf).{4,64}avi[fs])",
    "HEIC": rb"....ftyp(hei[cxmsf]|hev[cxms]|mif[12]|msf1|miaf|avc[is])",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL |....ftypjxl ",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "PPM": rb"P[1-6](\s+\d|\s*#)",
    "PAM": rb"P7\s",
    "PFM": rb"P[Ff]4?\s*\n\s*\d+\s+\d+\s",
    "PSD": rb"8BP[SB]\0[\x01\x02]",
    "ICO": rb"\0\0\x01\0[^\0]\0",
    "CUR": rb"\0\0\x02\0[^\0]\0.{3}\0",
    "ICNS": rb"icns",
    "EPS": rb"%!PS|\xc5\xd0\xd3\xc6",
    "DDS": rb"DDS \x7c\0\0\0",
    "QOI": rb"qoif",
    "PCX": rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]",
    "DCX": rb"\xb1\x68\xde\x3a",
    "SGI": rb"\x01\xda[\0\x01][\x01\x02]",
    "Sun raster": rb"\x59\xa6\x6a\x95",
    "OpenEXR": rb"\x76\x2f\x31\x01",
    "Radiance HDR": rb"#\?R(ADIANC|GB)E",
    "FITS": rb"SIMPLE  =",
    "DICOM": rb".{128}DICM",
    "DPX": rb"SDPX|XPDS",
    "Cineon": rb"\x80\x2a\x5f\xd7|\xd7\x5f\x2a\x80",
    "XCF": rb"gimp xcf ",
    "Krita": rb"PK\x03\x04.{26}mimetypeapplication/x-krita",
    "OpenRaster": rb"PK\x03\x04.{26}mimetypeimage/openraster",
    "PaintShop Pro": rb"Paint Shop Pro Image File",
    "IFF ILBM": rb"FORM....(ILBM|PBM |ACBM|RGB8|RGBN|DEEP)",
    "DjVu": rb"AT&TFORM",
    "XPM": rb"\s*/\* XPM(2)? ",
    "XBM": rb"\s*(/\*(?:(?!\*/).)*\*/\s*)?#define\s+\S+_width\s+\d",
    "XWD": rb"\0\0\0.\0\0\0\x07\0\0\0[\0\x01\x02]\0\0\0.",
    "WMF": rb"\xd7\xcd\xc6\x9a|[\x01\x02]\0\x09\0\0[\x01\x03]",
    "EMF": rb"\x01\0\0\0.{36} EMF",
    "BPG": rb"BPG\xfb",
    "FLIF": rb"FLIF[\x31-\x66]",
    "JBIG2": rb"\x97JB2\r\n\x1a\n",
    "farbfeld": rb"farbfeld",
    "KTX": rb"\xabKTX [12][10]\xbb\r\n\x1a\n",
    "PVR": rb"PVR\x03",
    "ASTC": rb"\x13\xab\xa1\x5c",
    "BLP": rb"BLP[012]",
    "VTF": rb"VTF\0",
    "FLI": rb".{4}[\x11\x12]\xaf.{6}\x08\0",
    "PhotoCD": rb".{2048}PCD_IPI",
    "VICAR": rb"LBLSIZE=",
    "NRRD": rb"NRRD000",
    "MSP": rb"DanM|LinS",
    "IM": rb"Image type:",
    "MrSID": rb"msid",
    "PGX": rb"PG (ML|LM)\s",
    "PICT": rb".{522}\0\x11\x02\xff\x0c\0",
    "QuickTime image": rb"....(idsc|idat)",
    "Softimage PIC": rb"\x53\x80\xf6\x34",
    "NITF": rb"NITF0|NSIF0",
    "SVG": _XML_BEFORE_ROOT + rb"<(\w+:)?svg[\s/>]",
    "TGA": rb".\0[\x02\x03\x0a\x0b]\0{5}.{4}(?!\0\0)..(?!\0\0)..[\x08\x0f\x10\x18\x20][\0-\x3f]"
    rb"|.\x01[\x01\x09]..(?!\0\0)..[\x0f\x10\x18\x20].{4}(?!\0\0)..(?!\0\0)..[\x08\x10][\0-\x3f]",
}
_ENDINGS = {"TGA": b"TRUEVISION-XFILE.\0"}
"""Formats that may be known by their last bytes alone."""

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


def image_format(data: Content) -> str | None:
    """The image format of a file, with Pillow's name if it has one; None if it is no known format."""
    ending = (name for name, last in _ENDINGS.items() if data[-len(last) :] == last)
    return _first(_IMAGE_PATTERNS, data[:SNIFFED]) or next(ending, None)


def describe(data: Content) -> str:
    """What a file that is not an image looks like, for a message: "HTML", "a video", "no known format"."""
    return _first(_OTHER_PATTERNS, data[:512]) or "no known format"


def _first(patterns: dict[str, re.Pattern[bytes]], data: bytes) -> str | None:
    return next((name for name, pattern in patterns.items() if pattern.match(data)), None)
