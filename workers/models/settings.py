"""Class names: those a spec gives, and the thresholds it sets for some of them."""

import difflib
import sys

from torch import nn

from schemas.exceptions import ModelError
from schemas.spec import DetectorSpec, ModelSpec
from workers.models.weights import read_bytes


def given_categories(spec: ModelSpec) -> tuple[str, ...] | None:
    """The spec's own class names; None where it leaves them to the model.

    Raises:
        ModelError: the file cannot be read, or there are no names in it.
    """
    if spec.categories is None:
        return None
    if isinstance(spec.categories, str):
        text = read_bytes(spec.categories, "the file of class names").decode("utf-8-sig", errors="replace")
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    else:
        names = tuple(spec.categories)
    if not names:
        raise ModelError(f"categories: found no class name for {spec.model}; expected one a line")
    return names


def renamed(own: tuple[str, ...], given: tuple[str, ...] | None, model: str) -> tuple[str, ...]:
    """The given class names in place of a model's own.

    Raises:
        ModelError: there are more or fewer of them than the model has classes.
    """
    if given is not None and len(given) != len(own):
        raise ModelError(f"categories: found {len(given)} class names, but {model} has {len(own)} classes")
    return given or own


def thresholds_by_class(spec: DetectorSpec, categories: tuple[str, ...]) -> tuple[float, ...]:
    """For each class id, what a box of it must score more than.

    A name that several classes bear sets the threshold of all of them.

    Raises:
        ModelError: a threshold is set for a class that the model does not have.
    """
    for name in spec.class_thresholds:
        if name not in categories:
            close = difflib.get_close_matches(name, categories, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "`raylabel models` lists the models"
            raise ModelError(f"class_thresholds: {spec.model} has no class {name!r}; {hint}")
    return tuple(spec.class_thresholds.get(name, spec.score_threshold) for name in categories)


def apply_settings(module: nn.Module, spec: DetectorSpec) -> None:
    """Sets a detector's own score threshold, and its NMS overlap and limit where the spec gives them.

    The attributes are torchvision's, on the module or on its `roi_heads`. The score threshold becomes the
    lowest of the spec's, so that the module drops nothing that the spec keeps; where the spec gives
    `max_boxes` the module's own limit is lifted, because boxes are counted after the thresholds.

    Raises:
        ModelError: the spec gives `nms_iou`, and the module has nowhere to put it.
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
