"""Mosaics of labelled photos: large images of small objects that are known; and what is found of them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.images import DecodedImage, Detections
from tests.workers.models.pictures import EVAL, opened
from workers.models.folding import overlaps

COCO = EVAL / "coco64"
CELL = 640
"""Pixels of a photo's place, a square; no photo of these is larger."""

MATCH = 0.5
"""Intersection over union of a box and the object that it shows."""


@dataclass(frozen=True)
class Mosaic:
    """Photos side by side, and what is in them.

    Attributes:
        image: grey where there is no photo.
        boxes: float32 (n, 4), of its objects, [x1, y1, x2, y2] in pixels.
        class_ids: int32 (n,).
    """

    image: DecodedImage
    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int32]


@dataclass(frozen=True)
class Score:
    """What a detector found of an image's objects.

    Attributes:
        objects: that are there.
        found: of these, by a box of the same class that is matched to no other.
        doubles: boxes that show an object which another box shows better.
        wrong: boxes that show none.
    """

    objects: int
    found: int
    doubles: int
    wrong: int

    @property
    def recall(self) -> float:
        """The part of the objects that was found."""
        return self.found / self.objects

    def __add__(self, other: "Score") -> "Score":
        return Score(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def mosaic(across: int, down: int, first: int = 0, cell: int = CELL) -> Mosaic:
    """A mosaic of the labelled photos from one on, as many as it has places, around again behind the last."""
    listed = json.loads((COCO / "annotations.json").read_text(encoding="utf-8"))
    pixels = np.full((down * cell, across * cell, 3), 114, np.uint8)
    boxes, class_ids = [], []
    for place in range(across * down):
        photo = listed["images"][(first + place) % len(listed["images"])]
        image = opened(COCO / photo["file_name"])
        left, top = place % across * cell, place // across * cell
        pixels[top : top + image.height, left : left + image.width] = image.pixels
        for known in listed["annotations"]:
            if known["image_id"] == photo["id"] and not known["iscrowd"]:
                x, y, width, height = known["bbox"]
                boxes.append([left + x, top + y, left + x + width, top + y + height])
                class_ids.append(known["category_id"] - 1)
    return Mosaic(
        DecodedImage(pixels, "PNG", 1, "RGB", 1), np.array(boxes, np.float32), np.array(class_ids, np.int32)
    )


def score(found: Detections, known: Mosaic) -> Score:
    """How much of a mosaic was found: each box, the best first, is matched to the object it overlaps most."""
    taken: Counter[int] = Counter()
    wrong = 0
    for box, class_id in zip(found.boxes, found.class_ids, strict=True):
        same = np.flatnonzero(known.class_ids == class_id)
        shares = overlaps(np.concatenate([box[None], known.boxes[same]]))[0, 1:]
        matching = same[shares > MATCH]
        free = [n for n in matching if not taken[n]]
        if not len(matching):
            wrong += 1
            continue
        taken[free[0] if free else matching[0]] += 1
    return Score(len(known.boxes), len(taken), sum(taken.values()) - len(taken), wrong)


def total(scores: Sequence[Score]) -> Score:
    """The sum of some scores."""
    return sum(scores, Score(0, 0, 0, 0))
