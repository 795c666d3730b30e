"""Images through all models of a job: whole ones first, then the objects that were found in them."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from schemas.exceptions import ImageError
from schemas.images import DecodedImage, Detections
from schemas.tasks import DETECT, BoxChoice
from schemas.words import counted
from workers.models.predictor import ModelInput
from workers.models.preprocess import MAX_ASPECT, is_strip
from workers.models.runner import Results, Runner
from workers.tables.results import joined

Image = DecodedImage | ModelInput
"""What a model gets."""

Values = dict[str, Any]
"""What models say of an image: values of columns of results."""

Predict = Callable[[Runner, Sequence[int], Sequence[Image]], Sequence[Results | ImageError]]
"""Computes a network for images whose manifest rows are given before them, several of one row if need be."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Crop:
    """An object as an image of its own.

    Attributes:
        index: of the object within its image, by descending score: `object_index` in the tables.
        image: its pixels, a view of those of its image.
    """

    index: int
    image: DecodedImage


class Stages:
    """The models of a job, in the order in which images pass them.

    Those with `on: boxes` come last: they get what the detector found, after its thresholds, its suppression
    of doubled boxes and its class map. The objects of all images that are given together share batches.

    Args:
        runners: of all models; a detector is among them where one gets boxes.
    """

    def __init__(self, runners: Sequence[Runner]) -> None:
        self._whole = [runner for runner in runners if runner.boxes is None]
        self._of_boxes = [(runner, runner.boxes) for runner in runners if runner.boxes is not None]

    @property
    def of_boxes(self) -> list[Runner]:
        """The networks that get boxes."""
        return [runner for runner, _ in self._of_boxes]

    def __call__(self, images: Mapping[int, Image], predict: Predict) -> dict[int, Values | ImageError]:
        """What all models say of images, by manifest row: values, or the first error.

        Args:
            images: by manifest row; where a model gets boxes each with its pixels.
            predict: computes one network.
        """
        rows, pictures = list(images), list(images.values())
        answers = [predict(runner, rows, pictures) for runner in self._whole]
        results = dict(zip(rows, zip(*answers, strict=True), strict=True))
        found = {row: self._values(of_image) for row, of_image in results.items()}
        for runner, boxes in self._of_boxes:
            labelled = {row: one for row, one in found.items() if not isinstance(one, ImageError)}
            crops = {row: list(self._crops(images[row], results[row], boxes)) for row in labelled}
            for row, values in _of_objects(runner, crops, predict).items():
                if not isinstance(values, ImageError):
                    values = joined([labelled[row], values])  # noqa: PLW2901
                found[row] = values
        return found

    def _values(self, results: Sequence[Results | ImageError]) -> Values | ImageError:
        """What the models of whole images say of one: their values together, or the first error."""
        values = []
        for runner, of_runner in zip(self._whole, results, strict=True):
            if isinstance(of_runner, ImageError):
                return of_runner
            values += [p.values(result) for p, result in zip(runner.predictors, of_runner, strict=True)]
        return joined(values)

    def _crops(self, image: Image, results: Sequence[Any], boxes: BoxChoice) -> Iterator[Crop]:
        """The objects of an image that a model gets."""
        assert isinstance(image, DecodedImage)  # only without a detector are inputs made elsewhere
        detections, names = next(
            (result, predictor.resolved.known_as)
            for runner, of_runner in zip(self._whole, results, strict=True)
            for predictor, result in zip(runner.predictors, of_runner, strict=True)
            if predictor.task == DETECT
        )
        for index in chosen(detections, names, boxes):
            yield Crop(index, cut_out(image, detections.boxes[index].tolist(), boxes.margin))


def chosen(detections: Detections, names: Sequence[str | None], boxes: BoxChoice) -> list[int]:
    """The objects of an image that a model gets, by their places in it: by descending score.

    Args:
        detections: of the image.
        names: of the detector's classes in the tables, by class id.
        boxes: that the model gets.
    """
    wanted = frozenset(boxes.classes)
    places = (n for n, class_id in enumerate(detections.class_ids) if not wanted or names[class_id] in wanted)
    return list(places)[: boxes.most]


def cut_out(image: DecodedImage, box: Sequence[float], margin: float) -> DecodedImage:
    """What is in a box, as an image of its own: a view of the image's pixels.

    Args:
        image: the image.
        box: [x1, y1, x2, y2] in its pixels, half-open, as of `schemas.images.Detections`.
        margin: see `schemas.tasks.BoxChoice`.

    Returns:
        The box, grown and clipped to the image, with every pixel that any part of it is in; at least one.
    """
    x1, y1, x2, y2 = box
    across, down = margin * (x2 - x1), margin * (y2 - y1)
    left, top = max(math.floor(x1 - across), 0), max(math.floor(y1 - down), 0)
    right, bottom = min(math.ceil(x2 + across), image.width), min(math.ceil(y2 + down), image.height)
    return replace(image, pixels=image.pixels[top:bottom, left:right])


def _of_objects(
    runner: Runner, crops: Mapping[int, Sequence[Crop]], predict: Predict
) -> dict[int, Values | ImageError]:
    """What models say of the objects of images, by manifest row: values, or the first error.

    An object that is a strip is left out: it is no reason to lose its image.
    """
    every = [(row, crop) for row, of_image in crops.items() for crop in of_image]
    whole = [(row, crop) for row, crop in every if not is_strip(crop.image.width, crop.image.height)]
    if left_out := len(every) - len(whole):
        what = counted(left_out, "object is", "objects are")
        _log.info(
            "%s over %d times longer than wide, or wider: not sent to %s", what, MAX_ASPECT, runner.name
        )
    answers = predict(runner, [row for row, _ in whole], [crop.image for _, crop in whole])
    results: dict[int, dict[int, Results]] = {row: {} for row in crops}
    errors: dict[int, ImageError] = {}
    for (row, crop), answer in zip(whole, answers, strict=True):
        if isinstance(answer, ImageError):
            errors.setdefault(row, _about(crop, answer))
        else:
            results[row][crop.index] = answer
    return {row: errors.get(row) or _object_values(runner, of_image) for row, of_image in results.items()}


def _object_values(runner: Runner, results: Mapping[int, Results]) -> Values:
    """What models say of the objects of an image, by their places in it."""
    return joined(
        predictor.values_of_objects({index: of_object[place] for index, of_object in results.items()})
        for place, predictor in enumerate(runner.predictors)
    )


def _about(crop: Crop, error: ImageError) -> ImageError:
    """The error of an object as that of its image."""
    where = f"object {crop.index}, {crop.image.width}x{crop.image.height} pixels"
    return ImageError(error.stage, error.code, f"{where}: {error.message}", error.attempts)
