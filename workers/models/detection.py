"""What a job's settings change inside a detector's module."""

import sys

from torch import nn

from schemas.exceptions import ModelError
from schemas.spec import DetectorSpec


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
