"""A detector that gets images in tiles: their parts in batches, and one result for each image."""

from collections.abc import Sequence

from schemas.exceptions import ImageError
from schemas.images import DecodedImage
from workers.models.detector import Detector
from workers.models.model import Model
from workers.models.predictor import ModelInput
from workers.models.runner import BatchWatch, Results, Runner, RunnerOptions, unwatched
from workers.models.tiles import Part, Tiling

MODULES = ("workers.models.tiled", "workers.models.tiles")
"""What the rows of a detector with tiles depend on, beside those of one without."""


class TiledRunner(Runner):
    """The network of a detector with tiles.

    Parts of several images share a batch. A part is a view of its image's pixels, and becomes an input with
    its batch, so that little more memory is taken than without tiles.

    Args:
        model: whose network is run.
        detector: that reads its answers.
        tiling: how images are cut.
        options: where and how.
    """

    def __init__(self, model: Model, detector: Detector, tiling: Tiling, options: RunnerOptions) -> None:
        super().__init__(model, [detector], options)
        self._detector, self._tiling = detector, tiling

    def __call__(
        self, images: Sequence[DecodedImage | ModelInput], watch: BatchWatch = unwatched
    ) -> list[Results | ImageError]:
        """See `Runner.__call__`; `watch` gets the position of an image once for each part in a batch.

        Raises:
            TypeError: an image is the input of a model already, which cannot be cut.
        """
        cut = [self._parts(image) for image in images]
        owners = [n for n, parts in enumerate(cut) for _ in parts]
        pictures = [part.image for parts in cut for part in parts]
        found = iter(super().__call__(pictures, lambda batch: watch([owners[n] for n in batch])))
        return [self._merged(parts, [next(found) for _ in parts]) for parts in cut]

    def _parts(self, image: DecodedImage | ModelInput) -> list[Part]:
        if isinstance(image, ModelInput):
            raise TypeError("an input of a model cannot be cut into tiles")
        return self._tiling.parts(image)

    def _merged(self, parts: list[Part], found: list[Results | ImageError]) -> Results | ImageError:
        """The result of an image, or the error of the first part that failed."""
        results = []
        for part, result in zip(parts, found, strict=True):
            if isinstance(result, ImageError):
                return _in_part(result, part) if len(parts) > 1 else result
            results.append(result[0])
        return (self._detector.merged(parts, results),)


def _in_part(error: ImageError, part: Part) -> ImageError:
    """An error that says in which part of its image it was."""
    left, top, right, bottom = part.region
    where = f"of the part from x {left}, y {top} to x {right}, y {bottom}"
    return ImageError(error.stage, error.code, f"{error.message} ({where})", error.attempts)
