"""Applies a job spec's settings to a model: class names; a detector's thresholds, NMS and box limit."""

import difflib
import sys

from torch import nn

from schemas.exceptions import ModelError
from schemas.spec import DetectorSpec, ModelSpec
from workers.models.weights import read_bytes


def given_categories(spec: ModelSpec) -> tuple[str, ...] | None:
    """The class names in a spec; None if it has none and the model's own are used.

    Raises:
        ModelError: the file of names cannot be read, or there are no names.
    """
    if spec.categories is None:
        return None
    if isinstance(spec.categories, str):
        text = read_bytes(spec.categories, "the file of class names").decode("utf-8-sig", errors="replace")
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    else:
        names = tuple(spec.categories)
    if not names:
        raise ModelError(f"categories: found no class name for {spec.model}; expected one on each line")
    return names


def replace_categories(own: tuple[str, ...], given: tuple[str, ...] | None, model: str) -> tuple[str, ...]:
    """The given class names, or a model's own if none are given.

    Raises:
        ModelError: their number differs from the number of the model's classes.
    """
    if given is not None and len(given) != len(own):
        raise ModelError(f"categories: found {len(given)} class names, but {model} has {len(own)} classes")
    return given or own


def thresholds_by_class(spec: DetectorSpec, categories: tuple[str, ...]) -> tuple[float, ...]:
    """For each class id, the score that a box must exceed.

    If several classes have the same name, a threshold for that name is for all of them.

    Raises:
        ModelError: a threshold names a class that the model does not have.
    """
    for name in spec.class_thresholds:
        if name not in categories:
            close = difflib.get_close_matches(name, categories, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "`raylabel models` lists the models"
            raise ModelError(f"class_thresholds: {spec.model} has no class {name!r}; {hint}")
    return tuple(spec.class_thresholds.get(name, spec.score_threshold) for name in categories)


def apply_settings(module: nn.Module, spec: DetectorSpec) -> None:
    """Sets a detector's own score threshold and, if the spec has them, its NMS overlap and limit of boxes.

    The attributes are torchvision's, on the module or on its `roi_heads`. The score threshold becomes the
    lowest one in the spec, so that the module drops nothing that the spec keeps. If the spec has `max_boxes`
    the module's own limit is lifted, because boxes are counted after the thresholds.

    Raises:
        ModelError: the spec has `nms_iou`, but the module has no attribute for it.
    """
    head = getattr(module, "roi_heads", module)
    if hasattr(head, "score_thresh"):
        head.score_thresh = spec.lowest_threshold
    if spec.nms_iou is not None:
        if not hasattr(head, "nms_thresh"):
            raise ModelError(
                f"nms_iou: {spec.model} does its own non-maximum suppression and has no `nms_thresh` to set; "
                "leave nms_iou out"
            )
        head.nms_thresh = spec.nms_iou
    if spec.max_boxes is not None and hasattr(head, "detections_per_img"):
        head.detections_per_img = sys.maxsize
