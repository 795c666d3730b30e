"""How an image becomes a network's input, by values that a model's file or a job spec states."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from schemas.errors import ErrorCode, Stage
from schemas.exceptions import ImageError, ModelError
from schemas.tasks import InputSpec, ModelSpec

Fit = Literal["center", "top-left", "square", "none", "short side"]
Size = tuple[int, int]
"""Height and width in pixels."""

Three = tuple[float, float, float]
Pixels = NDArray[np.uint8]
"""uint8 (height, width, 3)."""

IMAGENET_MEAN: Three = (0.485, 0.456, 0.406)
IMAGENET_STD: Three = (0.229, 0.224, 0.225)
CLIP_MEAN: Three = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Three = (0.26862954, 0.26130258, 0.27577711)

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's, by the names that a job spec has for them."""

_STEPS = 2048
"""Parts of a pixel that OpenCV's weights are rounded to."""

_PART = 2**22
"""Pixels of a square that are in memory at a time, where an image is padded to one."""

MAX_ASPECT = 200
"""Longest ratio of sides of an image whose memory grows with it."""


@dataclass(frozen=True)
class Placement:
    """Where an image is in a network's input.

    Attributes:
        gain: input pixels per image pixel, across and down.
        offset: of the image's corner in the input, in input pixels, across and down.
    """

    gain: tuple[float, float]
    offset: tuple[int, int] = (0, 0)

    def undo(self, boxes: Tensor) -> Tensor:
        """Boxes, float (n, 4), [x1, y1, x2, y2] in input pixels, in pixels of the image."""
        return (boxes - boxes.new_tensor(self.offset * 2)) / boxes.new_tensor(self.gain * 2)


