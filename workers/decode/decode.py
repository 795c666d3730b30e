"""Decodes the bytes of an image file to upright 8-bit RGB pixels."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from schemas.errors import ErrorCode
from schemas.exceptions import ImageError
from schemas.images import Content, DecodedImage
from workers.decode import gif, heif, jpeg, jpeg2000, png, pnm, tiff
from workers.decode.bands import Bands
from workers.decode.errors import decode_error, ends_early
from workers.decode.orientation import orientation_of, upright
from workers.decode.picture import MAX_FRAMES, Limits, Picture
from workers.decode.sniff import describe, image_format

# The only plugins of Pillow that ever read a file. Others are not safe for untrusted bytes: EPS starts
# Ghostscript; ICO contains a picture whose size is not in its header. They are called directly, because
# Image.open() warns above a size limit of its own, and warnings cannot be caught thread-safely.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "AVIF": AvifImagePlugin.AvifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}

_BYTES_A_PIXEL = {
    "AVIF": 12,
    "BMP": 9,
    "GIF": 6,
    "HEIC": 15,
    "HEIC RGBA": 20,
    "HEIC RGBa": 20,
    "JPEG": 10,
    "JPEG CMYK": 16,
    "JPEG2000": 20,
    "JPEG2000 RGBA": 25,
    "PNG": 16,
    "PPM": 5,
    "TIFF": 16,
    "TIFF in bands": 4,
    "TIFF in bands and turned": 7,
    "WEBP": 17,
}
"""What decoding takes at its peak, of a mode where that differs, measured: docs/notes/decoders.md."""

MEGABYTE = 2**20

PIECE = 2**18
"""Pixels that are converted at once."""

# A thread that decodes is the one whose time counts, and its process has no more threads than it should
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


class _Source(io.BytesIO):
    """A file in memory that records whether a codec read past its end."""

    ran_dry = False

    def give(self, file: bytes) -> None:
        """Replaces the file."""
        super().__init__(file)

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        # Codecs read scan data in blocks of MAXBLOCK or more; the last block is short in any file, cut or not
        if size and size > 0 and (not data or len(data) < size < ImageFile.MAXBLOCK):
            self.ran_dry = True
        return data


def decode(data: Content, *, max_pixels: int, memory: int | None = None) -> DecodedImage:
    """Decodes the first picture of an image file to upright 8-bit RGB.

    The format is sniffed from the bytes: JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF, JPEG 2000, PBM/PGM/PPM and,
    where pillow-heif is installed, HEIC are decoded, nothing else. JPEG goes through libjpeg-turbo and equals
    Pillow bit for bit; everything else, and every JPEG that is not plain grey or three-channel colour, goes
    through Pillow. An MPO (a phone's JPEG with previews, gain maps or a second eye behind it) is a JPEG of
    one frame. Of a HEIC its primary picture is decoded.

    Only what the first picture needs is read of JPEG, PNG and TIFF. Damage elsewhere, in metadata or in a
    later frame or page, costs nothing, and their size hardly any time.

    Other modes become 8-bit RGB like this:
        grey, 1-bit, palette: the same colours in RGB; where a TIFF says that zero is white, so it is.
        16-bit grey: round(v * 255 / 65535), never clipped. 12-bit grey TIFF: round(v * 255 / 4095).
        16-bit colour: the high byte, which is how Pillow reads it. 10- and 12-bit colour: as libheif does.
        alpha, and a transparent palette entry or colour: composited on white, round(c*a/255 + 255 - a).
        CMYK, YCCK, YCbCr: Pillow's own conversion, without ICC profiles.
        32-bit and signed integers, floats: UNSUPPORTED, as nothing in the file says which value is white.

    Thread-safe: it sets no global state of Pillow, and does not depend on it. (To import it makes Pillow read
    and write AVIF in one thread.)

    Args:
        data: the whole file. Of a large TIFF only parts are asked for, one after the other.
        max_pixels: width times height may not exceed this. Checked before memory for pixels is allocated.
        memory: bytes that decoding may take, as far as that is known before; None: any number.

    Returns:
        The picture: pixels uint8 (height, width, 3), RGB, upright, C-contiguous, writable.

    Raises:
        ImageError: stage DECODE. EMPTY: no bytes. NOT_AN_IMAGE: another kind of file. TOO_LARGE: over
            max_pixels, or decoding would take more than `memory`. TRUNCATED: the bytes end before the picture
            does. UNSUPPORTED: a format, a variant or damage that cannot be decoded here, a preview of a raw
            photo, or a file of so many parts that it would take long. OUT_OF_MEMORY: there is none left.
    """
    if not data:
        raise decode_error(ErrorCode.EMPTY, "The file has no bytes.")
    name = _decodable(data)
    source, limits = _Source(), Limits(max_pixels, memory)
    try:
        if name == "TIFF":
            return _decode_tiff(data, source, limits)
        data = data[:]
        source.give(data)
        match name:
            case "JPEG":
                return _decode_jpeg(data, source, limits)
            case "PPM":
                return _decode_pnm(data, limits)
            case "HEIC":
                return _decode_heic(data, source, limits)
        return _decode(name, data, source, limits)
    except ImageError:
        raise
    except MemoryError as error:
        raise decode_error(ErrorCode.OUT_OF_MEMORY, f"No memory to decode this {name} file.") from error
    except Image.DecompressionBombError as error:
        raise decode_error(ErrorCode.TOO_LARGE, f"{name}: {error}") from error
    except Exception as error:  # a codec may raise anything for bad bytes
        if source.ran_dry or _ends_early(name, data) or _reports_early_end(error):
            raise ends_early(name, str(error)) from error
        message = f"This {name} file cannot be decoded: {type(error).__name__}: {error}"
        raise decode_error(ErrorCode.UNSUPPORTED, message) from error


def _decodable(data: Content) -> str:
    """The image format of the bytes, a key of `_BYTES_A_PIXEL`; raises ImageError for anything else."""
    name = image_format(data)
    if name in _BYTES_A_PIXEL:
        return name
    if name:
        raise decode_error(ErrorCode.UNSUPPORTED, f"{name} images are not decoded; found {data[:16]!r}.")
    message = f"Not an image: looks like {describe(data)}, begins {data[:32]!r}."
    raise decode_error(ErrorCode.NOT_AN_IMAGE, message)


def _decode(name: str, data: bytes, source: _Source, limits: Limits) -> DecodedImage:
    """Decodes any other format with Pillow.

    Args:
        name: of the format.
        data: the whole file.
        source: the file, for Pillow.
        limits: of the picture.
    """
    if picture := _first_picture(name, data):
        return _decode_picture(name, picture, source, limits)
    if name == "WEBP":  # libwebp allocates the canvas when it opens a file
        _check_size(name, _webp_size(data), limits)
    image = _opened(name, source, limits)
    if name == "JPEG2000":
        jpeg2000.assert_few_blocks(data)
    mode = image.mode
    pixels = _to_rgb(image)
    exif, xmp = (_bytes(image.info.get(key)) for key in ("exif", "xmp"))
    orientation, frames = orientation_of(exif, xmp), min(getattr(image, "n_frames", 1), MAX_FRAMES)
    return DecodedImage(upright(pixels, orientation), name, orientation, mode, frames, exif)


def _decode_tiff(data: Content, source: _Source, limits: Limits) -> DecodedImage:
    """Decodes the first page of a TIFF, in bands where it can be."""
    picture = tiff.first_picture(data)
    if picture.bands is None:
        return _decode_picture("TIFF", picture, source, limits)
    is_turned = " and turned" if picture.orientation > 1 else ""
    _check_size("TIFF", (picture.bands.width, picture.bands.height), limits, f"in bands{is_turned}")
    pixels, mode = _in_bands(picture.bands, source)
    pixels = upright(pixels, picture.orientation)
    return DecodedImage(pixels, "TIFF", picture.orientation, mode, picture.frames, picture.exif)


def _decode_picture(name: str, picture: Picture, source: _Source, limits: Limits) -> DecodedImage:
    """Decodes the first picture of a file, which is known already."""
    source.give(picture.file)
    source.ran_dry = picture.is_cut
    image = _opened(name, source, limits)
    mode = image.mode
    pixels = upright(_to_rgb(image), picture.orientation)
    return DecodedImage(pixels, name, picture.orientation, mode, picture.frames, picture.exif)


def _opened(name: str, source: _Source, limits: Limits) -> Any:
    """A file as Pillow's image, whose plugins add attributes that their type does not have."""
    image = _PLUGINS[name](source)
    _check_size(name, image.size, limits, image.mode)
    return image


def _in_bands(bands: Bands, source: _Source) -> tuple[NDArray[np.uint8], str]:
    """The pixels of a TIFF, uint8 (height, width, 3), and its mode.

    Args:
        bands: of its page.
        source: gets the file of each band.
    """
    pixels = np.empty((bands.height, bands.width, 3), np.uint8)
    for top, bottom, file in bands.files():
        source.give(file)
        image: Any = _PLUGINS["TIFF"](source)
        mode = image.mode
        pixels[top:bottom] = _to_rgb(image)
    return pixels, mode


def _first_picture(name: str, data: bytes) -> Picture | None:
    """The first picture of a file of a format that is read here; None where Pillow reads all of it."""
    match name:
        case "PNG":
            return png.first_picture(data)
        case "GIF":
            return Picture(data, 1, gif.count_frames(data))
    return None


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _decode_pnm(data: bytes, limits: Limits) -> DecodedImage:
    header = pnm.read_header(data)
    _check_size("PPM", (header.width, header.height), limits)
    return DecodedImage(pnm.decode_pixels(data, header), "PPM", 1, header.mode, 1)


def _decode_heic(data: bytes, source: _Source, limits: Limits) -> DecodedImage:
    """Decodes the primary picture of a HEIC with libheif, which turns it as the file's own boxes say."""
    plugin = heif.plugin()
    picture = heif.primary_picture(data)
    coded = picture.sizes[0]  # what is shown is less where encoders added to it, or it is cropped
    if (coded[0] - heif.MAX_PADDING) * (coded[1] - heif.MAX_PADDING) > limits.pixels:
        _check_size("HEIC", coded, limits)
    source.give(picture.file)
    image = plugin(source)
    _check_size("HEIC", image.size, limits, image.mode)
    if not heif.is_padded(coded, image.size):
        _check_size("HEIC", coded, limits, image.mode)
    mode = image.mode
    return DecodedImage(_to_rgb(image), "HEIC", picture.orientation, mode, picture.frames, picture.exif)


def _decode_jpeg(data: bytes, source: _Source, limits: Limits) -> DecodedImage:
    """Decodes a JPEG with libjpeg-turbo where that equals Pillow, otherwise with Pillow.

    A cut JPEG must fail, but libjpeg fills in what is missing and only warns. Three checks find cuts: missing
    scans before decoding, the text of the first warning, and, behind any other warning, missing scan data.
    """
    header = jpeg.read_header(data)
    file = header.whole(data)
    source.give(file)
    image = JpegImagePlugin.JpegImageFile(source)
    width, height = image.size
    _check_size("JPEG", image.size, limits, image.mode)
    if not jpeg.has_every_scan(data, image):
        raise ends_early("JPEG", "it lacks scans")
    mode, orientation = image.mode, orientation_of(header.exif, header.xmp)
    # The buffer has the size of the checked header: if libjpeg-turbo reads another size, it raises
    pixels = np.empty((height, width, 3), np.uint8)
    try:
        decoded = simplejpeg.decode_jpeg(data, "RGB", buffer=pixels, strict=True)
        exact = mode in {"L", "RGB"} and decoded.shape == pixels.shape
    except ValueError as error:  # the text of libjpeg's first warning
        if _reports_early_end(error):
            raise ends_early("JPEG", str(error)) from error
        exact = False
        if not header.arithmetic and jpeg.lacks_scan_data(file, image):
            raise ends_early("JPEG", f"after: {error}") from error
    if not exact:
        pixels = _to_rgb(image)
    return DecodedImage(upright(pixels, orientation), "JPEG", orientation, mode, 1, header.exif)


def _to_rgb(image: Any) -> NDArray[np.uint8]:
    """Loads a Pillow image as uint8 (height, width, 3), by the rules in `decode`, and closes it.

    In pieces, so that hardly more memory is taken than for the image and the result.
    """
    image.load()
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    convert = _converter(image)
    for left, top, right, bottom in _pieces(width, height):
        pixels[top:bottom, left:right] = convert(image.crop((left, top, right, bottom)))
    image.close()
    return pixels


def _pieces(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of up to `PIECE` pixels that together are a picture."""
    wide = min(width, PIECE)
    high = PIECE // wide
    for top in range(0, height, high):
        for left in range(0, width, wide):
            yield left, top, min(left + wide, width), min(top + high, height)


def _converter(image: Any) -> Callable[[Any], NDArray[np.uint8]]:
    """What makes uint8 (height, width, 3 or 1) of a piece of a loaded Pillow image."""
    # Mode I is 32 bits wide, but some versions of Pillow use it for 16-bit PNG
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _deep_grey_converter(image)
    if image.mode in {"I", "F"}:
        kind = "signed or 32-bit integers" if image.mode == "I" else "floats"
        message = f"{image.format} pixels are {kind} of unknown range."
        raise decode_error(ErrorCode.UNSUPPORTED, message)
    return _on_white if image.has_transparency_data else _in_rgb


def _in_rgb(piece: Any) -> NDArray[np.uint8]:
    return np.asarray(piece if piece.mode == "RGB" else piece.convert("RGB"))


def _on_white(piece: Any) -> NDArray[np.uint8]:
    rgba = piece.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba)
    return np.asarray(white)


def _deep_grey_converter(image: Any) -> Callable[[Any], NDArray[np.uint8]]:
    """Scales pieces of a grey Pillow image of 16 bits, 12 of which a TIFF may use, to uint8."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    white = 4095 if tags.get(TiffImagePlugin.BITSPERSAMPLE) == (12,) else 65535
    if image.format == "HEIF":  # its 10 or 12 bits are the upper ones
        white = 2**16 - 2 ** (16 - image.info["bit_depth"])
    # Pillow inverts 8 bits and fewer by itself
    is_inverted = tags and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0
    transparent = image.info.get("transparency", -1)

    def convert(piece: Any) -> NDArray[np.uint8]:
        values = np.asarray(piece).astype(np.uint32)
        grey = ((values * 255 + white // 2) // white).astype(np.uint8)
        if is_inverted:
            grey = 255 - grey
        grey[values == transparent] = 255
        return grey[:, :, None]

    return convert


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas (RFC 9649, 2.5 to 2.7); (0, 0) if the header is cut or unknown."""
    if data[12:16] == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    size = np.frombuffer(data[26:30].ljust(4, b"\0"), "<u2") & 0x3FFF
    return int(size[0]), int(size[1])


def _reports_early_end(error: Exception) -> bool:
    """Whether a codec's message says that the file ended too early."""
    return any(words in str(error).lower() for words in ("truncated", "premature end", "marker 0xd9 instead"))


def _ends_early(name: str, data: Content) -> bool:
    """Whether the container is longer, by its header, than the file; for codecs that do not report that."""
    if name == "WEBP":
        return 8 + int.from_bytes(data[4:8], "little") > len(data)
    if name == "JPEG2000":
        return data[-2:] != b"\xff\xd9"
    end = 0
    while name == "AVIF" and end < len(data):  # boxes, each with its size (ISO/IEC 14496-12, 4.2)
        end += max(8, int.from_bytes(data[end : end + 4]))
    return end > len(data)


def _check_size(name: str, size: tuple[int, int], limits: Limits, mode: str = "") -> None:
    """Refuses a picture by its size, before memory is taken for it; the mode is not always known by then."""
    width, height = size
    pixels = width * height
    if pixels > limits.pixels:
        message = (
            f"{width} x {height} = {pixels:,} pixels, over the limit of {limits.pixels:,}. In a new run set "
            f"decode.max_pixels to {pixels} or more, if you trust the file."
        )
        raise decode_error(ErrorCode.TOO_LARGE, message)
    takes = pixels * _BYTES_A_PIXEL.get(f"{name} {mode}", _BYTES_A_PIXEL[name])
    if limits.memory is not None and takes > limits.memory:
        message = (
            f"To decode this {name} file of {width} x {height} pixels takes about {takes // MEGABYTE:,} MB, "
            f"this process's share of the memory is {limits.memory // MEGABYTE:,} MB. Set compute.cpus to "
            "more for each actor (next to a GPU: to fewer), or use more memory."
        )
        raise decode_error(ErrorCode.TOO_LARGE, message)
