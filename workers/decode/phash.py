"""The perceptual hash of a picture: near duplicates have hashes of which few bits differ.

The DCT hash of pHash (http://www.phash.org) as `imagehash.phash` computes it, bit for bit: of 32 x 32 grey
pixels the DCT, of that the 8 x 8 lowest frequencies, each compared with the median of all.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, KEPT = 32, 8
"""Of the pixels that are transformed, and of the frequencies that are kept."""

PIECE = 2**18
"""Pixels that are converted at once."""


def _twiddles() -> NDArray[np.float64]:
    """The cosines of pi / 64 to 31 pi / 64, rounded as in pocketfft, which adds two angles from 16 on."""
    small = [(math.cos(n * math.pi / 64), math.sin(n * math.pi / 64)) for n in range(16)]
    cosine, sine = math.sin(math.pi / 4), math.cos(math.pi / 4)
    large = [c * cosine - s * sine for c, s in small]
    return np.array([*(c for c, _ in small[1:]), *large])


_TWIDDLES = _twiddles()


def phash(pixels: NDArray[np.uint8]) -> int:
    """The hash as the two's complement of 64 bits: -2**63 to 2**63 - 1.

    The bit of the lowest frequency is the highest one; rows go from the top, each from the left: the bits of
    `str(imagehash.phash(image))`.

    Args:
        pixels: uint8 (height, width, 3), RGB, upright.
    """
    small = _grey(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    low = _dct(_dct(np.asarray(small, np.float64).T).T)[:KEPT, :KEPT]
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), signed=True)


def _grey(pixels: NDArray[np.uint8]) -> Any:
    """A picture in grey, converted in pieces: as a whole it would take five bytes a pixel more meanwhile."""
    height, width, _ = pixels.shape
    grey: Any = Image.new("L", (width, height))
    rows = max(1, PIECE // width)
    for top in range(0, height, rows):
        grey.paste(Image.fromarray(pixels[top : top + rows]).convert("L"), (0, top))
    return grey


def _dct(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The DCT of type 2 of each row, not normalised: as scipy computes it, step for step.

    Any other way rounds otherwise, and a picture that is symmetric or of one colour has frequencies that are
    nothing but rounding, whose bits would be others (pocketfft: https://gitlab.mpcdf.mpg.de/mtr/pocketfft).
    """
    half = SIDE // 2
    folded = values.copy()
    folded[:, 0] *= 2
    folded[:, -1] *= 2
    odd, even = values[:, 1:-1:2], values[:, 2:-1:2]
    complexes = np.empty((len(values), half + 1), np.complex128)
    complexes[:, 0] = folded[:, 0]
    complexes[:, 1:half] = (even + odd) + 1j * (even - odd)
    complexes[:, half] = folded[:, -1]
    result: NDArray[np.float64] = np.fft.irfft(complexes, SIDE, norm="forward")
    first, last = result[:, 1:half], result[:, : SIDE - half : -1]
    ahead, behind = _TWIDDLES[: half - 1], _TWIDDLES[: half - 1 : -1]
    sums, differences = ahead * last + behind * first, ahead * first - behind * last
    result[:, 1:half], result[:, : SIDE - half : -1] = 0.5 * (sums + differences), 0.5 * (sums - differences)
    result[:, half] *= _TWIDDLES[half - 1]
    return result
