"""What a source of models is to the registry: built-in models, torchvision, timm, factories."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from schemas.models import ModelInfo
from schemas.spec import ModelSpec
from schemas.tasks import Task
from workers.models.model import Built


class Source(ABC):
    """Models that are built in one way.

    Attributes:
        on_request: whether they are listed only on request, as there are over a thousand.
    """

    on_request: ClassVar[bool] = False

    @abstractmethod
    def names(self, task: Task) -> list[str]:
        """Every model of a task, as a job spec names it."""

    def has(self, model: str, task: Task) -> bool:
        """Whether it builds what a job spec names so."""
        return model in self.names(task)

    @abstractmethod
    def describe(self, name: str, task: Task) -> ModelInfo:
        """A model with its default weights, for `raylabel models`; nothing is built."""

    @abstractmethod
    def build(self, spec: ModelSpec) -> Built[Any]:
        """The model of a job spec, on the CPU, with the spec's weights and categories.

        Raises:
            ModelError: the weights cannot be read or do not fit, or the categories do not.
        """
