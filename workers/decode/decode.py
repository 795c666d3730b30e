"""Decodes the bytes of an image file to upright 8-bit RGB pixels."""

import io
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
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from schemas.errors import MESSAGE_LIMIT, ErrorCode, Stage
from schemas.exceptions import ImageError
from schemas.images import DecodedImage
from workers.decode.jpeg import has_every_scan, lacks_scan_data
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
    "PPM": PpmImagePlugin.PpmImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}


class _Source(io.BytesIO):
    """A file in memory that records whether a codec read past its end."""

    ran_dry = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        # Codecs read scan data in blocks of MAXBLOCK or more; the last block is short in any file, cut or not
        if size and size > 0 and (not data or len(data) < size < ImageFile.MAXBLOCK):
            self.ran_dry = True
        return data


def decode(data: bytes, *, max_pixels: int) -> DecodedImage:
    """Decodes the first picture of an image file to upright 8-bit RGB.

    The format is sniffed from the bytes: JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF, JPEG 2000 and PBM/PGM/PPM
    are decoded, nothing else. JPEG goes through libjpeg-turbo and equals Pillow bit for bit; everything else,
    and every JPEG that is not plain grey or three-channel colour, goes through Pillow. An MPO (a phone's JPEG
    with previews, gain maps or a second eye behind it) is a JPEG of one frame.

    Other modes become 8-bit RGB like this:
        grey, 1-bit, palette: the same colours in RGB.
        16-bit grey: round(v * 255 / 65535), never clipped. 12-bit grey TIFF: round(v * 255 / 4095).
        16-bit colour: the high byte, which is how Pillow reads it.
        alpha, and a transparent palette entry or colour: composited on white, round(c*a/255 + 255 - a).
        CMYK, YCCK, YCbCr: Pillow's own conversion, without ICC profiles.
        32-bit integers and floats: UNSUPPORTED, as nothing in the file says which value is white.

    Thread-safe: it sets no global state of Pillow, and does not depend on it.

    Args:
        data: the whole file.
        max_pixels: width times height may not exceed this. Checked before memory for pixels is allocated.

    Returns:
        The picture: pixels uint8 (height, width, 3), RGB, upright, C-contiguous, writable.

    Raises:
        ImageError: stage DECODE. EMPTY: no bytes. NOT_AN_IMAGE: another kind of file. TOO_LARGE: over
            max_pixels. TRUNCATED: the bytes end before the picture does. UNSUPPORTED: a format, a variant or
            damage that cannot be decoded here. OUT_OF_MEMORY.
    """
    if not data:
        raise _error(ErrorCode.EMPTY, "The file has no bytes.")
    name = _decodable(data)
    source = _Source(data)
    try:
        return _decode_jpeg(data, source, max_pixels) if name == "JPEG" else _decode(name, source, max_pixels)
    except ImageError:
        raise
    except MemoryError as error:
        raise _error(ErrorCode.OUT_OF_MEMORY, f"No memory to decode this {name} file.") from error
    except Image.DecompressionBombError as error:
        raise _error(ErrorCode.TOO_LARGE, f"{name}: {error}") from error
    except Exception as error:  # a codec may raise anything for bad bytes
        if source.ran_dry or _ends_early(name, data) or _reports_early_end(error):
            raise _error(ErrorCode.TRUNCATED, f"The {name} file ends early: {error}") from error
        message = f"This {name} file cannot be decoded: {type(error).__name__}: {error}"
        raise _error(ErrorCode.UNSUPPORTED, message) from error


def _decodable(data: bytes) -> str:
    """The image format of the bytes, a key of `_PLUGINS`; raises ImageError for anything else."""
    name = image_format(data)
    if name in _PLUGINS:
        return name
    if name:
        raise _error(ErrorCode.UNSUPPORTED, f"{name} images are not decoded; found {data[:16]!r}.")
    message = f"Not an image: looks like {describe(data)}, begins {data[:32]!r}."
    raise _error(ErrorCode.NOT_AN_IMAGE, message)


