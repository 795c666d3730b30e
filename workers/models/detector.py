"""The detector: says which objects are in an image, how many, and where."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from schemas.exceptions import ImageError
from schemas.images import Detections
from schemas.tasks import DETECT, DetectorSpec
from workers.models.folding import folding_of
from workers.models.model import DetectorModel, LoadedModel
from workers.models.predictor import Inputs, ModelInput, Predictor
from workers.models.settings import apply_settings, thresholds_by_class
from workers.models.tiles import Part, Tiling
from workers.tables.results import box_values


class Detector(Predictor[Detections]):
    """A detector; see `Predictor`.

    Attributes:
        tiling: how images are cut for it; None: they are not.
    """

    task = DETECT
    inputs = Inputs

    def __init__(self, name: str, loaded: LoadedModel[DetectorModel, DetectorSpec]) -> None:
        super().__init__(name, loaded)
        self._thresholds = np.array(thresholds_by_class(loaded.spec, loaded.model), np.float32)
        settings: Mapping[str, Any] = loaded.resolved.settings
        tiles = loaded.spec.tiles
        self.tiling = Tiling(tiles.size, tiles.step, settings["tiles"]["iou"]) if tiles else None
        self._most_of_all = loaded.spec.max_boxes
        self._max_boxes: int | None = settings.get("max_boxes", loaded.spec.max_boxes)
        if self.tiling and self._most_of_all is not None:
            self._max_boxes = None  # they are counted when those of all tiles are there
        self._merge_iou: float | None = settings.get("merge_iou")
        self._folding = folding_of(loaded.model.names)

    @staticmethod
    def apply(spec: DetectorSpec, model: DetectorModel) -> dict[str, object]:
        """See `Predictor.apply`; the lowest threshold and the NMS overlap are set in the module."""
        thresholds_by_class(spec, model)  # refuses one of a class that the model lacks
        settings = spec.model_dump(include={"score_threshold", "class_thresholds", "nms_iou", "max_boxes"})
        return settings | apply_settings(model, spec)

    def values(self, result: Detections) -> dict[str, Any]:
        """See `box_values`."""
        return box_values(result, self.resolved)

    def read(self, outputs: Any, batch: list[ModelInput]) -> list[Detections | ImageError]:
        """See `Predictor.read`."""
        if not isinstance(outputs, list) or len(outputs) != len(batch):
            raise ValueError(f"the detector answered {len(batch)} images with {type(outputs).__name__}")
        return [self._detections(output, image) for output, image in zip(outputs, batch, strict=True)]

    def merged(self, parts: Sequence[Part], found: Sequence[Detections]) -> Detections:
        """The objects of an image from those of its parts; see `Tiling.merged`."""
        if self.tiling is None:
            raise ValueError("this detector has no tiles")
        groups = self._folding.groups if self._folding else None
        merged, most = self.tiling.merged(parts, found, groups), self._most_of_all
        return Detections(merged.boxes[:most], merged.scores[:most], merged.class_ids[:most])

    def _detections(self, output: dict[str, Tensor], image: ModelInput) -> Detections | ImageError:
        """The objects in the module's answer for one image, checked and filtered."""
        try:
            boxes, scores, class_ids = _arrays(output, classes=len(self._thresholds))
        except (ValueError, FloatingPointError, KeyError) as error:
            return self.image_error(error)
        detections = Detections(boxes, scores, class_ids)
        if self._folding is not None and self._merge_iou is not None:
            detections = self._folding.merge(detections, self._merge_iou)
        return select(
            detections,
            thresholds=self._thresholds,
            max_boxes=self._max_boxes,
            width=image.width,
            height=image.height,
        )


def _arrays(
    output: dict[str, Tensor], *, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Boxes (n, 4), scores (n,) and class ids (n,) from torchvision's dictionary, checked.

    Raises:
        FloatingPointError: a box or a score is NaN or infinite.
        ValueError: shapes disagree, or a class id is not a class of the model.
    """
    boxes, scores = (output[name].float().cpu().numpy() for name in ("boxes", "scores"))
    labels = output["labels"].cpu().numpy()
    n = len(scores)
    if boxes.shape != (n, 4) or scores.shape != (n,) or labels.shape != (n,):
        raise ValueError(
            f"the detector answered with boxes {boxes.shape}, scores {scores.shape}, labels {labels.shape}"
        )
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise FloatingPointError("a box or a score is not a number")
    if n and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"the detector answered with class {labels.max()}, but there are {classes} names")
    return boxes, scores, labels.astype(np.int32)


def select(
    detections: Detections, *, thresholds: NDArray[np.float32], max_boxes: int | None, width: int, height: int
) -> Detections:
    """Filters an image's objects, sorts them in the order of the tables, and clips them to the image.

    Args:
        detections: the objects in the model's order; boxes in pixels of the image, may exceed it.
        thresholds: for each class id, the score that an object must exceed, float32 (classes,).
        max_boxes: the most objects to keep, best first; None: all.
        width: of the image, pixels.
        height: of the image, pixels.

    Returns:
        By descending score, equal scores in the model's order; clipped; boxes without area are dropped, and
        do not count.
    """
    passed = np.flatnonzero(detections.scores > thresholds[detections.class_ids])
    best = passed[np.argsort(-detections.scores[passed], kind="stable")]
    boxes = clip(detections.boxes[best], width, height)
    has_area = np.flatnonzero((boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3]))[:max_boxes]
    kept = best[has_area]
    return Detections(boxes[has_area], detections.scores[kept], detections.class_ids[kept])


def clip(boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Clips boxes, float32 (n, 4), to x within [0, width] and y within [0, height]."""
    limits = np.array([width, height, width, height], np.float32)
    return np.clip(boxes, np.float32(0), limits)
