"""A photo through the embedder of a run, as its images went through it; a text through its half for texts."""

import numpy as np
import torch
from numpy.typing import NDArray

from schemas.exceptions import ImageError, ModelError
from schemas.locations import Location
from schemas.models import ResolvedModel
from schemas.spec import JobSpec
from schemas.tasks import ModelSpec
from workers.decode.picture import Limits
from workers.label.reader import ImageReader
from workers.models.registry import load_all, load_text_half, runners_of
from workers.models.runner import RunnerOptions
from workers.process.memory import memory
from workers.process.serve import StageCallback


class PhotoEmbedder:
    """Embeds photos, on the CPU, whatever the run computed with.

    Args:
        spec: of the run, which has an embedder.
        fingerprint: of that embedder, as the run's tables have it.

    Raises:
        ModelError: the embedder cannot be built, or is another one here.
    """

    def __init__(self, spec: JobSpec, fingerprint: str) -> None:
        loaded = load_all({"embedder": spec.models["embedder"]})
        if (built := loaded["embedder"].resolved.fingerprint) != fingerprint:
            raise ModelError(
                f"the embedder that is built here is {built}, that of the run is {fingerprint}: its weights, "
                "a module of yours or an installed library has changed"
            )
        self._runner, *_ = runners_of(loaded, RunnerOptions(torch.device("cpu"), 1, "auto", "torch"))
        self._stage = self._runner.stage
        self._read = ImageReader(spec.fetch, Limits(spec.decode.max_pixels, memory().limit), "cpu", 1, 1)

    def __call__(self, location: Location, on_stage: StageCallback) -> NDArray[np.float32]:
        """The vector of a photo, float32 (width,).

        Args:
            location: of the photo.
            on_stage: called as each stage begins.

        Raises:
            ImageError: it cannot be read or decoded, or the model fails on it.
        """
        (image,) = self._read([location])
        if isinstance(image, ImageError):
            raise image
        on_stage(self._stage)
        (results,) = self._runner([image.decoded])
        if isinstance(results, ImageError):
            raise results
        (vector,) = results
        if isinstance(vector, ImageError):
            raise vector
        return np.asarray(vector, np.float32)


class TextEmbedder:
    """Embeds texts, on the CPU, in the space of a run's images.

    Args:
        spec: of the run's embedder.
        resolved: that embedder, as the run's record has it.

    Raises:
        ModelError: it has no half for texts, cannot be read, or is another one here.
    """

    def __init__(self, spec: ModelSpec, resolved: ResolvedModel) -> None:
        half = load_text_half(spec)
        if half.weights_sha256 != resolved.weights_sha256:
            raise ModelError(
                f"{resolved.weights} has changed since the run: its sha256 is {half.weights_sha256}, that of "
                f"the run's embedder is {resolved.weights_sha256}; put its files back, or label into another "
                "output"
            )
        if not half.settings.items() <= resolved.settings.items():
            raise ModelError(
                "the half for texts of the run's embedder has changed since the run; put its files back, or "
                "label into another output"
            )
        self._encode = half.encode

    def __call__(self, text: str, on_stage: StageCallback) -> NDArray[np.float32]:
        """The vector of a text, float32 (width,), of length 1.

        Args:
            text: taken as it is.
            on_stage: never called: it is about no image.

        Raises:
            ModelError: the text is too long.
        """
        del on_stage
        return np.asarray(self._encode([text])[0].numpy(), np.float32)
