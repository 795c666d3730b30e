"""One model by itself, for tests."""

from collections.abc import Sequence
from typing import Any

from schemas.exceptions import ImageError
from schemas.images import DecodedImage
from schemas.models import ModelInfo, ResolvedModel
from schemas.spec import Precision, Runtime
from schemas.tasks import Task
from tests.workers.models.pictures import CPU
from workers.models.model import LoadedModel
from workers.models.predictor import ModelInput
from workers.models.registry import runners_of
from workers.models.runner import RunnerOptions


class Alone:
    """Runs one model on the CPU; the results are those of its own predictor, not one in a tuple."""

    def __init__(
        self,
        loaded: LoadedModel[Any, Any],
        batch_size: int,
        precision: Precision = "auto",
        runtime: Runtime = "auto",
    ) -> None:
        options = RunnerOptions(CPU, batch_size, precision, runtime)
        (self.runner,) = runners_of({loaded.spec.task.name: loaded}, options)

    def __call__(self, images: Sequence[DecodedImage | ModelInput]) -> list[Any]:
        return _first(self.runner(images))

    def predict(self, inputs: Sequence[ModelInput | ImageError]) -> list[Any]:
        return _first(self.runner.predict(inputs))


def unresolved(task: Task, categories: tuple[str, ...]) -> ResolvedModel:
    """The record of a model that a test makes by hand: nothing of it decides what is tested."""
    info = ModelInfo(
        name="x",
        task=task.name,
        source="factory",
        input_size="",
        categories=len(categories),
        licence="",
        quality="",
    )
    return ResolvedModel(
        info=info,
        weights="",
        weights_sha256=None,
        preprocessing="",
        categories=categories,
        settings={},
        code="",
        modules=(),
    )


def _first(results: Sequence[Any]) -> list[Any]:
    return [result if isinstance(result, ImageError) else result[0] for result in results]