@dataclass(frozen=True)
class Preprocess:
    """Turns uint8 RGB (3, H, W) on the CPU into a network's input, float32 (3, h, w).

    Attributes:
        size: what the image is resized or fitted to; for "short side" its first number is that side.
        fit: "short side" keeps the image's shape; see `schemas.tasks.InputSpec.letterbox` for the others.
        crop: the centre that is kept after that; None: all.
        pad: value of the rest of the input, 0 to 255.
        interpolation: see `schemas.tasks.InputSpec`.
        channels: their order, "rgb" or "bgr".
        scale: what values are divided by.
        mean: subtracted then, by the input's channels.
        std: divided by then.
    """

    size: Size
    fit: Fit = "none"
    crop: Size | None = None
    pad: int = 114
    interpolation: str = "bilinear"
    channels: str = "rgb"
    scale: float = 255.0
    mean: Three = (0.0, 0.0, 0.0)
    std: Three = (1.0, 1.0, 1.0)

    def __str__(self) -> str:
        """All that decides an input, with the keys of `schemas.tasks.InputSpec`."""
        values: dict[str, object] = {"size": self.size[0] if self.fit == "short side" else list(self.size)}
        if self.crop is not None:
            values["crop"] = list(self.crop)
        elif self.fit != "short side":
            values["letterbox"] = self.fit
        if self.fit in ("center", "top-left", "square"):
            values["pad"] = self.pad
        values |= {"interpolation": self.interpolation, "channels": self.channels}
        values |= {"scale": self.scale, "mean": list(self.mean), "std": list(self.std)}
        return ", ".join(f"{key}: {_plain(value)}" for key, value in values.items())

    def __call__(self, image: Tensor) -> Tensor:
        """The network's input for one image."""
        pixels = self._cropped(self._fitted(image.permute(1, 2, 0).cpu().numpy()))
        if self.channels == "bgr":
            pixels = pixels[:, :, ::-1]
        values = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float()
        if self.scale != 1:
            values.div_(self.scale)
        if self.mean != (0, 0, 0):
            values.sub_(values.new_tensor(self.mean)[:, None, None])
        return values if self.std == (1, 1, 1) else values.div_(values.new_tensor(self.std)[:, None, None])

    @property
    def output_size(self) -> Size:
        """Height and width of the network's input."""
        return self.crop or self.size

    def placement(self, width: int, height: int) -> Placement:
        """Where an image of a size is in the input, if nothing is cropped.

        "center" is placed, and undone, as Ultralytics' `LetterBox` and `scale_boxes` do it; "top-left" as
        YOLOX does.
        """
        down, across = self.size
        if self.fit == "none":
            return Placement((across / width, down / height))
        if self.fit == "square":
            return Placement((across / max(width, height), down / max(width, height)))
        gain = min(across / width, down / height)
        if self.fit == "top-left":
            return Placement((gain, gain))
        rows, columns = self._fitted_size(width, height)
        offset = (round((across - columns) / 2 - 0.1), round((down - rows) / 2 - 0.1))
        return Placement((gain, gain), offset)

    def _fitted_size(self, width: int, height: int) -> Size:
        """Height and width of an image within the input."""
        if self.fit == "short side":
            short = self.size[0]
            return (
                (short, int(short * width / height))
                if height < width
                else (int(short * height / width), short)
            )
        if self.fit in ("none", "square"):
            return self.size
        gain = min(self.size[0] / height, self.size[1] / width)
        whole = int if self.fit == "top-left" else round
        return max(1, whole(height * gain)), max(1, whole(width * gain))

    def _fitted(self, pixels: Pixels) -> Pixels:
        """An image resized, and padded where its shape is kept in an input of another shape."""
        height, width = pixels.shape[:2]
        if self.fit == "square":
            return _squared(pixels, self.size, self.pad, self.interpolation)
        resized = resized_to(pixels, self._fitted_size(width, height), self.interpolation)
        if self.fit not in ("center", "top-left"):
            return resized
        return _placed(resized, self.size, self.placement(width, height).offset, self.pad)

    def _cropped(self, pixels: Pixels) -> Pixels:
        """The centre of an image, as torchvision's `CenterCrop` has it; black where the image is smaller."""
        if self.crop is None:
            return pixels
        (height, width), (rows, columns) = pixels.shape[:2], self.crop
        if height < rows or width < columns:
            offset = (max(0, columns - width) // 2, max(0, rows - height) // 2)
            pixels = _placed(pixels, (max(height, rows), max(width, columns)), offset, 0)
            height, width = pixels.shape[:2]
        top, left = round((height - rows) / 2), round((width - columns) / 2)
        return pixels[top : top + rows, left : left + columns]


def with_spec(preprocess: Preprocess, spec: InputSpec | None) -> Preprocess:
    """A preprocessing with what a job spec says of it; sizes are not changed."""
    if spec is None:
        return preprocess
    given: dict[str, object] = spec.model_dump(
        include={"pad", "interpolation", "channels", "scale"}, exclude_none=True
    )
    given |= {"fit": spec.letterbox} if spec.letterbox else {}
    given |= {name: three(value) for name in ("mean", "std") if (value := getattr(spec, name)) is not None}
    return replace(preprocess, **given)  # type: ignore[arg-type]


CLASSIFIER_KEYS = ("size", "crop", "interpolation", "scale", "mean", "std")
"""What a job spec may say of the input of a classifier that is no file with its own preprocessing."""


def assert_usable(spec: ModelSpec, usable: Collection[str]) -> None:
    """Refuses keys of `input` that a kind of model cannot use.

    Raises:
        ModelError: there are some; the message names them.
    """
    given = spec.input.model_dump(exclude_none=True) if spec.input else {}
    if unusable := [key for key in given if key not in usable]:
        allowed = f"allowed: {', '.join(usable)}" if usable else "it makes its own; leave `input` out"
        raise ModelError(f"input: found {', '.join(unusable)}, which {spec.model} cannot use; {allowed}")


def with_input(own: Preprocess, spec: InputSpec) -> Preprocess:
    """The preprocessing of a classifier with what a job spec says of it.

    Args:
        own: of the classifier, with values of 0 to 1 (`scale` 255).
        spec: with `CLASSIFIER_KEYS`. A size without a crop is the network's input: of one number, the centre
            of the short side's length.

    Raises:
        ModelError: what is to be cropped is larger than what it is cropped from.
    """
    made = with_spec(own, spec)
    if spec.size is not None:
        fit: Fit = "none" if isinstance(spec.size, list) else "short side"
        made = replace(made, size=pair(spec.size), fit=fit, crop=pair(spec.size))
    if spec.crop is not None:
        made = replace(made, crop=pair(spec.crop))
    assert_crop_fits(made)
    return made


def assert_crop_fits(made: Preprocess, advice: str = "") -> None:
    """Refuses a crop that is larger than what it is cropped from, which would have black edges.

    Args:
        made: a preprocessing.
        advice: what else to say.

    Raises:
        ModelError: the crop is higher or wider.
    """
    if made.crop is not None and any(crop > size for crop, size in zip(made.crop, made.size, strict=True)):
        crop, size = ("x".join(map(str, sides)) for sides in (made.crop, made.size))
        raise ModelError(f"input: found a crop of {crop} from {size}; allowed: at most the size{advice}")


def _plain(value: object) -> str:
    """A value as a job spec has it, whole numbers without a point."""
    if isinstance(value, list):
        same = len(value) == 3 and len(set(value)) == 1
        return _plain(value[0]) if same else f"[{', '.join(map(_plain, value))}]"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def three(value: float | list[float]) -> Three:
    """A number for each channel."""
    first, second, third = value if isinstance(value, list) else [value] * 3
    return float(first), float(second), float(third)


def pair(size: int | list[int]) -> Size:
    """Height and width of a size in a job spec."""
    return (size[0], size[1]) if isinstance(size, list) else (size, size)


def _placed(pixels: Pixels, size: Size, offset: tuple[int, int], pad: int) -> Pixels:
    """An image in a larger one of a single colour, its corner at (x, y)."""
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    canvas = np.full((*size, 3), pad, np.uint8)
    canvas[offset[1] : offset[1] + height, offset[0] : offset[0] + width] = pixels
    return canvas


def is_strip(width: int, height: int) -> bool:
    """Whether one side of an image is over `MAX_ASPECT` times the other."""
    return max(width, height) > MAX_ASPECT * min(width, height)


def assert_no_strip(stage: Stage, width: int, height: int) -> None:
    """Refuses an image of which a step would make gigabytes: 1x20,000 pixels whose short side becomes 256.

    Raises:
        ImageError: one side is too long for the other.
    """
    if is_strip(width, height):
        message = f"{width}x{height} pixels: one side is over {MAX_ASPECT} times the other"
        raise ImageError(stage, ErrorCode.UNSUPPORTED, message)


def _squared(pixels: Pixels, size: Size, pad: int, interpolation: str) -> Pixels:
    """An image that is padded right and below to a square and then resized, bit for bit, without that square.

    OpenCV's way needs a row and a column of the padding. Pillow resizes rows first, each by itself.

    Raises:
        ImageError: it is a strip, of which Pillow would need minutes.
    """
    height, width = pixels.shape[:2]
    side = max(height, width)
    if interpolation == "linear":
        edged = _placed(pixels, (min(height + 1, side), min(width + 1, side)), (0, 0), pad)
        return _resized_as_opencv(edged, size, (side, side))
    assert_no_strip(Stage.DETECT, width, height)
    rows = max(1, _PART // side)
    parts = [pixels[top : top + rows] for top in range(0, height, rows)]
    padded = (_placed(part, (len(part), side), (0, 0), pad) for part in parts)
    across = np.concatenate([resized_to(it, (len(it), size[1]), interpolation) for it in padded])
    return resized_to(_placed(across, (side, size[1]), (0, 0), pad), size, interpolation)


def resized_to(pixels: Pixels, size: Size, interpolation: str) -> Pixels:
    """An image of another size, by OpenCV's rule ("linear") or Pillow's."""
    if pixels.shape[:2] == size:
        return pixels
    if interpolation == "linear":
        return _resized_as_opencv(pixels, size, pixels.shape[:2])
    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), _FILTERS[interpolation]))


