"""Applies a job spec's settings to a model: class names; a detector's thresholds, NMS and box limit."""

import difflib
import sys
from collections.abc import Sequence

from torch import nn

from schemas.exceptions import ModelError
from schemas.tasks import ClassesSpec, DetectorSpec, ModelSpec
from workers.models.weights import read_bytes
from workers.storage.uris import clean_uri

MAX_NAMES = 10
"""Of classes that are named in a message."""


def given_categories(spec: ModelSpec) -> tuple[str, ...] | None:
    """The class names in a spec; None if it has none and the model's own are used.

    Raises:
        ModelError: the file of names cannot be read, or is not UTF-8; there is no name, a blank one, or the
            same one twice.
    """
    if spec.categories is None:
        return None
    where = "categories"
    names: Sequence[str] = spec.categories
    if isinstance(spec.categories, str):
        where = f"categories: {clean_uri(spec.categories)}"
        names = _lines(read_bytes(spec.categories, "the file of class names"), where)
    names = tuple(name.strip() for name in names)
    if not names:
        raise ModelError(f"{where}: found no class name for {spec.model}; expected one on each line")
    _assert_distinct(names, where)
    return names


def _lines(data: bytes, where: str) -> list[str]:
    """The lines of a file of class names, without blank ones at its end.

    Raises:
        ModelError: it is not UTF-8 text.
    """
    try:
        return data.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ModelError(
            f"{where}: line {line} is not UTF-8 text (byte {data[error.start : error.start + 1]!r}); save "
            "the file as UTF-8"
        ) from None


def _assert_distinct(names: Sequence[str], where: str) -> None:
    """Refuses blank names and names that are there twice: a class is known by its name in the tables."""
    assert_no_blank(names, where)
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if name in first:
            raise ModelError(
                f"{where}: names {first[name]} and {number} are both {name!r}; tell them apart, for example "
                f"{f'{name} ({number})'!r}: the tables count objects by name"
            )
        first[name] = number


def assert_no_blank(names: Sequence[str], where: str) -> None:
    """Raises ModelError for a class name that is blank; the message begins with `where`."""
    for number, name in enumerate(names, start=1):
        if not str(name).strip():
            raise ModelError(
                f"{where}: name {number} is blank; give every class of the model a name, in its order, and "
                "take out lines that are no class"
            )


def replace_categories(own: tuple[str, ...], given: tuple[str, ...] | None, model: str) -> tuple[str, ...]:
    """The given class names, or a model's own if none are given.

    Raises:
        ModelError: their number differs from the number of the model's classes.
    """
    if given is not None and len(given) != len(own):
        raise ModelError(f"categories: found {len(given)} class names, but {model} has {len(own)} classes")
    return given or own


def thresholds_by_class(
    spec: DetectorSpec | ClassesSpec, categories: tuple[str, ...]
) -> tuple[float | None, ...]:
    """For each class id, the score that a box or a tag must exceed; None where the spec has none.

    If several classes of a model's own have the same name, as torchvision's have, a threshold for that name
    is for all of them.

    Raises:
        ModelError: a threshold names a class that the model does not have.
    """
    for name in spec.class_thresholds:
        if name not in categories:
            close = difflib.get_close_matches(name, categories, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {_some(categories)}"
            raise ModelError(f"class_thresholds: {spec.model} has no class {name!r}; {hint}")
    return tuple(spec.class_thresholds.get(name, spec.score_threshold) for name in categories)


def _some(categories: Sequence[str]) -> str:
    """The first class names, and how many more there are."""
    more = f" and {len(categories) - MAX_NAMES:,} more" if len(categories) > MAX_NAMES else ""
    return f"{', '.join(categories[:MAX_NAMES])}{more}"


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
        head.score_thresh = min(spec.score_threshold, *spec.class_thresholds.values(), 1.0)
    if spec.nms_iou is not None:
        if not hasattr(head, "nms_thresh"):
            raise ModelError(
                f"nms_iou: {spec.model} does its own non-maximum suppression and has no `nms_thresh` to set; "
                "leave nms_iou out"
            )
        head.nms_thresh = spec.nms_iou
    if spec.max_boxes is not None and hasattr(head, "detections_per_img"):
        head.detections_per_img = sys.maxsize
