"""Folds a model's classes into those of a class map: scores are added up, boxes of one object made one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from schemas.images import Detections

DROPPED = -1
"""The group of classes that are left out."""

MERGE_IOU = 0.5
"""The overlap above which boxes of merged classes are one object, of a detector without an NMS of its own."""


@dataclass(frozen=True)
class Folding:
    """Which classes of a model have the same name in the tables.

    Attributes:
        names: the name of each class in the tables, by class id; None: it is left out.
        add_up: whether an image has one of the classes, so that the score of a name is the sum of its
            classes'; else, where it may have several or none, the greatest of them.
    """

    names: tuple[str | None, ...]
    add_up: bool = False

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """The number of each class's name, int64 (classes,) by class id; `DROPPED` where it is left out."""
        numbers: dict[str | None, int] = {None: DROPPED}
        for name in self.names:
            numbers.setdefault(name, len(numbers) - 1)
        return np.array([numbers[name] for name in self.names], np.int64)

    @cached_property
    def merges(self) -> bool:
        """Whether several classes have one name."""
        kept = self.groups[self.groups != DROPPED]
        return len(set(kept.tolist())) < len(kept)

    def fold(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The scores of names, and the class that scored best under each.

        Args:
            scores: of classes, float32 (n, classes).

        Returns:
            Scores, float32 (n, names) in the order in which names first occur, and class ids, int64 (n,
            names), of equal classes the first; on the CPU. A name of one class has its score, bit for bit.
        """
        order, starts, counts = self._segments
        values = scores.cpu().numpy()[:, order]
        best = np.maximum.reduceat(values, starts, axis=1)
        is_best = values == np.repeat(best, counts, axis=1)
        ids = np.minimum.reduceat(np.where(is_best, order, len(self.names) - 1), starts, axis=1)
        # a sum of parts of 1 may be rounded to more
        folded = np.minimum(np.add.reduceat(values, starts, axis=1), np.float32(1)) if self.add_up else best
        return torch.from_numpy(folded), torch.from_numpy(ids)

    @cached_property
    def _segments(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Class ids, those of a group together; where each group begins in them; how many it has."""
        order = np.argsort(self.groups, kind="stable")
        order = order[self.groups[order] != DROPPED]
        _, starts, counts = np.unique(self.groups[order], return_index=True, return_counts=True)
        return order, starts, counts

    def merge(self, detections: Detections, iou: float) -> Detections:
        """An image's objects; those that were found as several classes of one name are made one.

        A box is dropped where a better one that is kept, of another class with the same name, overlaps it
        more than `iou`: non-maximum suppression, but not within a class, as the module has done that.

        Args:
            detections: the objects.
            iou: intersection over union, 0 to 1.
        """
        groups = self.groups[detections.class_ids]
        others = detections.class_ids[:, None] != detections.class_ids
        rivals = (groups[:, None] == groups) & (groups != DROPPED) & others
        if not rivals.any():
            return detections
        rivals &= overlaps(detections.boxes) > iou
        kept = np.ones(len(groups), bool)
        for index in np.argsort(-detections.scores, kind="stable"):
            if kept[index]:
                kept &= ~rivals[index]
                rivals[:, index] = False  # what is kept is dropped by no later one
        return Detections(detections.boxes[kept], detections.scores[kept], detections.class_ids[kept])


def grouped_nms(boxes: Tensor, scores: Tensor, labels: Tensor, groups: Tensor | None, iou: float) -> Tensor:
    """Non-maximum suppression by the groups of a class map: the indices of what is kept, best first.

    Args:
        boxes: float (n, 4).
        scores: float (n,).
        labels: class ids, int (n,).
        groups: see `Folding.groups`; None: each class by itself.
        iou: boxes of a group that overlap more are one object.
    """
    if groups is None:
        return torch.as_tensor(batched_nms(boxes, scores, labels, iou))
    numbers = groups.to(labels.device)[labels]
    kept = (numbers != DROPPED).nonzero().flatten()
    best: Tensor = kept[batched_nms(boxes[kept], scores[kept], numbers[kept], iou)]
    return best


def overlaps(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of each two of some boxes, (n, 4) to (n, n); 0 where both have no area."""
    exact = boxes.astype(np.float64)
    corners = np.maximum(exact[:, None, :2], exact[:, :2]), np.minimum(exact[:, None, 2:], exact[:, 2:])
    common = np.clip(corners[1] - corners[0], 0, None).prod(axis=2)
    areas = (exact[:, 2:] - exact[:, :2]).prod(axis=1)
    union = areas[:, None] + areas - common
    shares: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares


def folding_of(names: Sequence[str | None], *, add_up: bool = False) -> Folding | None:
    """The folding of a model whose classes have these names; None of one without a class map."""
    return Folding(tuple(names), add_up) if names else None
