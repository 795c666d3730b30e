"""JPEG decoders: bytes to RGB pixels, the fastest of which is a floor."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Decoder = Callable[[bytes], NDArray[np.uint8]]


def raylabel() -> Decoder:
    """Ours, which also sniffs, checks and turns upright."""
    from workers.decode.decode import decode

    return lambda data: decode(data, max_pixels=120_000_000).pixels


def simplejpeg() -> Decoder:
    from simplejpeg import decode_jpeg

    return lambda data: decode_jpeg(data, "RGB")


def torchvision() -> Decoder:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(data: bytes) -> NDArray[np.uint8]:
        found = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        return np.asarray(found.permute(1, 2, 0))

    return decode


def opencv() -> Decoder:
    import cv2

    cv2.setNumThreads(1)
    return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def pillow() -> Decoder:
    import io

    from PIL import Image

    return lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


DECODERS = {maker.__name__: maker for maker in (raylabel, simplejpeg, torchvision, opencv, pillow)}
