"""Applies a job spec's settings to a model: class names; a detector's thresholds, NMS and box limit."""

import difflib
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from schemas.exceptions import ModelError
from schemas.tasks import ClassesSpec, DetectorSpec, ModelSpec, PromptedSpec
from workers.models.folding import MERGE_IOU, folding_of
from workers.models.model import DetectorModel, Model
from workers.models.weights import read_bytes
from workers.printable import is_unicode, short_line
from workers.storage.uris import clean_uri, is_local

MAX_NAMES = 10
"""Of classes that are named in a message."""

_LIST = "{}: [cat, red car]"
"""How names are written under a key of a spec."""


def given_categories(spec: ModelSpec) -> tuple[str, ...] | None:
    """The class names in a spec; None if it has none and the model's own are used.

    Raises:
        ModelError: the file of names cannot be read, or is not UTF-8; there is no name, a blank one, one that
            no text can have, or the same one twice.
    """
    return _names(spec, "categories", spec.categories)


def given_labels(spec: PromptedSpec) -> tuple[str, ...] | None:
    """The labels in a spec; None if it has none. Read and refused as class names are."""
    return _names(spec, "labels", spec.labels)


def _names(spec: ModelSpec, key: str, given: str | list[str] | None) -> tuple[str, ...] | None:
    """The class names under a key of a spec, or in the file that is named there; None: there are none."""
    if given is None:
        return None
    where = key
    names: Sequence[str] = given
    if isinstance(given, str):
        where = f"{key}: {clean_uri(given)}"
        names = _lines(_file_of_names(given, key), where)
    names = tuple(name.strip() for name in names)
    if not names:
        expected = "one on each line" if isinstance(given, str) else f"a list of names, `{_LIST.format(key)}`"
        raise ModelError(f"{where}: found no class name for {spec.model}; expected {expected}")
    _assert_distinct(names, where)
    return names


def _file_of_names(given: str, key: str) -> bytes:
    """What is in the file of class names that a key of a spec names.

    Raises:
        ModelError: it cannot be read; where there is none, with how names themselves are written.
    """
    try:
        return read_bytes(given, f"{key}: the file of class names")
    except ModelError as error:
        if not is_local(given) or os.path.isfile(given):
            raise
        raise ModelError(f"{error}; names themselves are a list: `{_LIST.format(key)}`") from None


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
    _assert_text(names, where)
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if name in first:
            raise ModelError(
                f"{where}: names {first[name]} and {number} are both {name!r}; tell them apart, for example "
                f"{f'{name} ({number})'!r}: the tables count objects by name"
            )
        first[name] = number


def _assert_text(names: Sequence[str], where: str) -> None:
    """Refuses names with halves of characters, which JSON and YAML can have, but no table."""
    for number, name in enumerate(names, start=1):
        if not is_unicode(name):
            raise ModelError(
                f"{where}: name {number}, {short_line(ascii(name))}, has half of a character (a surrogate), "
                "which no text may have; write the character itself"
            )


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


def thresholds_by_class(spec: DetectorSpec | ClassesSpec, model: Model) -> tuple[float | None, ...]:
    """For each class id, the score that a box or a tag must exceed; None where the spec has none.

    Classes of one name, by a class map or of a model's own as torchvision's have, have the threshold of that
    name; of what a class map leaves out nothing exceeds it.

    Raises:
        ModelError: a threshold names a class that the model does not have.
    """
    assert_classes(spec.class_thresholds, model, "class_thresholds", spec.model)
    return tuple(
        math.inf if name is None else spec.class_thresholds.get(name, spec.score_threshold)
        for name in model.known_as
    )


def assert_classes(names: Iterable[str], model: Model, where: str, called: str) -> None:
    """Refuses names that no class of a model has in the tables.

    Args:
        names: of classes.
        model: whose classes they should be.
        where: they are in the job spec.
        called: how the model is called there.

    Raises:
        ModelError: with what was perhaps meant.
    """
    known = [name for name in dict.fromkeys(model.known_as) if name is not None]
    for name in names:
        if name not in known:
            raise ModelError(f"{where}: {called} has no class {name!r}; {_meant(name, known, model)}")


def _meant(name: str, names: Sequence[str], model: Model) -> str:
    """What was perhaps meant by a name that no class has."""
    if name in model.categories:
        new = model.known_as[model.categories.index(name)]
        return f"by the class map it is {new!r}" if new else "the class map leaves it out"
    close = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"it has {_some(names)}"


def _some(categories: Sequence[str]) -> str:
    """The first class names, and how many more there are."""
    more = f" and {len(categories) - MAX_NAMES:,} more" if len(categories) > MAX_NAMES else ""
    return f"{', '.join(categories[:MAX_NAMES])}{more}"


def apply_settings(model: DetectorModel, spec: DetectorSpec) -> dict[str, object]:
    """Sets a detector's own score threshold and, if the spec has them, its NMS overlap and limit of boxes.

    The attributes are torchvision's, on the module or on its `roi_heads`. The score threshold becomes the
    lowest one in the spec, so that the module drops nothing that the spec keeps. If the spec has `max_boxes`
    the module's own limit is lifted, because boxes are counted after the thresholds.

    With a class map a module that has `nms_groups` suppresses boxes by their new names. Of one that has its
    NMS inside, the boxes are merged afterwards, and the limit is lifted and kept for then.

    With tiles the boxes of all of them are merged by the same overlap.

    Returns:
        Settings that follow from these: `merge_iou`, `max_boxes`, where boxes are merged or left out later;
        `tiles`, with the overlap by which their boxes are merged.

    Raises:
        ModelError: the spec has `nms_iou`, but the module has no attribute for it, and no boxes are merged.
    """
    head: Any = getattr(model.module, "roi_heads", model.module)
    folding = folding_of(model.names)
    later = folding is not None and not hasattr(head, "nms_groups")
    merges = folding is not None and later and folding.merges
    most = spec.max_boxes
    if hasattr(head, "score_thresh"):
        head.score_thresh = min(spec.score_threshold, *spec.class_thresholds.values(), 1.0)
    if spec.nms_iou is not None:
        if hasattr(head, "nms_thresh"):
            head.nms_thresh = spec.nms_iou
        elif not merges and spec.tiles is None:
            also = (
                ", or give its module an attribute `nms_thresh`, which is then set" if spec.is_factory else ""
            )
            raise ModelError(
                f"nms_iou: found {spec.nms_iou:g}, but {spec.model} gives an object one box by itself; leave "
                f"nms_iou out{also}"
            )
    if folding is not None and not later:
        head.nms_groups = torch.from_numpy(folding.groups)
    if hasattr(head, "detections_per_img") and (most is not None or later):
        most = head.detections_per_img if most is None else most
        head.detections_per_img = sys.maxsize
    own = getattr(head, "nms_thresh", MERGE_IOU)
    iou = spec.nms_iou if spec.nms_iou is not None else MERGE_IOU if own is None else own
    return {
        **({"merge_iou": iou} if merges else {}),
        **({"max_boxes": most} if later else {}),
        **({"tiles": {**spec.tiles.model_dump(), "iou": iou}} if spec.tiles else {}),
    }
