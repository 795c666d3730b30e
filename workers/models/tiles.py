"""An image in tiles for a detector: where they are, and one list of objects from all of theirs.

Slicing aided hyper inference (SAHI: Akyon, Altinuc and Temizel, ICIP 2022) with two differences: tiles are
spread evenly, so that the last ones overlap no more than others; and which of two boxes is kept is not left
to scores alone, as a part of an object at a tile's border may score better than the object.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.images import DecodedImage, Detections

WHOLE_PIXELS = 32_000_000
"""Of an image as a whole, which is made smaller where it has more: detectors take it as floats, 12 bytes a
pixel, and make it far smaller themselves. An image of fewer goes as it is."""

CUT = 0.01
"""Part of a tile's side: a box that comes as near to a border within the image may be cut by it."""

COVERED = 0.7
"""Part of such a box that lies within another of its class, above which it shows a part of the other's."""

Boxes = NDArray[np.float32]


class Region(NamedTuple):
    """A part of an image, half-open, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Part:
    """What a detector gets of an image: a tile, or all of it.

    Attributes:
        image: its pixels: those of the image, not copied, or a smaller version of all of it.
        region: the part of the image that it shows.
        scale: pixels of the image for one of its own, across and down.
    """

    image: DecodedImage
    region: Region
    scale: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Tiling:
    """How images are cut, and their boxes merged.

    Attributes:
        size: pixels of a tile's side.
        step: from a tile to its neighbour, at most.
        iou: boxes of one class that overlap more than this are one object.
    """

    size: int
    step: int
    iou: float

    def regions(self, width: int, height: int) -> list[Region]:
        """The tiles of an image, row by row; none where it fits into one.

        All have the full size, or the image's where it is narrower or lower, so none is a sliver.
        """
        if max(width, height) <= self.size:
            return []
        return [
            Region(left, top, min(left + self.size, width), min(top + self.size, height))
            for top in self._starts(height)
            for left in self._starts(width)
        ]

    def _starts(self, length: int) -> list[int]:
        """Where tiles begin along a side: at both of its ends, and evenly between them."""
        spare = length - self.size
        if spare <= 0:
            return [0]
        steps = math.ceil(spare / self.step)
        return [spare * number // steps for number in range(steps + 1)]

    def parts(self, image: DecodedImage) -> list[Part]:
        """An image as a whole, then its tiles."""
        regions = self.regions(image.width, image.height)
        whole = Part(image, Region(0, 0, image.width, image.height))
        if not regions:
            return [whole]
        tiles = (Part(replace(image, pixels=_cut(image.pixels, region)), region) for region in regions)
        return [_smaller(whole), *tiles]

    def merged(
        self, parts: Sequence[Part], found: Sequence[Detections], groups: NDArray[np.int64] | None = None
    ) -> Detections:
        """The objects of an image from those of its parts, by descending score.

        A box is dropped whose sides are one number of float32 once it is placed: far away in a large image
        these are 0.002 apart.

        Args:
            parts: of the image, all of them.
            found: the objects of each part, boxes in pixels of the part's own image.
            groups: the number of each class's name by a class map, int64 (classes,); None: each class by
                itself.
        """
        if len(parts) == 1:
            return found[0]
        whole = parts[0].region
        boxes = np.concatenate([_placed(f.boxes, part) for f, part in zip(found, parts, strict=True)])
        is_cut = np.concatenate(
            [self._is_cut(f.boxes, part, whole) for f, part in zip(found, parts, strict=True)]
        )
        scores, class_ids = (
            np.concatenate([getattr(f, name) for f in found]) for name in ("scores", "class_ids")
        )
        of_part = np.repeat(np.arange(len(parts)), [len(f.scores) for f in found])
        candidates = Candidates(
            boxes, scores, class_ids if groups is None else groups[class_ids], of_part, is_cut
        )
        kept = suppress(candidates, self.iou, COVERED)
        kept = kept[(boxes[kept, 0] < boxes[kept, 2]) & (boxes[kept, 1] < boxes[kept, 3])]
        best = kept[np.argsort(-scores[kept], kind="stable")]
        return Detections(boxes[best], scores[best], class_ids[best])

    def _is_cut(self, boxes: Boxes, part: Part, whole: Region) -> NDArray[np.bool_]:
        """Which boxes of a part reach one of its borders that is none of the image, bool (n,)."""
        region, margin = part.region, CUT * self.size
        width, height = region.right - region.left, region.bottom - region.top
        sides = (
            (region.left > whole.left) & (boxes[:, 0] <= margin),
            (region.top > whole.top) & (boxes[:, 1] <= margin),
            (region.right < whole.right) & (boxes[:, 2] >= width - margin),
            (region.bottom < whole.bottom) & (boxes[:, 3] >= height - margin),
        )
        reached: NDArray[np.bool_] = np.logical_or.reduce(sides)
        return reached


def _cut(pixels: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
    """The pixels of a region; a view."""
    return pixels[region.top : region.bottom, region.left : region.right]


def _placed(boxes: Boxes, part: Part) -> Boxes:
    """Boxes of a part in pixels of the image."""
    across, down = part.scale
    moved = boxes * np.array([across, down, across, down], np.float64)
    left, top = part.region.left, part.region.top
    placed: Boxes = (moved + np.array([left, top, left, top])).astype(np.float32)
    return placed


def _smaller(whole: Part) -> Part:
    """A whole image with at most `WHOLE_PIXELS`: each pixel is the mean of a square of the image's.

    What is left over at the right and below, narrower than such a square, is left out.
    """
    image = whole.image
    factor = math.ceil(math.sqrt(image.width * image.height / WHOLE_PIXELS))
    factor = min(factor, image.width, image.height)
    if factor <= 1:
        return whole
    width, height = image.width // factor, image.height // factor
    small = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        lines = image.pixels[row * factor : (row + 1) * factor, : width * factor]
        sums = lines.sum(axis=0, dtype=np.uint32).reshape(width, factor, 3).sum(axis=1)
        small[row] = (sums + factor * factor // 2) // (factor * factor)
    return replace(whole, image=replace(image, pixels=small), scale=(float(factor), float(factor)))


class Candidates(NamedTuple):
    """Boxes of all parts of an image, of which several may show one object.

    Attributes:
        boxes: float32 (n, 4), [x1, y1, x2, y2] in pixels of the image.
        scores: float32 (n,).
        groups: integers (n,); only boxes of one group suppress each other.
        parts: integers (n,), in which each was found; within one the detector has suppressed them itself.
        is_cut: bool (n,); whether a box may be a part of an object.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    groups: NDArray[np.integer]
    parts: NDArray[np.integer]
    is_cut: NDArray[np.bool_]