def _decode(name: str, source: _Source, max_pixels: int) -> DecodedImage:
    """Decodes any format but JPEG with Pillow."""
    if name == "WEBP":  # libwebp allocates the canvas when it opens a file
        _check_size(_webp_size(source.getvalue()), max_pixels)
    image: Any = _PLUGINS[name](source)  # plugins add attributes that ImageFile's type does not have
    _check_size(image.size, max_pixels)
    mode, frames = image.mode, getattr(image, "n_frames", 1)
    if name == "TIFF":  # Pillow rotates a TIFF as it loads it, and then drops the orientation
        orientation = _orientation(image)
        pixels = _to_rgb(image)
    else:
        pixels = _to_rgb(image)
        orientation = _orientation(image)  # a PNG may have it after the pixels
        pixels = _upright(pixels, orientation)
    return DecodedImage(np.ascontiguousarray(pixels), name, orientation, mode, frames)


def _decode_jpeg(data: bytes, source: _Source, max_pixels: int) -> DecodedImage:
    """Decodes a JPEG with libjpeg-turbo where that equals Pillow, otherwise with Pillow.

    A cut JPEG must fail, but libjpeg fills in what is missing and only warns. Three checks find cuts: missing
    scans before decoding, the text of the first warning, and, behind any other warning, missing scan data.
    """
    image = JpegImagePlugin.JpegImageFile(source)
    width, height = image.size
    _check_size(image.size, max_pixels)
    if not has_every_scan(data, image):
        raise _error(ErrorCode.TRUNCATED, "The JPEG file ends early: it lacks scans.")
    mode, orientation = image.mode, _orientation(image)
    # The buffer has the size of the checked header: if libjpeg-turbo reads another size, it raises
    pixels = np.empty((height, width, 3), np.uint8)
    try:
        decoded = simplejpeg.decode_jpeg(data, "RGB", buffer=pixels, strict=True)
        exact = mode in {"L", "RGB"} and decoded.shape == pixels.shape
    except ValueError as error:  # the text of libjpeg's first warning
        if _reports_early_end(error):
            raise _error(ErrorCode.TRUNCATED, f"The JPEG file ends early: {error}") from error
        exact = False
        if lacks_scan_data(data, image):
            raise _error(ErrorCode.TRUNCATED, f"The JPEG file ends early, after: {error}") from error
    if not exact:
        pixels = _to_rgb(image)
    return DecodedImage(_upright(pixels, orientation), "JPEG", orientation, mode, 1)


def _to_rgb(image: Any) -> NDArray[np.uint8]:
    """Loads a Pillow image as uint8 (height, width, 3), by the rules in `decode`."""
    image.load()
    # Mode I is 32 bits wide, but Pillow also uses it for 16-bit PGM and, in some versions, for 16-bit PNG.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        twelve_bit = image.format == "TIFF" and image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE) == (12,)
        white = 4095 if twelve_bit else 65535
        values = np.asarray(image).astype(np.uint32)
        grey = ((values * 255 + white // 2) // white).astype(np.uint8)
        grey[values == image.info.get("transparency", -1)] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in {"I", "F"}:
        kind = "32-bit integers" if image.mode == "I" else "floats"
        raise _error(ErrorCode.UNSUPPORTED, f"{image.format} pixels are {kind} of unknown range.")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", rgba.size, "white")
        image.paste(rgba, mask=rgba)
    return np.array(image.convert("RGB"))


def _orientation(image: Any) -> int:
    """The EXIF orientation, as `PIL.ImageOps.exif_transpose` reads it; 1 if it is absent or invalid."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF does not damage the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Applies an EXIF orientation, so that the pixels are upright; C-contiguous."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


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


def _ends_early(name: str, data: bytes) -> bool:
    """Whether the container is longer, by its header, than the file; for codecs that do not report that."""
    if name == "WEBP":
        return 8 + int.from_bytes(data[4:8], "little") > len(data)
    if name == "JPEG2000":
        return not data.endswith(b"\xff\xd9")
    end = 0
    while name == "AVIF" and end < len(data):  # boxes, each with its size (ISO/IEC 14496-12, 4.2)
        end += max(8, int.from_bytes(data[end : end + 4]))
    return end > len(data)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        message = (
            f"{width} x {height} = {width * height:,} pixels, over the limit of {max_pixels:,} (max_pixels)."
        )
        raise _error(ErrorCode.TOO_LARGE, message)


def _error(code: ErrorCode, message: str) -> ImageError:
    return ImageError(Stage.DECODE, code, message[:MESSAGE_LIMIT])
