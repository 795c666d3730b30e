"""What a source of models is to the registry: built-in models, torchvision, timm, factories."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from schemas.exceptions import ModelError
from schemas.models import EncodedTexts, Explanation, ModelInfo
from schemas.tasks import CLASSIFY, ModelSpec, Task, has_labels
from workers.models.model import Built, TextHalf
from workers.models.preprocess import CLASSIFIER_KEYS, assert_usable


class Source(ABC):
    """Models that are built in one way.

    Attributes:
        on_request: whether they are listed only on request, as there are over a thousand.
        takes_layout: whether a job spec's `layout` says something of its models.
        takes_labels: whether the classes of some of its models are texts, a job spec's `labels`.
    """

    on_request: ClassVar[bool] = False
    takes_layout: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of raylabel's that build and compute its models; see `jobs.prepare.code`."""
        return (type(self).__module__,)

    @abstractmethod
    def names(self, task: Task) -> list[str]:
        """Every model of a task, as a job spec names it."""

    def has(self, model: str, task: Task) -> bool:
        """Whether it builds what a job spec names so."""
        return model in self.names(task)

    def takes(self, spec: ModelSpec) -> bool:
        """Whether it builds the model of a job spec."""
        return self.has(spec.model, spec.task.serve or spec.task)

    def input_keys(self, spec: ModelSpec) -> tuple[str, ...]:  # noqa: ARG002 - some ask it
        """The keys of `input` that the model of a job spec can use."""
        return ()

    def assert_settings(self, spec: ModelSpec) -> None:
        """Refuses settings that would change nothing.

        Raises:
            ModelError: the spec has one.
        """
        assert_usable(spec, self.input_keys(spec))
        if getattr(spec, "layout", None) is not None and not self.takes_layout:
            raise ModelError(f"layout: found for {spec.model}, which has its own; leave it out")
        if has_labels(spec) and not self.takes_labels:
            raise ModelError(no_labels(spec.model))

    @abstractmethod
    def describe(self, name: str, task: Task) -> ModelInfo:
        """A model with its default weights, for `raylabel models`; nothing is built."""

    def explain(self, spec: ModelSpec) -> Explanation:
        """What the model of a spec is taken for, whatever the spec's task: by itself, as `describe` says.

        Raises:
            ModelError: only building it would tell, or it cannot be read.
        """
        task = spec.task.serve or spec.task
        if not self.has(spec.model, task):
            raise ModelError(f"{spec.model}: only a job builds it; `raylabel check` says what it is")
        info = self.describe(spec.model, task)
        facts = {
            "input": info.input_size,
            "classes": str(info.categories),
            "licence": info.licence,
            "quality": info.quality,
        }
        return Explanation(
            model=spec.model,
            task=info.task,
            source=info.source,
            facts=facts,
            spec=f"{info.task}: {spec.model}\n",
        )

    @abstractmethod
    def build(self, spec: ModelSpec) -> Built[Any]:
        """The model of a job spec, on the CPU, with the spec's weights and categories.

        Raises:
            ModelError: the weights cannot be read or do not fit, or the categories do not.
        """

    def build_with(self, spec: ModelSpec, texts: EncodedTexts) -> Built[Any]:  # noqa: ARG002 - some have them
        """The same, of a zero-shot model whose labels were encoded before."""
        return self.build(spec)

    def text_half(self, spec: ModelSpec) -> TextHalf:
        """The half of a model that is for texts, without that for images.

        Raises:
            ModelError: it has none, or it cannot be read.
        """
        raise ModelError(no_texts(spec.model))


def no_texts(model: str) -> str:
    """What to say of a text for a model that has no half for texts."""
    return (
        f"{model} has no half for texts; allowed: a folder of CLIP or SigLIP with its tokenizer, as in "
        "`embedder: ./siglip2/`, or an ONNX file with `text_model`"
    )


def no_labels(model: str) -> str:
    """What to say of labels for a model whose classes are its own."""
    return (
        f"labels: found for {model}, which has classes of its own; allowed: for a folder of CLIP, SigLIP, "
        "OWLv2 or Grounding DINO, or beside `text_model`. Leave labels out, or give classes other names with "
        "`class_map`"
    )


class BuiltIn(Source):
    """A source of one model.

    Args:
        task: of the model.
        info: the model with its default weights.
        build: see `Source.build`.
    """

    def __init__(self, task: Task, info: ModelInfo, build: Callable[[ModelSpec], Built[Any]]) -> None:
        self._task, self._info, self._build = task, info, build

    @property
    def modules(self) -> tuple[str, ...]:
        """See `Source.modules`."""
        return (self._build.__module__,)

    def input_keys(self, spec: ModelSpec) -> tuple[str, ...]:  # noqa: ARG002 - there is one
        """See `Source.input_keys`."""
        return CLASSIFIER_KEYS if self._task == CLASSIFY else ()

    def names(self, task: Task) -> list[str]:
        """See `Source.names`."""
        return [self._info.name] if task == self._task else []

    def describe(self, name: str, task: Task) -> ModelInfo:  # noqa: ARG002 - there is one
        """See `Source.describe`."""
        return self._info

    def build(self, spec: ModelSpec) -> Built[Any]:
        """See `Source.build`."""
        return self._build(spec)