def _resized_as_opencv(pixels: Pixels, size: Size, source: Size) -> Pixels:
    """What `cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)` returns, bit for bit.

    Networks that were trained on it answer with scores that are off by 0.01, and boxes by a pixel, where a
    tenth of the values is off by 1 of 255. Follows `resizeGeneric_` of OpenCV's imgproc/src/resize.cpp:
    weights are rounded to 1/2048, sums are cut, not rounded, on the way.

    Args:
        pixels: the image, or its first rows and columns, where all others are as the last of these.
        size: height and width afterwards.
        source: those of the image.
    """
    above, below, upper, lower = _taps(size[0], source[0], pixels.shape[0] - 1, at_edge=True)
    left, right, before, after = _taps(size[1], source[1], pixels.shape[1] - 1, at_edge=False)
    needed, at = np.unique(np.concatenate([above, below]), return_inverse=True)
    rows = pixels if len(needed) == len(pixels) else pixels[needed]
    lines = np.take(rows, left, axis=1).astype(np.int32)
    lines *= before[:, None]
    more = np.take(rows, right, axis=1).astype(np.int32)
    more *= after[:, None]
    lines += more
    lines >>= 4
    lines = lines.reshape(len(lines), -1)
    first, second = lines[at[: size[0]]], lines[at[size[0] :]]
    first *= upper[:, None]
    first >>= 16
    second *= lower[:, None]
    second >>= 16
    first += second
    first += 2
    first >>= 2
    return first.astype(np.uint8).reshape(*size, 3)


def _taps(
    length: int, source: int, last: int, *, at_edge: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """For each pixel of a side: the two of the source that it is made of, and their weights.

    Args:
        length: pixels of the side.
        source: those of the source's.
        last: the pixel of the source that all after it are as.
        at_edge: whether weights at the edge stay apart, though both are of one pixel: each is cut then.
    """
    at = ((np.arange(length) + 0.5) * (1 / (length / source)) - 0.5).astype(np.float32)
    first = np.floor(at)
    part = at - first
    index = first.astype(np.int64)
    if not at_edge:
        part[(index < 0) | (index >= source - 1)] = 0
    weights = (np.rint((1 - part) * _STEPS).astype(np.int32), np.rint(part * _STEPS).astype(np.int32))
    return index.clip(0, last), (index + 1).clip(0, last), *weights