def suppress(found: Candidates, iou: float, covered: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression, of boxes that are known to be whole first: the indices of what is kept.

    A box is dropped where it overlaps one of its group, of another part, that was kept before it more than
    `iou`; a cut one also where more than `covered` of its own area lies within such a box, as a part of an
    object does, of which intersection over union says little. Boxes are looked up in a grid, so that each is
    compared with its neighbours only: time and memory grow with the boxes, not with their pairs.

    Args:
        found: the boxes.
        iou: intersection over union, 0 to 1.
        covered: intersection over the area of the box, 0 to 1.
    """
    order = np.lexsort((-found.scores, found.is_cut))
    boxes = found.boxes.astype(np.float64)
    kept: defaultdict[int, _Kept] = defaultdict(_Kept)
    chosen = []
    columns = (found.groups[order].tolist(), found.parts[order].tolist(), found.is_cut[order].tolist())
    for index, group, part, is_cut in zip(order.tolist(), *columns, strict=True):
        box = _Box._make([*boxes[index].tolist(), part])
        if kept[group].admits(box, iou, covered if is_cut else None):
            chosen.append(index)
    return np.array(chosen, np.int64)


class _Box(NamedTuple):
    """A box, and the part in which it was found."""

    x1: float
    y1: float
    x2: float
    y2: float
    part: float


_ByPart = dict[float, list[_Box]]
"""Boxes by the part in which they were found."""


class _Kept:
    """Boxes of a group that are kept, in grids by size: level n has those with sides of up to 2 ** n."""

    def __init__(self) -> None:
        self._grids: dict[int, _Grid] = {}

    def admits(self, box: _Box, iou: float, covered: float | None) -> bool:
        """Adds a box, unless one that is there suppresses it; see `suppress`."""
        level = math.ceil(math.log2(max(box.x2 - box.x1, box.y2 - box.y1, 1)))
        # the sides of two boxes that overlap by a part of 1 differ by that factor at most
        least = iou if covered is None else min(iou, covered)
        reach = math.ceil(math.log2(1 / least)) if least > 0 else math.inf
        for other, grid in self._grids.items():
            if other < level - reach or (covered is None and other > level + reach):
                continue
            if any(_suppresses(rival, box, iou, covered) for rival in grid.near(box)):
                return False
        if level not in self._grids:
            self._grids[level] = _Grid(2.0**level)
        self._grids[level].add(box)
        return True


class _Grid:
    """Boxes by the cells of a grid that they touch, up to four each.

    Args:
        cell: the side of a cell; no box has longer sides.
    """

    def __init__(self, cell: float) -> None:
        self._cell = cell
        self._count = 0
        self._of_part: _ByPart = {}
        self._of_cell: dict[tuple[int, int], _ByPart] = {}

    def add(self, box: _Box) -> None:
        """Adds a box."""
        self._count += 1
        self._of_part.setdefault(box.part, []).append(box)
        for place in self._cells(box):
            self._of_cell.setdefault(place, {}).setdefault(box.part, []).append(box)

    def near(self, box: _Box) -> Iterable[_Box]:
        """The boxes of other parts that have a cell in common with one; some may come several times."""
        places: Iterable[_ByPart] = (self._of_cell.get(place, {}) for place in self._cells(box))
        if (box.x2 - box.x1) * (box.y2 - box.y1) > self._cell**2 * self._count:  # more cells than boxes
            places = [self._of_part]
        for of_place in places:
            for part, boxes in of_place.items():
                if part != box.part:
                    yield from boxes

    def _cells(self, box: _Box) -> Iterator[tuple[int, int]]:
        """The cells that a box touches."""
        across = range(int(box.x1 // self._cell), int(box.x2 // self._cell) + 1)
        down = range(int(box.y1 // self._cell), int(box.y2 // self._cell) + 1)
        return product(across, down)


def _suppresses(rival: _Box, box: _Box, iou: float, covered: float | None) -> bool:
    """Whether a box that is kept suppresses one of another part."""
    across = min(rival.x2, box.x2) - max(rival.x1, box.x1)
    down = min(rival.y2, box.y2) - max(rival.y1, box.y1)
    if across <= 0 or down <= 0:
        return False
    common, area = across * down, (box.x2 - box.x1) * (box.y2 - box.y1)
    if covered is not None and common > covered * area:
        return True
    return common > iou * (area + (rival.x2 - rival.x1) * (rival.y2 - rival.y1) - common)
