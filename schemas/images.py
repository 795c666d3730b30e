"""The values for an image in a worker: loaded, decoded, classified, detected."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Content(Protocol):
    """The bytes of a file: `bytes`, or what reads a part of a large file when it is asked for it."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One image, ready for the models.

    Attributes:
        pixels: uint8, shape (height, width, 3), RGB, upright (EXIF orientation applied), C-contiguous.
        format: format of the file, with Pillow's name: "JPEG", "PNG", "WEBP", ...
        exif_orientation: the orientation that was applied, 1 to 8: of EXIF, else of XMP; 1 if there is none.
        source_mode: the file's own colour mode, with Pillow's name: "RGB", "L", "CMYK", "I;16", ...
        frame_count: frames in the file, at most 65,536; only the first is decoded.
        exif: its EXIF as it is in the file, for `workers.decode.exif`; of a TIFF the whole file. Empty where
            there is none, or it was read already.
    """

    pixels: NDArray[np.uint8]
    format: str
    exif_orientation: int
    source_mode: str
    frame_count: int
    exif: Content = b""

    @property
    def width(self) -> int:
        """Pixels across, after orientation."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels down, after orientation."""
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class Classification:
    """The classes of one image, best first.

    Attributes:
        label_ids: int32, shape (k,), indices into the model's categories.
        scores: float32, shape (k,), descending.
    """

    label_ids: NDArray[np.int32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Detections:
    """The objects of one image, by descending score (ties in the model's own order).

    Attributes:
        boxes: float32, shape (n, 4), half-open [x1, y1, x2, y2] in pixels of the full-resolution upright
            image: 0 <= x1 < x2 <= width, 0 <= y1 < y2 <= height.
        scores: float32, shape (n,).
        class_ids: int32, shape (n,), the model's own class index.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A decoded image, with the size and hash of its file.

    Attributes:
        decoded: the decoded image.
        byte_size: bytes of the file.
        sha256: of the file's bytes; 32 bytes.
        facts: values of the columns that `facts` of the job asks for, by name: see `schemas.tables.FACTS_OF`.
    """

    decoded: DecodedImage
    byte_size: int
    sha256: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)
